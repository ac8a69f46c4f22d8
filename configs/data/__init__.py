"""Data sets for `data_prep.build`, one file each; every file defines `get_config(arg)`."""
