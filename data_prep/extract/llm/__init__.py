"""Evidence and labels from a language model."""
