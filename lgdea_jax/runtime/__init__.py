"""What every command needs below the model: checkpoints, devices, logs, files, processes. It knows no model."""
