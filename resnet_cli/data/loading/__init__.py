"""Loaders: sample order, augmentation, normalisation, and batches on the device."""
