"""What is in a folder, before a data set is built from it."""
