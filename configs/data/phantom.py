"""The phantom world: synthetic chest radiographs with reports, boxes and labels, made from a seed.

    python -m data_prep.build --config=configs/data/phantom.py --out=DATA
"""

from ml_collections import ConfigDict

from . import llm


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = ConfigDict()
    config.name = "phantom"
    config.source = "phantom"
    config.phantom = ConfigDict({
        "size": 64,  # Pixels, 64 to 512.
        "train": 4000,  # Training studies; each split is a world of its own.
        "validation": 500,  # Validation studies.
        "test": 1000,  # Test studies.
        "seed": 0,  # Of all worlds.
        "max_findings": 3,  # Per study.
        "normal_share": 0.3,  # Studies without a finding.
        "repeat_share": 0.15,  # Subjects that have two studies.
        "report_sections": ("findings", "impression"),  # Joined to the report.
        "distractors": True,  # Devices, markers and burned-in text.
    })
    config.image_size = 512  # The longer side; smaller images are not enlarged.
    config.image_encoding = "png"  # png, jpeg or raw.
    config.extractor = "rules"  # rules, none, or a language model: local, openai, genai, gemini.
    config.llm = llm.get_config()
    config.evidence = ""  # A corrected evidence.csv, which goes before the extractor's.
    config.derived_labels = ()  # silver and weak: further sets of labels, made from the reports.
    config.silver_from = ""  # Silver labels from this file of data_prep.score --labels_out instead.
    config.tokenizer = ConfigDict({
        "vocab_size": 4000,  # Of the tokeniser that is trained on the reports.
        "subjects": 5,  # A word becomes a token if the reports of this many subjects have it: names of patients do not.
    })
    config.shard_studies = 500
    config.workers = 0  # 0: all cores. Does not change the result.
    return config
