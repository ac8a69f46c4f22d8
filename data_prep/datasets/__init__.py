"""TFDS builders over the one feature spec."""
