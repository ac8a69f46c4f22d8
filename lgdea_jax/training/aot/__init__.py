"""The training step compiled ahead of time for devices that are not at hand, and the program that comes out, read."""
