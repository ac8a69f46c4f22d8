"""Decoding image files to arrays with their geometry (NumPy only)."""
