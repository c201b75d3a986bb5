"""From a data set to batches: order, augmentation, loaders."""
