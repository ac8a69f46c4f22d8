"""PadChest-GR, grounded reports on images of PadChest (see data_prep/sources/padchest_gr.py).

    python -m data_prep.build --config=configs/data/padchest_gr.py --config.padchest_gr.path=PADCHEST_GR --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = dataset("padchest_gr", {
        "path": "",  # The folder with grounded_reports_20240819.json and master_table.csv.
        "images": "auto",  # The folder with the PNG images; auto: in Padchest_GR_files/.
        "language": "en",  # Of the sentences: en or es. The rules read English only: es needs --config.extractor=none.
    })
    config.image_size = 1024  # Boxes can be small.
    return config
