"""What the evaluation scripts share."""
