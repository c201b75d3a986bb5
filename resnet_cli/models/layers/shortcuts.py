"""Shortcuts by name: the paths that are added to residual branches, for feature maps and for vectors.

A, B, C: He et al. 2015, arXiv 1512.03385, section 4.1. The others: He et al. 2016, arXiv 1603.05027, table 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.errors import InputError
from resnet_cli.models.checks import check_choice

Shortcut = Literal[
    "A", "B", "C", "identity", "parameter_free", "projection", "scaled_shortcut", "scaled_both", "exclusive_gating",
    "shortcut_gating", "dropout_shortcut", "none",
]  # fmt: skip

SCALE = 0.5  # factor of constant-scaled shortcuts, and probability of the dropout shortcut


class ZeroPadShortcut(nn.Module):
    """Parameter-free: takes every `stride`-th pixel and appends `extra` channels of zeros, or drops -`extra` channels.

    Works on maps `[B, C, H, W]` and, at stride 1, on vectors `[B, C]`.
    """

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C + extra, ceil(H / stride), ceil(W / stride)]`, `[B, C]` to `[B, C + extra]`."""
        if features.ndim == 2:
            return F.pad(features, (0, self.extra))
        return F.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"stride={self.stride}, extra={self.extra}"


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, ...]` to the same shape."""
        return features * self.factor

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"factor={self.factor}"


class Gate(nn.Module):
    """A gate between 0 and 1 for each element of a block's output: `sigmoid(layer(x))`.

    Args:
        layer: Maps the block's input to the shape of its output; a 1x1 convolution or linear layer with bias.
        bias: Initial bias of the layer; the lower, the more of the shortcut is kept.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, bias: float) -> None:
        super().__init__()
        self.layer = layer
        self.bias = bias
        self.reset_bias()

    def reset_bias(self) -> None:
        """Reset the layer's bias to its initial value, after an initialisation has set all biases to zero."""
        assert self.layer.bias is not None
        nn.init.constant_(self.layer.bias, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return gates in the shape of the block's output."""
        return torch.sigmoid(self.layer(inputs))


class GatedShortcut(nn.Module):
    """`(1 - gate(x)) * path(x)`."""

    def __init__(self, gate: Gate, path: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.path = path

    def forward(self, inputs: Tensor) -> Tensor:
        """Map the block's input to the shape of its output."""
        kept: Tensor = (1 - self.gate(inputs)) * self.path(inputs)
        return kept


@dataclass(frozen=True)
class Paths:
    """The parts of a shortcut: the path itself, a layer at the end of the branch, and a gate between the two."""

    shortcut: nn.Module | None
    branch_end: nn.Module | None = None
    gate: Gate | None = None


def _projects(name: Shortcut, *, changes: bool) -> bool:
    return name in ("C", "projection") or (name == "B" and changes)


def paths(
    kind: Shortcut,
    *,
    changes: str | None,
    resize: Callable[[], nn.Module],
    project: Callable[[], nn.Module],
    gate_layer: Callable[[], nn.Conv2d | nn.Linear],
    gate_bias: float,
) -> Paths:
    """Create the shortcut `kind` of one block.

    * `identity`: the unchanged input; `none`: nothing.
    * `A`, `parameter_free`: the unchanged input; where the shape changes, subsampled, with channels of zeros.
    * `B`: the unchanged input; a projection where the shape changes. `C`, `projection`: a projection in every block.
    * `scaled_shortcut`: half of A. `scaled_both`: half of A, and half of the branch.
    * `exclusive_gating`: `(1 - g(x)) * A + g(x) * branch`. `shortcut_gating`: `(1 - g(x)) * A + branch`.
    * `dropout_shortcut`: A with half of its elements dropped in training.

    Args:
        kind: One of `Shortcut`.
        changes: Text such as `[16, 32, 32] -> [32, 16, 16]` if the block changes the shape; None if it does not.
        resize: Creates the parameter-free map to the output's shape.
        project: Creates the learned map to the output's shape.
        gate_layer: Creates the layer of a gate.
        gate_bias: Initial bias of a gate.

    Raises:
        InputError: an unknown name; `identity` in a block that changes the shape, with the shortcuts that support it.
    """
    check_choice("shortcut", kind, get_args(Shortcut))
    if kind == "none":
        return Paths(None)
    if kind == "identity" and changes:
        raise InputError(
            f"shortcut=identity: a block maps {changes}, which the identity cannot follow; use A (parameter_free: "
            f"subsamples, adds channels of zeros), B (a projection only there), C (projection: in every block), a "
            f"scaled, gated or dropout one, or none"
        )
    if _projects(kind, changes=changes is not None):
        return Paths(project())
    path = resize() if changes else nn.Identity()
    if kind == "scaled_shortcut":
        return Paths(nn.Sequential(path, Scale(SCALE)))
    if kind == "scaled_both":
        return Paths(nn.Sequential(path, Scale(SCALE)), branch_end=Scale(SCALE))
    if kind == "exclusive_gating":
        return Paths(path, gate=Gate(gate_layer(), gate_bias))
    if kind == "shortcut_gating":
        return Paths(GatedShortcut(Gate(gate_layer(), gate_bias), path))
    if kind == "dropout_shortcut":
        return Paths(nn.Sequential(path, nn.Dropout(SCALE)))
    return Paths(path)


@dataclass(frozen=True)
class ShortcutSpec:
    """The shortcuts of a network, by name.

    Args:
        name: One of `Shortcut`; see `paths`.
        gate_bias: Initial bias of gates; the lower, the more of the shortcut is kept.
    """

    name: Shortcut = "B"
    gate_bias: float = -6.0

    def projects(self, *, changes: bool) -> bool:
        """Return whether the shortcut is a learned projection in a block that does or does not change the shape."""
        return _projects(self.name, changes=changes)

    def between_maps(
        self,
        in_size: tuple[int, ...],
        out_channels: int,
        stride: int,
        *,
        norm: Callable[[int], nn.Module | None] = lambda channels: None,
    ) -> Paths:
        """Create the shortcut of a block of feature maps.

        Args:
            in_size: Channels of the block's input, then height and width if known, for error messages.
            out_channels: Channels of the block's output, whose height and width are `ceil(side / stride)`.
            stride: Pixels between outputs.
            norm: Creates the normalisation of a projection's channels.

        Raises:
            InputError: See `paths`.
        """
        channels, *sides = in_size
        out_size = [out_channels, *(-(-side // stride) for side in sides)]

        def project() -> nn.Module:
            projection = nn.Sequential()
            projection.add_module("conv", nn.Conv2d(channels, out_channels, 1, stride, bias=False))
            layer = norm(out_channels)
            if layer is not None:
                projection.add_module("norm", layer)
            return projection

        return paths(
            self.name,
            changes=f"{list(in_size)} -> {out_size}" if stride != 1 or channels != out_channels else None,
            resize=lambda: ZeroPadShortcut(stride, out_channels - channels),
            project=project,
            gate_layer=lambda: nn.Conv2d(channels, out_channels, 1, stride),
            gate_bias=self.gate_bias,
        )

    def between_vectors(self, in_features: int, out_features: int) -> Paths:
        """Create the shortcut of a block of vectors, where a projection is a linear map without bias.

        Raises:
            InputError: See `paths`.
        """
        return paths(
            self.name,
            changes=f"[{in_features}] -> [{out_features}]" if in_features != out_features else None,
            resize=lambda: ZeroPadShortcut(1, out_features - in_features),
            project=lambda: nn.Linear(in_features, out_features, bias=False),
            gate_layer=lambda: nn.Linear(in_features, out_features),
            gate_bias=self.gate_bias,
        )
