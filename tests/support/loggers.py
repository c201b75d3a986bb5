"""A row of metrics, as a run logs it after an epoch."""

ROW = {"epoch": 1, "train_loss": 0.5, "seconds": 1.0, "lr": {"a": 0.1}}
