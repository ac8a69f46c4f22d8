"""Open-I, the Indiana University chest X-ray collection (see data_prep/sources/openi.py for the layouts).

    python -m data_prep.build --config=configs/data/openi.py --config.openi.path=OPENI --out=DATA
"""

from ml_collections import ConfigDict

from . import llm


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = ConfigDict()
    config.name = "openi"
    config.source = "openi"
    config.openi = ConfigDict({
        "path": "",  # The folder with ecgen-radiology/ or with indiana_reports.csv.
        "images": "auto",  # A folder in `path`; auto: where the archives unpack to; none: reports only.
        "report_sections": ("findings", "impression"),  # Joined to the report.
        "validation": 0.1,  # Share of the studies, drawn by a hash of the study's number.
        "test": 0.2,  # Share of the studies, likewise.
        "seed": 0,  # Of the hash.
    })
    config.image_size = 256  # The longer side; smaller images are not enlarged.
    config.image_encoding = "png"  # png, jpeg or raw.
    config.extractor = "rules"  # rules, none, or a language model: local, openai, genai, gemini.
    config.llm = llm.get_config()
    config.evidence = ""  # A corrected evidence.csv, which goes before the extractor's.
    config.derived_labels = ()  # silver and weak: further sets of labels, made from the reports.
    config.silver_from = ""  # Silver labels from this file of data_prep.score --labels_out instead.
    config.tokenizer = ConfigDict({
        "vocab_size": 8000,  # Of the tokeniser that is trained on the reports.
        "subjects": 5,  # A word becomes a token if the reports of this many subjects have it: names of patients do not.
    })
    config.shard_studies = 1000
    config.workers = 0  # 0: all cores. Does not change the result.
    return config
