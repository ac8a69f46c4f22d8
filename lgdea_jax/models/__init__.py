"""Image and text towers and the modules between them: arrays in, arrays out."""
