"""Findings: the vocabulary, label sets and prompts. Data and pure functions, used by everybody."""
