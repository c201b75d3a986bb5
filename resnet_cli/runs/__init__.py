"""A run folder on disk: its files, checkpoints, lock and log."""
