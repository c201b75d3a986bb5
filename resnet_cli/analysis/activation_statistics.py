"""Statistics of the outputs of activations, layer by layer: distribution, zeros, saturation and dead units."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.models.layers.activations import CReLU, Maxout
from resnet_cli.seeding import random_state_kept

KINDS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Hardsigmoid, CReLU, Maxout,
)  # fmt: skip
BOUNDS: Mapping[type[nn.Module], tuple[float, float]] = {nn.Tanh: (-1, 1), nn.Sigmoid: (0, 1)}
SATURATED = 0.01  # distance to a bound, as a part of the distance between the bounds
BINS = 48


@dataclass(frozen=True)
class ActivationRow:
    """The outputs [B, C, ...] of one call of an activation.

    Shares are fractions: `zeros` of outputs that are exactly 0, `saturated` of those within 1 % of a bound of tanh or
    sigmoid (None for others), `dead` of units, the channels of maps, that give 0 for every image at every place.
    `counts` is a histogram, in equal bins between `low` and `high`, of the outputs that are not exactly 0.
    """

    name: str
    kind: str
    depth: int
    mean: float
    std: float
    zeros: float
    saturated: float | None
    dead: float
    low: float = field(repr=False)
    high: float = field(repr=False)
    counts: list[int] = field(repr=False)


def activation_statistics(model: nn.Module, images_BCHW: Tensor) -> list[ActivationRow]:
    """Return a row for each call of an activation in one forward pass in training mode, in their order.

    The pass is made on a copy: the model and the random state do not change.
    """
    twin = copy.deepcopy(model).train()
    rows: list[ActivationRow] = []
    for name, layer in twin.named_modules():
        if isinstance(layer, KINDS):
            layer.register_forward_hook(
                lambda module, _, outputs, name=name: rows.append(_row(name, module, outputs, len(rows) + 1))
            )
    with torch.no_grad(), random_state_kept(images_BCHW.device):
        twin(images_BCHW)
    return rows


def _row(name: str, layer: nn.Module, outputs: Tensor, depth: int) -> ActivationRow:
    values = outputs.detach().float()
    bounds, saturated = BOUNDS.get(type(layer)), None
    low, high = (values.min().item(), values.max().item()) if bounds is None else bounds
    if bounds is not None:
        margin = SATURATED * (high - low)
        saturated = ((values < low + margin) | (values > high - margin)).float().mean().item()
    is_dead_C = values.transpose(0, 1).flatten(1).eq(0).all(1)
    others = values[values != 0]
    has_range = values.isfinite().all() and high > low
    counts = torch.histc(others, BINS, low, high).int().tolist() if has_range else [others.numel()]
    return ActivationRow(
        name, type(layer).__name__, depth, values.mean().item(), values.std(correction=0).item(),
        values.eq(0).float().mean().item(), saturated, is_dead_C.float().mean().item(), low, high, counts,
    )  # fmt: skip


def plot_histograms(axes: Sequence[Any], label: str, rows: Sequence[ActivationRow]) -> None:
    """Plot a histogram of evenly chosen layers on each of the matplotlib axes, from the first to the last.

    Args:
        axes: One for each histogram; those beyond the number of layers stay empty.
        label: Label of the network, beside the first histogram.
        rows: The statistics of its activations.
    """
    from resnet_cli.plots.curves import TRAIN, sanitize_title

    shown = min(len(rows), len(axes))
    for i, panel in enumerate(axes):
        if i >= shown:
            panel.set_axis_off()
            continue
        row = rows[round(i * (len(rows) - 1) / max(shown - 1, 1))]
        width = (row.high - row.low) / len(row.counts) or 1.0
        total = sum(row.counts) or 1
        centres = [row.low + (j + 0.5) * width for j in range(len(row.counts))]
        panel.bar(centres, [count / total for count in row.counts], width, color=TRAIN)
        notes = [f"{row.zeros:.0%} zero" if row.zeros else "", f"{row.dead:.0%} dead" if row.dead else ""]
        notes += [f"{row.saturated:.0%} saturated" if row.saturated else ""]
        panel.set_title(
            "\n".join([f"{row.depth}: {row.kind}", ", ".join(note for note in notes if note)]), loc="left", fontsize=8.5
        )
        panel.set_yticks([])
        panel.locator_params("x", nbins=3)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right", "left"]].set_visible(False)
    if axes:
        text = sanitize_title(label)
        axes[0].set_ylabel(text if len(text) <= 30 else f"{text[:29]}\u2026", fontsize=9, parse_math=False)
