"""Experiments and speed measurements, each one command; docs/results and docs/performance.md have their tables."""
