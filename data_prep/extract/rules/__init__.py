"""The rules extractor: evidence from English reports without a model."""
