"""Extracted evidence against a reference or against another extractor."""
