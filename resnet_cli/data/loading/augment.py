"""The configurable augmentation of a training set, applied to whole batches by `resnet_cli.data.loading.transforms`.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor

from resnet_cli.config.ranges import AtLeast, Between
from resnet_cli.data.loading import transforms
from resnet_cli.data.loading.transforms import CropPadding
from resnet_cli.errors import InputError

Flip = Literal["none", "random", "alternating"]


class Augment:
    """Augmentation in this order: crop, flip, colour jitter, (normalisation), cutout, mixup or CutMix.

    Args:
        crop: Padding of the random crop in pixels; 0 disables it.
        crop_padding: Values of the padding: zeros or reflected pixels.
        flip: Horizontal flip: `random` for each image, or `alternating`, in every other epoch.
        cutout: Height and width of the erased square in pixels; 0 disables it.
        brightness: Strength; 0 disables it.
        contrast: Strength; 0 disables it.
        saturation: Strength, for RGB images only; 0 disables it.
        mixup: alpha of mixup; 0 disables it.
        cutmix: alpha of CutMix; 0 disables it. With both, one is chosen at random for each batch.
    """

    def __init__(
        self,
        *,
        crop: Annotated[int, AtLeast(0)] = 0,
        crop_padding: CropPadding = "zero",
        flip: Flip = "none",
        cutout: Annotated[int, AtLeast(0)] = 0,
        brightness: Annotated[float, Between(0, 1)] = 0.0,
        contrast: Annotated[float, Between(0, 1)] = 0.0,
        saturation: Annotated[float, Between(0, 1)] = 0.0,
        mixup: Annotated[float, AtLeast(0)] = 0.0,
        cutmix: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        self.crop = crop
        self.crop_padding: CropPadding = crop_padding
        self.flip: Flip = flip
        self.cutout = cutout
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.mixup, self.cutmix = mixup, cutmix

    @property
    def is_off(self) -> bool:
        """True if images and labels are left unchanged."""
        strengths = (self.crop, self.cutout, self.brightness, self.contrast, self.saturation, self.mixup, self.cutmix)
        return self.flip == "none" and not any(strengths)

    def validate(self, in_size: tuple[int, int, int]) -> None:
        """Check that the settings are possible for images of size (C, H, W).

        Raises:
            InputError: They are not; one line for each problem.
        """
        channels, h, w = in_size
        short = min(h, w)
        problems = []
        if self.crop_padding == "reflect" and self.crop >= short:
            problems.append(f"data.augment.crop={self.crop}: reflection of {h}x{w} images allows up to {short - 1}")
        if self.crop_padding == "zero" and self.crop > short:
            problems.append(f"data.augment.crop={self.crop}: {h}x{w} images allow up to {short}")
        if self.cutout > max(h, w):
            problems.append(f"data.augment.cutout={self.cutout}: {h}x{w} images allow up to {max(h, w)}")
        if self.saturation and channels != 3:
            problems.append(
                f"data.augment.saturation={self.saturation:g}: needs images of 3 channels, these have {channels}: use 0"
            )
        if problems:
            raise InputError(*problems)

    def transform_pixels(
        self, images_BCHW: Tensor, indices_B: Tensor, *, epoch: int, seed: int, generator: torch.Generator
    ) -> Tensor:
        """Apply the augmentations that precede normalisation: crop, flip and colour jitter.

        Args:
            images_BCHW: uint8 images.
            indices_B: Indices of the images in their split.
            epoch: Epoch from 0.
            seed: Seed of the run.
            generator: Source of the draws, on the images' device.

        Returns:
            uint8 images.
        """
        if self.crop:
            images_BCHW = transforms.random_crop(images_BCHW, self.crop, self.crop_padding, generator)
        if self.flip == "random":
            images_BCHW = transforms.random_flip(images_BCHW, generator)
        elif self.flip == "alternating":
            images_BCHW = transforms.alternating_flip(images_BCHW, indices_B, epoch, seed)
        if self.brightness or self.contrast or self.saturation:
            images_BCHW = transforms.color_jitter(
                images_BCHW, self.brightness, self.contrast, self.saturation, generator
            )
        return images_BCHW

    def transform_normalised(
        self, images_BCHW: Tensor, labels_B: Tensor, *, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Apply the augmentations that follow normalisation: cutout, then mixup or CutMix.

        Args:
            images_BCHW: Normalised floating-point images.
            labels_B: Class indices.
            num_classes: K.
            generator: Source of the draws, on the images' device.

        Returns:
            Images and labels; the labels are class probabilities [B, K] if images were mixed.
        """
        if self.cutout:
            images_BCHW = transforms.cutout(images_BCHW, self.cutout, generator)
        if self.mixup and self.cutmix:
            # Both are computed and one is selected on the device, which avoids host synchronisation.
            use_mixup = transforms.random_bits(1, generator, images_BCHW.device).bool()
            mixed = transforms.mixup(images_BCHW, labels_B, self.mixup, num_classes, generator)
            pasted = transforms.cutmix(images_BCHW, labels_B, self.cutmix, num_classes, generator)
            return torch.where(use_mixup, mixed[0], pasted[0]), torch.where(use_mixup, mixed[1], pasted[1])
        if self.mixup:
            return transforms.mixup(images_BCHW, labels_B, self.mixup, num_classes, generator)
        if self.cutmix:
            return transforms.cutmix(images_BCHW, labels_B, self.cutmix, num_classes, generator)
        return images_BCHW, labels_B
