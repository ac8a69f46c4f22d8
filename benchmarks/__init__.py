"""Studies and measurements, each one command; see the README for their tables."""
