"""What the configs of official releases share; no data set by itself."""

from ml_collections import ConfigDict

from . import llm


def dataset(name, group, *, extractor="rules"):
    """The config of the data set `name`, whose reader is the source of the same name.

    Args:
      name: of data set, source and group; names the files.
      group: the group's keys, those of the source.
      extractor: of evidence from the reports.
    """
    config = ConfigDict()
    config.name = name
    config.source = name
    config[name] = ConfigDict(group)
    config.image_size = 512  # The longer side; smaller images are not enlarged.
    config.image_encoding = "png"  # png, jpeg or raw.
    config.extractor = extractor  # rules, none, or a language model: local, openai, genai, gemini.
    config.llm = llm.get_config()
    config.evidence = ""  # A corrected evidence.csv, which goes before the extractor's.
    # Further sets of labels, made from the reports: silver (the extractor's) and weak (keywords). For the findings that
    # the data are labelled for; without any, for the 14 of CheXpert, or in CT the 18 of CT-RATE.
    config.derived_labels = ()
    config.silver_from = ""  # Silver labels from this file of data_prep.score --labels_out instead.
    config.tokenizer = ConfigDict({
        "vocab_size": 16000,  # Of the tokeniser that is trained on the reports.
        "subjects": 5,  # A word becomes a token if the reports of this many subjects have it: names of patients do not.
    })
    config.shard_studies = 1000
    config.workers = 0  # 0: all cores. Does not change the result.
    return config


def volumes(name, group, *, geometry, extractor="rules"):
    """The same for a data set of CT volumes.

    Args:
      geometry: how they are stored (lgdea_jax/preprocess/volume.py): ct_clip, fvlm_centre, green_rfm, phantom_ct,
        native. Models see them in the same.
    """
    config = dataset(name, group, extractor=extractor)
    config.volume = ConfigDict({"geometry": geometry})
    config.shard_studies = 50  # Studies per shard: a volume takes tens of megabytes.
    return config
