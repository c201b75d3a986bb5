"""Gradient norms of the layers by depth, as rows and as a plot."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.files import write_atomically
from resnet_cli.models.scalar_chain import ScalarChain
from resnet_cli.plots.curves import sanitize_title
from resnet_cli.plots.panels import mark_series
from resnet_cli.seeding import random_state_kept
from resnet_cli.training.gradient_norms import weighted_layers


@dataclass(frozen=True)
class GradientRow:
    """One convolution or linear layer that learns.

    `depth` is its position, from 1, in the order in which such layers are called; `norm` the L2 norm of the gradient of
    its `weight`, without the bias; `weights` how many numbers that weight holds.
    """

    name: str
    kind: str
    depth: int
    norm: float
    weights: int


def gradient_norms(model: nn.Module, order: Sequence[str] | None = None) -> list[GradientRow]:
    """Return the rows of `model` from its present gradients; a layer without one has the norm 0.

    Args:
        model: Any model, after a backward pass.
        order: Names of its layers in the order in which they are called; None is the order of its modules.
    """
    layers = weighted_layers(model)
    rows = []
    for depth, name in enumerate(layers if order is None else order, start=1):
        weight = layers[name].weight
        norm = 0.0 if weight.grad is None else weight.grad.float().norm().item()
        rows.append(GradientRow(name, type(layers[name]).__name__, depth, norm, weight.numel()))
    return rows


def gradient_flow(
    model: nn.Module,
    images_BCHW: Tensor | None = None,
    labels_B: Tensor | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> list[GradientRow]:
    """Return the rows of `model` after one forward and backward pass in training mode, in the order of the calls.

    The passes are made on a copy: the model, its gradients and modes, and the random state do not change.
    Layers that the forward pass does not call have no row.

    Args:
        model: Images [B, C, H, W] -> logits [B, K]; or a `ScalarChain`, which brings its own input and loss.
        images_BCHW: A batch, on the model's device.
        labels_B: Its classes, or class probabilities [B, K].
        loss_fn: (logits, labels) -> mean loss.

    Raises:
        ValueError: no images or labels for a model that needs them.
    """
    if isinstance(model, ScalarChain):
        return chain_rows(model)
    if images_BCHW is None or labels_B is None:
        raise ValueError("gradient_flow: images and labels are needed; only a ScalarChain does without")
    twin = copy.deepcopy(model).train()
    order: dict[str, None] = {}
    for name, layer in weighted_layers(twin).items():
        layer.register_forward_hook(lambda *_, name=name: order.setdefault(name))
    with random_state_kept(images_BCHW.device), torch.enable_grad():
        loss_fn(twin(images_BCHW).float(), labels_B).backward()  # type: ignore[no-untyped-call]
    return gradient_norms(twin, list(order))


def chain_rows(chain: ScalarChain) -> list[GradientRow]:
    """Return the rows of a chain of scalars: `w_1` to `w_n`, with the absolute values of their gradients."""
    return [
        GradientRow(f"w_{depth}", "Weight", depth, abs(gradient), 1)
        for depth, gradient in enumerate(chain.weight_gradients(), start=1)
    ]


def draw_gradients(series: Mapping[str, Sequence[GradientRow]], path: Path, *, title: str) -> None:
    """Draw gradient norms (logarithmic) over depth as a PNG of 800 x 400 pixels, replacing `path` in one move.

    Args:
        series: Rows by the label of each line, such as a net and its plain or residual counterpart. Norms that are zero
            or not finite leave a gap.
        path: The picture to write; its folder exists.
        title: Shown above, literally: `$` does not start a formula.

    Raises:
        MachineError: if the file cannot be written; the previous one is then intact.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.87, bottom=0.13)
    figure.text(0.1, 0.93, sanitize_title(title), fontsize=12, fontweight="bold", parse_math=False)
    plot_gradients(figure.subplots(), series)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def plot_gradients(axes: Any, series: Mapping[str, Sequence[GradientRow]]) -> None:
    """Plot the panel of `draw_gradients` on given matplotlib axes, as in a notebook."""
    points = {label: [(row.depth, row.norm) for row in rows] for label, rows in series.items()}
    mark_series(axes, points, logarithmic=True)
    axes.set_xlabel("depth of the layer, from the input")
    axes.set_ylabel("norm of the weight's gradient")
