"""A reader per data set: official layout in, studies out."""
