"""Radiology images and reports in, typed ArrayRecord data sets with diagnostic evidence out."""
