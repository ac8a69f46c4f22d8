"""Experiments with several seeds, one command each, and their committed rows."""
