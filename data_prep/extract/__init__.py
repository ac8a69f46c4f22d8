"""Diagnostic evidence from report text."""
