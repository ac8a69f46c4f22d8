"""Evaluations that take the model as an argument."""
