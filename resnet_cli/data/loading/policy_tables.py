"""Operations, strengths and sub-policies of the augmentation policies: the tables of torchvision 0.26 to 0.29.

They are copied, since they are private in torchvision and a run must not change with its version.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Policy = Literal["none", "randaugment", "trivial_augment", "autoaugment", "augmix"]
SubPolicies = Literal["imagenet", "cifar10", "svhn"]

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDING = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = (
    "Identity", *GEOMETRIC, *BLENDING, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"
)  # fmt: skip
SIGNED = (*GEOMETRIC, *BLENDING)  # operations whose strength is negative for half of the images

BINS = {"randaugment": 31, "trivial_augment": 31, "autoaugment": 10, "augmix": 10}  # number of strengths
CHOICES = {  # operations to draw from, by policy
    "randaugment": OPERATIONS[:-1],
    "trivial_augment": OPERATIONS[:-1],
    "autoaugment": OPERATIONS[1:],
    "augmix": OPERATIONS[1:-1],
}


@dataclass(frozen=True)
class Strengths:
    """Strengths of the operations of a policy for images of one size.

    Args:
        values: float64 [operation, bin], in the order of `OPERATIONS`: degrees, pixels, bits, fractions.
        signed: Whether an operation's strength may be negative, bool [operation].
    """

    values: Tensor
    signed: Tensor


@lru_cache(maxsize=16)
def strengths(policy: Policy, h: int, w: int) -> Strengths:
    """Return the strengths of a policy for images of height `h` and width `w`."""
    bins = BINS[policy]
    wide = policy == "trivial_augment"
    shift_w, shift_h = {"trivial_augment": (32.0, 32.0), "augmix": (w / 3.0, h / 3.0)}.get(
        policy, (150.0 / 331.0 * w, 150.0 / 331.0 * h)
    )
    largest = {
        "ShearX": 0.99 if wide else 0.3,
        "ShearY": 0.99 if wide else 0.3,
        "TranslateX": shift_w,
        "TranslateY": shift_h,
        "Rotate": 135.0 if wide else 30.0,
        **dict.fromkeys(BLENDING, 0.99 if wide else 0.9),
    }
    values = torch.zeros(len(OPERATIONS), bins, dtype=torch.float64)
    for name, high in largest.items():
        values[OPERATIONS.index(name)] = torch.linspace(0.0, high, bins)
    bits, lost = (4 if policy == "augmix" else 8), (6 if wide else 4)
    values[OPERATIONS.index("Posterize")] = (bits - torch.arange(bins) / ((bins - 1) / lost)).round()
    values[OPERATIONS.index("Solarize")] = torch.linspace(1.0, 0.0, bins)
    return Strengths(values, torch.tensor([name in SIGNED for name in OPERATIONS]))


# Each line is a sub-policy: two operations with their probability and the bin of their strength, or - if it has none.
_SUB_POLICIES = {
    "imagenet": """
        Posterize 0.4 8 Rotate 0.6 9|Solarize 0.6 5 AutoContrast 0.6 -|Equalize 0.8 - Equalize 0.6 -
        Posterize 0.6 7 Posterize 0.6 6|Equalize 0.4 - Solarize 0.2 4|Equalize 0.4 - Rotate 0.8 8
        Solarize 0.6 3 Equalize 0.6 -|Posterize 0.8 5 Equalize 1.0 -|Rotate 0.2 3 Solarize 0.6 8
        Equalize 0.6 - Posterize 0.4 6|Rotate 0.8 8 Color 0.4 0|Rotate 0.4 9 Equalize 0.6 -
        Equalize 0.0 - Equalize 0.8 -|Invert 0.6 - Equalize 1.0 -|Color 0.6 4 Contrast 1.0 8
        Rotate 0.8 8 Color 1.0 2|Color 0.8 8 Solarize 0.8 7|Sharpness 0.4 7 Invert 0.6 -
        ShearX 0.6 5 Equalize 1.0 -|Color 0.4 0 Equalize 0.6 -|Equalize 0.4 - Solarize 0.2 4
        Solarize 0.6 5 AutoContrast 0.6 -|Invert 0.6 - Equalize 1.0 -|Color 0.6 4 Contrast 1.0 8
        Equalize 0.8 - Equalize 0.6 -""",
    "cifar10": """
        Invert 0.1 - Contrast 0.2 6|Rotate 0.7 2 TranslateX 0.3 9|Sharpness 0.8 1 Sharpness 0.9 3
        ShearY 0.5 8 TranslateY 0.7 9|AutoContrast 0.5 - Equalize 0.9 -|ShearY 0.2 7 Posterize 0.3 7
        Color 0.4 3 Brightness 0.6 7|Sharpness 0.3 9 Brightness 0.7 9|Equalize 0.6 - Equalize 0.5 -
        Contrast 0.6 7 Sharpness 0.6 5|Color 0.7 7 TranslateX 0.5 8|Equalize 0.3 - AutoContrast 0.4 -
        TranslateY 0.4 3 Sharpness 0.2 6|Brightness 0.9 6 Color 0.2 8|Solarize 0.5 2 Invert 0.0 -
        Equalize 0.2 - AutoContrast 0.6 -|Equalize 0.2 - Equalize 0.6 -|Color 0.9 9 Equalize 0.6 -
        AutoContrast 0.8 - Solarize 0.2 8|Brightness 0.1 3 Color 0.7 0|Solarize 0.4 5 AutoContrast 0.9 -
        TranslateY 0.9 9 TranslateY 0.7 9|AutoContrast 0.9 - Solarize 0.8 3|Equalize 0.8 - Invert 0.1 -
        TranslateY 0.7 9 AutoContrast 0.9 -""",
    "svhn": """
        ShearX 0.9 4 Invert 0.2 -|ShearY 0.9 8 Invert 0.7 -|Equalize 0.6 - Solarize 0.6 6
        Invert 0.9 - Equalize 0.6 -|Equalize 0.6 - Rotate 0.9 3|ShearX 0.9 4 AutoContrast 0.8 -
        ShearY 0.9 8 Invert 0.4 -|ShearY 0.9 5 Solarize 0.2 6|Invert 0.9 - AutoContrast 0.8 -
        Equalize 0.6 - Rotate 0.9 3|ShearX 0.9 4 Solarize 0.3 3|ShearY 0.8 8 Invert 0.7 -
        Equalize 0.9 - TranslateY 0.6 6|Invert 0.9 - Equalize 0.6 -|Contrast 0.3 3 Rotate 0.8 4
        Invert 0.8 - TranslateY 0.0 2|ShearY 0.7 6 Solarize 0.4 8|Invert 0.6 - Rotate 0.8 4
        ShearY 0.3 7 TranslateX 0.9 3|ShearX 0.1 6 Invert 0.6 -|Solarize 0.7 2 TranslateY 0.6 7
        ShearY 0.8 4 Invert 0.8 -|ShearX 0.7 9 TranslateY 0.8 3|ShearY 0.8 5 AutoContrast 0.7 -
        ShearX 0.7 2 Invert 0.1 -""",
}


@lru_cache(maxsize=len(_SUB_POLICIES))
def sub_policies(name: SubPolicies) -> tuple[Tensor, Tensor, Tensor]:
    """Return operation, probability and bin of each of the two steps of the sub-policies: three tensors [25, 2]."""
    rows = [row.split() for line in _SUB_POLICIES[name].split("\n") for row in line.split("|") if row.strip()]
    steps = [[row[:3], row[3:]] for row in rows]
    operations = torch.tensor([[OPERATIONS.index(step[0]) for step in pair] for pair in steps])
    probabilities = torch.tensor([[float(step[1]) for step in pair] for pair in steps], dtype=torch.float64)
    bins = torch.tensor([[0 if step[2] == "-" else int(step[2]) for step in pair] for pair in steps])
    return operations, probabilities, bins
