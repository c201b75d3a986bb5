"""Inspection of a data set before training, as printed by resnet-data."""
