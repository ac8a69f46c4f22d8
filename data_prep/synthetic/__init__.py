"""Synthetic worlds, made from a seed."""
