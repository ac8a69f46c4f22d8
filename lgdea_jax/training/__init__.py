"""What a training run consists of: state, step, optimiser, evidence memory, evaluation."""
