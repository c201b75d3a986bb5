"""Signal propagation: how mean and variance of a network's features change from block to block (arXiv 2101.08692)."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.models.layers.blocks import Residual
from resnet_cli.plots.panels import mark_series
from resnet_cli.seeding import random_state_kept
from resnet_cli.training.gradient_norms import LAYERS

BLOCK_CLASSES = ("BasicBlock", "Bottleneck", "BottleneckBlock")  # of torchvision and timm


@dataclass(frozen=True)
class SignalRow:
    """The features [B, C, ...] after one block, or after a layer of a network without blocks.

    `depth` counts them from 1; `mean_squared` is the squared mean of a channel over images and places, averaged over
    channels; `variance` the same of its variance; `branch_variance` that of the residual branch before the addition,
    None where there is none.
    """

    name: str
    kind: str
    depth: int
    mean_squared: float
    variance: float
    branch_variance: float | None


def signal_propagation(model: nn.Module, images_BCHW: Tensor) -> list[SignalRow]:
    """Return the rows of `model` from one forward pass in training mode, in the order of the calls.

    The pass is made on a copy: the model and the random state do not change.
    """
    twin = copy.deepcopy(model).train()
    rows: list[SignalRow] = []
    branches: dict[str, float] = {}

    def add(name: str, layer: nn.Module, features: Any) -> None:
        if isinstance(features, Tensor):
            mean_squared, variance = channel_moments(features)
            row = SignalRow(name, type(layer).__name__, len(rows) + 1, mean_squared, variance, branches.pop(name, None))
            rows.append(row)

    for name, layer in blocks_or_layers(twin).items():
        if isinstance(layer, Residual) and layer.shortcut_path is not None:
            layer.main_path.register_forward_hook(
                lambda _, __, outputs, name=name: branches.update({name: channel_moments(outputs)[1]})
            )
        layer.register_forward_hook(lambda module, _, outputs, name=name: add(name, module, outputs))
    with torch.no_grad(), random_state_kept(images_BCHW.device):
        twin(images_BCHW)
    return rows


def blocks_or_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the residual blocks by name, or the convolutions and linear layers of a network without blocks."""
    modules = dict(model.named_modules())
    blocks = {n: m for n, m in modules.items() if isinstance(m, Residual) or type(m).__name__ in BLOCK_CLASSES}
    return blocks or {name: module for name, module in modules.items() if isinstance(module, LAYERS)}


def channel_moments(features: Tensor) -> tuple[float, float]:
    """Return the squared mean and the variance of a channel of [B, C, ...], averaged over the channels."""
    values_CN = features.detach().double().transpose(0, 1).flatten(1)
    means_C = values_CN.mean(1)
    return means_C.square().mean().item(), values_CN.var(1, correction=0).mean().item()


def plot_signal(axes: Sequence[Any], series: Mapping[str, Sequence[SignalRow]]) -> None:
    """Plot variance, branch variance and squared mean by block on three matplotlib axes, logarithmically."""
    titles = ("variance of the output", "variance of the branch", "squared mean of the output")
    for panel, title, key in zip(axes, titles, ("variance", "branch_variance", "mean_squared"), strict=True):
        points = {
            label: [(row.depth, getattr(row, key)) for row in rows if getattr(row, key) is not None]
            for label, rows in series.items()
        }
        mark_series(panel, {label: values for label, values in points.items() if values}, logarithmic=True)
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("block")
