"""Finding vocabulary, synonyms, label sets and prompts: data and pure functions."""
