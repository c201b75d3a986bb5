"""A data set of your own: a function that returns a `Dataset` of uint8 images and class indices.

    cd examples
    resnet-train data=shapes                                        # by its YAML file, conf/data/shapes.yaml
    resnet-train data._target_=own_data.shapes data.noise=0.3       # or by its name alone

Splitting, batches, augmentation and normalisation are the program's: `data.batch_size`, `data.val_fraction` and the
other keys of `resnet_cli.data.make_loaders` stand beside the function's own arguments.
"""

import torch
from torch import Tensor

from resnet_cli.data import Dataset, DatasetSplit

CLASS_NAMES = ("disc", "square", "cross")


def shapes(*, count: int = 600, test_count: int = 150, image_size: int = 16, noise: float = 0.2) -> Dataset:
    """Return white shapes on black at random places: discs, squares and crosses.

    Args:
        count: Training images; the classes take turns.
        test_count: Test images.
        image_size: Side in pixels.
        noise: Standard deviation of the noise, on the scale 0 to 1.
    """
    if image_size < 8:
        raise ValueError(f"image_size={image_size}: shapes need at least 8 pixels")
    # An explicit generator for each split: the images are a function of the arguments, whatever was drawn before.
    return Dataset(
        name="shapes",
        class_names=CLASS_NAMES,
        train=_split(count, image_size, noise, torch.Generator().manual_seed(0)),
        test=_split(test_count, image_size, noise, torch.Generator().manual_seed(1)),
    )


def _split(count: int, image_size: int, noise: float, generator: torch.Generator) -> DatasetSplit:
    radius = image_size // 4
    labels_N = torch.arange(count) % len(CLASS_NAMES)
    centre_N2 = torch.randint(radius, image_size - radius, (count, 2), generator=generator)
    line = torch.arange(image_size)
    rows_NHW = (line[None, :, None] - centre_N2[:, 0, None, None]).expand(-1, -1, image_size)
    columns_NHW = (line[None, None, :] - centre_N2[:, 1, None, None]).expand(-1, image_size, -1)
    disc_NHW = rows_NHW**2 + columns_NHW**2 <= radius**2
    square_NHW = torch.maximum(rows_NHW.abs(), columns_NHW.abs()) < radius
    cross_NHW = (torch.minimum(rows_NHW.abs(), columns_NHW.abs()) <= 1) & disc_NHW
    masks_NHW = torch.stack([disc_NHW, square_NHW, cross_NHW])[labels_N, torch.arange(count)]
    pixels_NHW = masks_NHW + noise * torch.randn(masks_NHW.shape, generator=generator)
    images_NHWC: Tensor = (pixels_NHW.clamp(0, 1) * 255).round().to(torch.uint8)[..., None]
    return DatasetSplit(images_NHWC, labels_N)
