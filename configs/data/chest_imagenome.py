"""Chest ImaGenome, regions with findings on images of MIMIC-CXR (see data_prep/sources/mimic/chest_imagenome.py).

    python -m data_prep.build --config=configs/data/chest_imagenome.py --config.chest_imagenome.path=IMAGENOME \\
        --config.chest_imagenome.images=MIMIC --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("chest_imagenome", {
        "path": "",  # The release, with silver_dataset/; its scene_graph.zip unpacked.
        "images": "auto",  # The folder with MIMIC-CXR's files/, JPEG or DICOM, at their original size.
        "image_format": "auto",  # jpg, dicom, or auto: what there is.
        "gold": "leave_out",  # The images of images_to_avoid.csv, the gold standard's patients: leave_out or keep.
        "verify": "tables",  # SHA-256 of the tables, of all files, or none.
    }, extractor="none")
