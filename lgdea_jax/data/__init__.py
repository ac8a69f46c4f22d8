"""Data sets of records: from shards on disk to batches of fixed shapes."""
