"""From studies to finished ArrayRecord shards and their metadata."""
