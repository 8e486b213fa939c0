"""A run on disk: its folder, checkpoints, lock and loggers."""
