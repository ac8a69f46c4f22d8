"""Training objectives, one file each; `table` lists them, and `config.methods` has the presets."""
