"""Loaders of a small synthetic data set."""

from resnet_cli.data import Augment, make_loaders, synthetic

EVERYTHING = {"crop": 1, "flip": "alternating", "brightness": 0.2, "cutout": 2, "mixup": 0.5}


def small_data_set(count=60, test_count=21, **options):
    return synthetic(count=count, test_count=test_count, classes=3, image_size=6, **options)


def small_loaders(dataset=None, *, augment=EVERYTHING, **options):
    options = {"device": "cpu", "seed": 1, "batch_size": 8, "eval_batch_size": 10, "workers": 0} | options
    return make_loaders(dataset or small_data_set(), augment=augment and Augment(**augment), **options)
