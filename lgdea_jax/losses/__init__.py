"""Losses: arrays in, scalar out."""
