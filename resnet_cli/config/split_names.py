"""The splits of a data set, and what messages call them."""

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
