"""Data sets that annotate the images of MIMIC-CXR."""
