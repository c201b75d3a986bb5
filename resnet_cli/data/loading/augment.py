"""The configurable augmentation of a training set, applied to whole batches by `resnet_cli.data.loading.transforms`.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import AtLeast, Below, Between, Bounds, Positive
from resnet_cli.data.loading import color, geometry, transforms
from resnet_cli.data.loading.draws import SampleDraws
from resnet_cli.data.loading.policies import PolicySettings, apply_policy
from resnet_cli.data.loading.policy_tables import Policy, SubPolicies
from resnet_cli.data.loading.transforms import CropPadding
from resnet_cli.data.loading.user_transforms import apply_transforms, find_problems
from resnet_cli.errors import InputError

Flip = Literal["none", "random", "alternating"]
Probability = Annotated[float, Between(0, 1)]
AreaRange = tuple[Annotated[float, Bounds(gt=0, le=1)], Annotated[float, Bounds(gt=0, le=1)]]
ScaleRange = tuple[Annotated[float, Positive()], Annotated[float, Positive()]]


class Augment:
    """Augmentation of the training images.

    The order is: resized crop, crop, flip, affine map, policy, colour jitter, grey, blur, solarise, `transforms`,
    (normalisation), random erasing, cutout, mixup or CutMix. The draws of resized crop, affine map, policy, grey, blur,
    solarise, `transforms` and random erasing are a function of (seed, epoch, sample), independent of backend, number of
    workers, batch size and device; distributions and pixels are those of torchvision.transforms.v2.

    Args:
        crop: Padding of the random crop in pixels; 0 disables it.
        crop_padding: Values of the padding: zeros or reflected pixels.
        flip: Horizontal flip: `random` for each image, or `alternating` in every other epoch.
        cutout: Height and width of the erased square in pixels; 0 disables it.
        cutout_whole: Place the whole square inside the image; false places only its centre inside.
        brightness: Strength; 0 disables it.
        contrast: Strength; 0 disables it.
        saturation: Strength, for RGB images only; 0 disables it.
        mixup: alpha of mixup; 0 disables it.
        cutmix: alpha of CutMix; 0 disables it. With both, one is chosen at random for each batch.
        policy: `randaugment`, `trivial_augment` (wide), `autoaugment` or `augmix`, for images of 1 or 3 channels.
        randaugment_ops: Operations that RandAugment applies to each image.
        randaugment_magnitude: Strength of RandAugment, from 0 to 30.
        autoaugment_policy: Data set for which AutoAugment's sub-policies were found.
        augmix_severity: Largest strength of AugMix, from 1 to 10.
        erase: Probability of random erasing (Zhong et al. 2017): a box is set to the mean colour.
        erase_area: Smallest and largest area of that box, as a fraction of the image's; the default is torchvision's.
        resized_crop: Smallest and largest area of a random crop with aspect ratio 3/4 to 4/3, as a fraction of the
            stored image, to whose size the crop is enlarged; None disables it. For image files the stored size is
            `data.image_size`, which is also the training size. `crop` is a separate augmentation that follows it.
        rotation: Largest angle of the random rotation in degrees; 0 disables it. Uncovered pixels become black, also
            with `translate`, `scale` and `shear`.
        translate: Largest random shift as a fraction of the width and of the height; 0 disables it.
        scale: Smallest and largest random factor on the size of the content; None disables it.
        shear: Largest angle of the random shear along x in degrees; 0 disables it.
        grey: Probability of turning an RGB image into its greyscale version.
        blur: Probability of a Gaussian blur with a standard deviation of 0.1 to 2 pixels.
        solarise: Probability of inverting the values of 128 and above.
        repeats: Repeated augmentation (Hoffer et al. 2020): each image occurs this many times in its batch, augmented
            differently each time. If it does not divide `batch_size`, the copies of an image may be in two consecutive
            batches. As in timm, an epoch keeps its length and so covers a part of the images; the last one may have
            fewer copies.
        transforms: Transforms of torchvision.transforms.v2, or others, on single images: each takes a uint8 image
            [C, H, W] before normalisation and returns one of the same size. The global random generators are seeded for
            each image. Images are transformed one by one, which takes longer than all other augmentations.
    """

    @validate_arguments
    def __init__(
        self,
        *,
        crop: Annotated[int, AtLeast(0)] = 0,
        crop_padding: CropPadding = "zero",
        flip: Flip = "none",
        cutout: Annotated[int, AtLeast(0)] = 0,
        cutout_whole: bool = False,
        brightness: Annotated[float, Between(0, 1)] = 0.0,
        contrast: Annotated[float, Between(0, 1)] = 0.0,
        saturation: Annotated[float, Between(0, 1)] = 0.0,
        mixup: Annotated[float, AtLeast(0)] = 0.0,
        cutmix: Annotated[float, AtLeast(0)] = 0.0,
        policy: Policy = "none",
        randaugment_ops: Annotated[int, AtLeast(1)] = 2,
        randaugment_magnitude: Annotated[int, Between(0, 30)] = 9,
        autoaugment_policy: SubPolicies = "imagenet",
        augmix_severity: Annotated[int, Between(1, 10)] = 3,
        erase: Probability = 0.0,
        erase_area: AreaRange = (0.02, 0.33),
        resized_crop: AreaRange | None = None,
        rotation: Annotated[float, Between(0, 180)] = 0.0,
        translate: Annotated[float, Between(0, 1)] = 0.0,
        scale: ScaleRange | None = None,
        shear: Annotated[float, Below(0, 90)] = 0.0,
        grey: Probability = 0.0,
        blur: Probability = 0.0,
        solarise: Probability = 0.0,
        repeats: Annotated[int, AtLeast(1)] = 1,
        transforms: Sequence[nn.Module] = (),
    ) -> None:
        self.crop = crop
        self.crop_padding: CropPadding = crop_padding
        self.flip: Flip = flip
        self.cutout, self.cutout_whole = cutout, cutout_whole
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.mixup, self.cutmix = mixup, cutmix
        self.policy = PolicySettings(
            policy, randaugment_ops, randaugment_magnitude, autoaugment_policy, augmix_severity
        )
        self.erase, self.erase_area, self.resized_crop = erase, erase_area, resized_crop
        self.rotation, self.translate, self.scale, self.shear = rotation, translate, scale, shear
        self.grey, self.blur, self.solarise = grey, blur, solarise
        self.repeats, self.transforms = repeats, tuple(transforms)

    @property
    def is_off(self) -> bool:
        """True if images, labels and the order of the samples are left unchanged."""
        strengths = (self.crop, self.cutout, self.brightness, self.contrast, self.saturation, self.mixup, self.cutmix)
        probabilities = (self.erase, self.grey, self.blur, self.solarise)
        is_moved = self._has_affine_map or self.resized_crop is not None or self.flip != "none"
        is_other = self.policy.name != "none" or self.repeats > 1 or bool(self.transforms)
        return not (any(strengths) or any(probabilities) or is_moved or is_other)

    @property
    def mixes_neighbours(self) -> bool:
        """True if images are mixed with the preceding image in the batch."""
        return bool(self.mixup or self.cutmix)

    @property
    def _has_affine_map(self) -> bool:
        return bool(self.rotation or self.translate or self.scale is not None or self.shear)

    def validate(self, in_size: tuple[int, int, int]) -> None:
        """Check that the settings can be applied to images of size (C, H, W).

        Raises:
            InputError: They cannot; one line for each problem.
        """
        channels, h, w = in_size
        short = min(h, w)
        problems = []
        if self.crop_padding == "reflect" and self.crop >= short:
            problems.append(f"data.augment.crop={self.crop}: reflection of {h}x{w} images allows up to {short - 1}")
        if self.crop_padding == "zero" and self.crop > short:
            problems.append(f"data.augment.crop={self.crop}: {h}x{w} images allow up to {short}")
        largest = short if self.cutout_whole else max(h, w)
        if self.cutout > largest:
            problems.append(f"data.augment.cutout={self.cutout}: {h}x{w} images allow up to {largest}")
        problems += self._channel_problems(channels)
        if self.blur and short < 2:
            problems.append(f"data.augment.blur={self.blur:g}: {h}x{w} images are too small: use 0")
        ranges = {"resized_crop": self.resized_crop, "scale": self.scale, "erase_area": self.erase_area}
        for name, limits in ranges.items():
            if limits is not None and limits[0] > limits[1]:
                low, high = limits
                problems.append(f"data.augment.{name}=[{low:g}, {high:g}]: the first must not be above the second")
        problems += find_problems(self.transforms, in_size)
        if problems:
            raise InputError(*problems)

    def validate_batch_size(self, batch_size: int) -> None:
        """Raise an `InputError` if a batch is too small for all copies of an image."""
        if self.repeats > batch_size:
            raise InputError(
                f"data.augment.repeats={self.repeats}: a batch has {counted(batch_size, 'image')} (data.batch_size)"
            )

    def _channel_problems(self, channels: int) -> list[str]:
        """Find colour augmentations that do not support images with this number of channels."""
        found = f"these have {channels}"
        problems = [
            f"data.augment.{name}={strength:g}: needs images of 3 channels, {found}: use 0"
            for name, strength in (("saturation", self.saturation), ("grey", self.grey))
            if strength and channels != 3
        ]
        if self.policy.name != "none" and channels not in (1, 3):
            policy = f"data.augment.policy={self.policy.name}"
            problems.append(f"{policy}: needs images of 1 or 3 channels, {found}: use none")
        return problems

    def transform_pixels(
        self, images_BCHW: Tensor, indices_B: Tensor, *, epoch: int, seed: int, generator: torch.Generator
    ) -> Tensor:
        """Apply the augmentations that precede normalisation.

        Args:
            images_BCHW: uint8 images.
            indices_B: Indices of the images in their split, in main memory. Further copies of an image in the same
                epoch have other numbers, from `COPY_STRIDE` on.
            epoch: Epoch from 0.
            seed: Seed of the run.
            generator: Source of the draws of crop, flip and colour jitter, on the images' device.

        Returns:
            uint8 images.
        """
        draws = SampleDraws(indices_B.cpu(), seed, epoch)
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        if self.resized_crop is not None:
            boxes = geometry.random_crop_boxes(draws, size, self.resized_crop)
            images_BCHW = geometry.resize_boxes(images_BCHW, boxes)
        if self.crop:
            images_BCHW = transforms.random_crop(images_BCHW, self.crop, self.crop_padding, generator)
        if self.flip == "random":
            images_BCHW = transforms.random_flip(images_BCHW, generator)
        elif self.flip == "alternating":
            images_BCHW = transforms.alternating_flip(images_BCHW, indices_B, epoch, seed)
        if self._has_affine_map:
            maps = geometry.random_affine(draws, size, self.rotation, self.translate, self.scale, self.shear)
            images_BCHW = geometry.warp(images_BCHW, maps.inverse())
        if self.policy.name != "none":
            images_BCHW = apply_policy(images_BCHW, draws, self.policy)
        if self.brightness or self.contrast or self.saturation:
            images_BCHW = transforms.color_jitter(
                images_BCHW, self.brightness, self.contrast, self.saturation, generator
            )
        return self._transform_some(images_BCHW, draws)

    def _transform_some(self, images_BCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Apply the augmentations that change each image with a probability, then the user's transforms."""
        changes: list[tuple[str, float, Callable[[Tensor, SampleDraws], Tensor]]] = [
            ("grey", self.grey, lambda images, draws: color.grey(images)),
            ("blur", self.blur, color.random_blur),
            ("solarise", self.solarise, lambda images, draws: color.solarise_half(images)),
        ]
        for name, probability, change in changes:
            chosen = draws.chosen(name, probability) if probability else torch.empty(0)
            if len(chosen):
                places = chosen.to(images_BCHW.device, non_blocking=True)
                changed = change(images_BCHW.index_select(0, places), draws.subset(chosen))
                images_BCHW = images_BCHW.index_copy(0, places, changed)
        return apply_transforms(images_BCHW, draws, self.transforms) if self.transforms else images_BCHW

    def erase_boxes(self, images_BCHW: Tensor, indices_B: Tensor, *, epoch: int, seed: int) -> Tensor:
        """Apply random erasing to normalised images; the arguments are those of `transform_pixels`."""
        if not self.erase:
            return images_BCHW
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        draws = SampleDraws(indices_B.cpu(), seed, epoch)
        boxes = geometry.random_erase_boxes(draws, size, self.erase_area)
        boxes.height[draws.uniform("erase or not", 1)[:, 0] >= self.erase] = 0
        return geometry.erase(images_BCHW, boxes)

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
            images_BCHW = transforms.cutout(images_BCHW, self.cutout, generator, whole=self.cutout_whole)
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
