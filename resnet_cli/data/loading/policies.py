"""RandAugment, TrivialAugment, AutoAugment and AugMix over whole batches, with separate operations for each image.

Distributions and pixels are those of `torchvision.transforms.v2`. Draws are made in main memory, so that the images of
each operation are gathered and changed together without synchronising with the device.

Shapes: B batch, C channels, H height, W width, S steps, M chains of AugMix.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.data.loading import color
from resnet_cli.data.loading.draws import SampleDraws
from resnet_cli.data.loading.geometry import AffineMap, Interpolation, warp
from resnet_cli.data.loading.policy_tables import (
    BINS,
    CHOICES,
    GEOMETRIC,
    OPERATIONS,
    Policy,
    SubPolicies,
    strengths,
    sub_policies,
)

MIX_WIDTH, MIX_DEPTH = 3, 3  # chains of AugMix and their largest length (Hendrycks et al. 2019, section 3)


@dataclass(frozen=True)
class Steps:
    """Operations that are applied to each image one after another.

    Args:
        operation: Positions in `OPERATIONS`, int64 [B, S].
        strength: Signed strengths, float64 [B, S]; 0 for operations without a strength.
    """

    operation: Tensor
    strength: Tensor


@dataclass(frozen=True)
class PolicySettings:
    """A policy and its settings; settings of other policies are ignored.

    Args:
        name: The policy.
        ops: Operations of RandAugment.
        magnitude: Strength of RandAugment, from 0 to 30.
        sub_policies: Data set for which AutoAugment's sub-policies were found.
        severity: Largest strength of AugMix, from 1 to 10.
    """

    name: Policy = "none"
    ops: int = 2
    magnitude: int = 9
    sub_policies: SubPolicies = "imagenet"
    severity: int = 3


def apply_policy(images_BCHW: Tensor, draws: SampleDraws, settings: PolicySettings) -> Tensor:
    """Augment uint8 images of one or three channels.

    Args:
        images_BCHW: uint8 images.
        draws: Source of the draws.
        settings: The policy.

    Returns:
        uint8 images, contiguous.
    """
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    images_BCHW = images_BCHW.contiguous()
    if settings.name == "augmix":
        return _mix_chains(images_BCHW, draws, settings.severity)
    return apply_steps(images_BCHW, draw_steps(draws, settings, size), "nearest")


def draw_steps(draws: SampleDraws, settings: PolicySettings, size: tuple[int, int]) -> Steps:
    """Draw the operations of each image and their strengths, as torchvision does.

    Args:
        draws: Source of the draws.
        settings: The policy, not AugMix.
        size: Height and width of the images.
    """
    if settings.name == "autoaugment":
        return _draw_sub_policies(draws, settings, size)
    count = settings.ops if settings.name == "randaugment" else 1
    uniform_B3S = draws.uniform(settings.name, 3 * count).view(len(draws), 3, count)
    operation = _choose(uniform_B3S[:, 0], settings.name)
    bins = torch.full_like(operation, settings.magnitude)
    if settings.name == "trivial_augment":
        bins = (uniform_B3S[:, 2] * BINS[settings.name]).long()
    return Steps(operation, _signed_strength(settings.name, size, operation, bins, uniform_B3S[:, 1]))


def _draw_sub_policies(draws: SampleDraws, settings: PolicySettings, size: tuple[int, int]) -> Steps:
    uniform_B5 = draws.uniform("autoaugment", 5)
    operations, probabilities, bins = sub_policies(settings.sub_policies)
    row_B = (uniform_B5[:, 0] * len(operations)).long()
    operation = torch.where(uniform_B5[:, 1:3] < probabilities[row_B], operations[row_B], OPERATIONS.index("Identity"))
    return Steps(operation, _signed_strength("autoaugment", size, operation, bins[row_B], uniform_B5[:, 3:]))


def draw_chains(draws: SampleDraws, severity: int, size: tuple[int, int]) -> tuple[Steps, Tensor]:
    """Draw the chains of AugMix, as torchvision does.

    Args:
        draws: Source of the draws.
        severity: Largest strength to draw, from 1 to 10.
        size: Height and width of the images.

    Returns:
        Steps [B * M, S], in which shorter chains end with `Identity`, and the weights of the image itself and of the
        chains, float64 [B, 1 + M].
    """
    b, chains = len(draws), len(draws) * MIX_WIDTH
    length = (draws.uniform("augmix length", MIX_WIDTH) * MIX_DEPTH).long().view(chains, 1) + 1
    uniform = draws.uniform("augmix", 3 * MIX_WIDTH * MIX_DEPTH).view(chains, 3, MIX_DEPTH)
    chosen = _choose(uniform[:, 0], "augmix")
    operation = torch.where(torch.arange(MIX_DEPTH) < length, chosen, OPERATIONS.index("Identity"))
    bins = (uniform[:, 2] * severity).long()
    steps = Steps(operation, _signed_strength("augmix", size, operation, bins, uniform[:, 1]))
    # A Dirichlet distribution with alpha = 1 is that of exponential variables divided by their sum.
    exponential = -torch.log1p(-draws.uniform("augmix weights", 2 + MIX_WIDTH))
    own_B2 = exponential[:, :2] / exponential[:, :2].sum(1, keepdim=True)
    chains_BM = exponential[:, 2:] / exponential[:, 2:].sum(1, keepdim=True)
    return steps, torch.cat([own_B2[:, :1], own_B2[:, 1:] * chains_BM], 1).view(b, 1 + MIX_WIDTH)


def _mix_chains(images_BCHW: Tensor, draws: SampleDraws, severity: int) -> Tensor:
    """Blend each image with three versions of itself transformed by chains of operations (Hendrycks et al. 2019)."""
    b, c, h, w = images_BCHW.shape
    steps, weights = draw_chains(draws, severity, (h, w))
    changed = apply_steps(images_BCHW.repeat_interleave(MIX_WIDTH, 0), steps, "bilinear").view(b, MIX_WIDTH, c, h, w)
    weights_BN1 = weights.float().view(b, 1 + MIX_WIDTH, 1, 1, 1).to(images_BCHW.device, non_blocking=True)
    mixed = weights_BN1[:, 0] * images_BCHW
    for chain in range(MIX_WIDTH):
        mixed += weights_BN1[:, 1 + chain] * changed[:, chain]
    return mixed.to(torch.uint8)


def apply_steps(images_BCHW: Tensor, steps: Steps, interpolation: Interpolation) -> Tensor:
    """Apply the operations of each image, one after another.

    Args:
        images_BCHW: uint8 images of one or three channels.
        steps: The operations.
        interpolation: Interpolation of the geometric operations.
    """
    images_BCHW = images_BCHW.clone()
    for operation_B, strength_B in zip(steps.operation.T, steps.strength.T, strict=True):
        is_geometric = (operation_B > 0) & (operation_B <= len(GEOMETRIC))
        groups = {"geometric": is_geometric.nonzero()[:, 0]} if is_geometric.any() else {}
        for number in operation_B[~is_geometric].unique().tolist():
            groups[OPERATIONS[number]] = (operation_B == number).nonzero()[:, 0]
        groups.pop("Identity", None)
        for name, positions in groups.items():
            places = positions.to(images_BCHW.device, non_blocking=True)
            chosen, strength = images_BCHW.index_select(0, places), strength_B[positions]
            if name == "geometric":
                size = (images_BCHW.shape[2], images_BCHW.shape[3])
                changed = warp(chosen, affine_map(operation_B[positions], strength, size).inverse(), interpolation)
            else:
                changed = change_colors(name, chosen, strength)
            images_BCHW.index_copy_(0, places, changed)
    return images_BCHW


def affine_map(operation_B: Tensor, strength_B: Tensor, size: tuple[int, int]) -> AffineMap:
    """Return the maps of the geometric operations, as in `torchvision.transforms.v2`."""
    names = ("Identity", *GEOMETRIC)
    is_op: Mapping[str, Tensor] = {name: operation_B == number for number, name in enumerate(names)}
    none = AffineMap.identity(len(operation_B))
    zeros = torch.zeros_like(strength_B)
    shear = torch.rad2deg(torch.atan(strength_B))
    corner = torch.tensor([-0.5 * size[1], -0.5 * size[0]], dtype=torch.float64)
    is_shear = is_op["ShearX"] | is_op["ShearY"]

    def pairs(x: str, y: str, values: Tensor) -> Tensor:
        return torch.stack([torch.where(is_op[x], values, zeros), torch.where(is_op[y], values, zeros)], 1)

    return AffineMap(
        angle=torch.where(is_op["Rotate"], -strength_B, zeros),  # `rotate` and `affine` turn in opposite directions
        translate=pairs("TranslateX", "TranslateY", strength_B.trunc()),
        scale=none.scale,
        shear=pairs("ShearX", "ShearY", shear),
        center=torch.where(is_shear[:, None], corner, none.center),
    )


def change_colors(name: str, images_BCHW: Tensor, strength_B: Tensor) -> Tensor:
    """Apply one colour operation to all images."""
    from torchvision.transforms.v2 import functional

    blends = {
        "Brightness": color.adjust_brightness,
        "Color": color.adjust_saturation,
        "Contrast": color.adjust_contrast,
        "Sharpness": color.adjust_sharpness,
    }
    if name in blends:
        return blends[name](images_BCHW, 1 + strength_B)
    if name == "Posterize":
        return color.posterize(images_BCHW, strength_B)
    if name == "Solarize":
        return color.solarise(images_BCHW, 255 * strength_B)
    changed: Tensor = {
        "AutoContrast": functional.autocontrast,
        "Equalize": functional.equalize,
        "Invert": functional.invert,
    }[name](images_BCHW)
    return changed


def _choose(uniform: Tensor, policy: Policy) -> Tensor:
    """Return an operation of the policy for each number in [0, 1)."""
    choices = torch.tensor([OPERATIONS.index(name) for name in CHOICES[policy]])
    return choices[(uniform * len(choices)).long()]


def _signed_strength(policy: Policy, size: tuple[int, int], operation: Tensor, bins: Tensor, uniform: Tensor) -> Tensor:
    """Return the strength of each operation, negative for half of the signed ones."""
    table = strengths(policy, *size)
    strength = table.values[operation, bins]
    return torch.where(table.signed[operation] & (uniform < 0.5), -strength, strength)
