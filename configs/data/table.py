"""Your own data: a table of studies beside its images (see data_prep/sources/table.py for the columns).

    python -m data_prep.build --config=configs/data/table.py --config.table.path=studies.csv --out=DATA
"""

from ml_collections import ConfigDict

from . import llm


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = ConfigDict()
    config.name = "table"  # Names the files; lower case.
    config.source = "table"  # The reader, a module of data_prep/sources.
    config.table = ConfigDict({
        "path": "",  # studies.csv, or the folder with it.
        "boxes": "boxes.csv",  # Relative to the table; this default may be absent.
        # Shares of the subjects for train, validation, test, such as 0.8,0.1,0.1; for a table without a column split.
        "split": (),
        "seed": 0,  # Of the drawn split.
        # Columns with the names of the following keys take precedence over them.
        "source": "own data",  # Name of the data set's origin.
        "licence": "unstated",  # Recorded with the data set.
        "terms": "unstated",  # open, credentialed, own or unstated.
        "language": "en",  # Of the reports.
        "modality": "CR",  # DICOM's code.
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
    config.shard_studies = 1000  # Studies per shard.
    config.workers = 0  # 0: all cores. Does not change the result.
    return config
