"""Ways to put many questions to a language model."""
