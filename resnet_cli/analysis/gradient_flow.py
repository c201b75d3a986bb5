"""How the gradient fares on its way back: its norm at each layer by depth, as rows and as a picture."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.files import write_whole
from resnet_cli.models.scalar_chain import ScalarChain
from resnet_cli.plots.curves import GREY, TEST, TRAIN, VALIDATION, drawable

STYLES = ((VALIDATION, "-", "o"), (TRAIN, "--", "s"), (TEST, ":", "^"), (GREY, "-.", "d"))  # one a series, in turn
LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LONGEST_MARKED = 60  # layers; with more, markers hide the line


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


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear]:
    """The convolutions and linear layers of `model` whose weight learns, by name, in the order of its modules."""
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS) and layer.weight.requires_grad
    }


def gradient_norms(model: nn.Module, order: Sequence[str] | None = None) -> list[GradientRow]:
    """The rows of `model` from the gradients that are there; a layer without one has the norm 0.

    Args:
        model: Any; a backward pass has been through it.
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
    """The rows of `model` after one forward and backward pass in training mode, in the order of the calls.

    A copy does the work: parameters, buffers, gradients and modes of the model and the random stream stay as they are.
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
    cuda = [images_BCHW.device] if images_BCHW.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        loss_fn(twin(images_BCHW).float(), labels_B).backward()  # type: ignore[no-untyped-call]
    return gradient_norms(twin, list(order))


class GradientSums:
    """The norms that `gradient_norms` gives, summed over the steps of an epoch on the device: no step waits for them.

    The layers are those whose weight learns when the first step is added. A step whose gradients are not all finite is
    left out: in float16 such a step changes no weight.

    Args:
        model: Whose layers.
        device: Where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self._weights: dict[str, Tensor] = {}
        self._set([], 0)

    def _set(self, sums: Sequence[float], steps: int) -> None:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._sums_L = torch.tensor(sums, dtype=dtype, device=self.device)
        self._steps = torch.tensor(steps, device=self.device)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """What a step adds to."""
        return self._sums_L, self._steps

    def begin(self) -> None:
        """Find the layers, unless that is done."""
        if not self._weights:
            self._weights = {name: layer.weight for name, layer in weighted_layers(self.model).items()}
            self._set([0.0] * len(self._weights), 0)

    def restart(self) -> None:
        """Forget the sums; they stay where they are, for a recorded step adds to that place."""
        for tensor in self.tensors:
            tensor.zero_()

    def add(self) -> None:
        """Add the gradients that are there; a layer without one counts as zero."""
        self.begin()
        if not self._weights:
            return
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self._weights.values()]
        norms_L = torch.stack(torch._foreach_norm(gradients)).to(self._sums_L.dtype)
        finite = norms_L.isfinite().all()
        self._sums_L += norms_L.where(finite, 0.0)
        self._steps += finite

    def read(self) -> dict[str, float | None]:
        """The mean norm of each layer, None when no step counted; this waits for the device."""
        steps = int(self._steps.item())
        means = [total / steps if steps else None for total in self._sums_L.tolist()]
        return dict(zip(self._weights, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"sums": dict(zip(self._weights, self._sums_L.tolist(), strict=True)), "steps": int(self._steps.item())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        self._weights = {name: self.model.get_parameter(f"{name}.weight".lstrip(".")) for name in state["sums"]}
        self._set(list(state["sums"].values()), state["steps"])


def chain_rows(chain: ScalarChain) -> list[GradientRow]:
    """The rows of a chain of numbers: `w_1` to `w_n`, whose norms are the sizes of their gradients."""
    return [
        GradientRow(f"w_{depth}", "Weight", depth, abs(gradient), 1)
        for depth, gradient in enumerate(chain.weight_gradients(), start=1)
    ]


def draw_gradients(series: Mapping[str, Sequence[GradientRow]], path: Path, *, title: str) -> None:
    """Draws gradient norms (logarithmic) over depth as a PNG of 800 x 400 pixels, replacing `path` in one move.

    Args:
        series: What each line is called -> its rows; such as a net and its plain or residual twin. Norms that are zero
            or not finite leave a gap.
        path: The picture to write; its folder exists.
        title: Shown above, as it is: `$` does not start a formula.

    Raises:
        MachineError: if the file cannot be written; the previous one is then intact.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.87, bottom=0.13)
    figure.text(0.1, 0.93, drawable(title), fontsize=12, fontweight="bold", parse_math=False)
    plot_gradients(figure.subplots(), series)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


def plot_gradients(axes: Any, series: Mapping[str, Sequence[GradientRow]]) -> None:
    """The panel of `draw_gradients` on matplotlib axes of one's own, as in a notebook."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("log")
    for i, (label, rows) in enumerate(series.items()):
        colour, linestyle, marker = STYLES[i % len(STYLES)]
        norms = [row.norm if row.norm > 0 and math.isfinite(row.norm) else math.nan for row in rows]
        style: dict[str, Any] = {"color": colour, "linestyle": linestyle, "linewidth": 1.8, "markersize": 4}
        style["marker"] = marker if len(rows) <= LONGEST_MARKED else None
        axes.plot([row.depth for row in rows], norms, label=drawable(label), **style)
    axes.set_xlabel("depth of the layer, from the input")
    axes.set_ylabel("norm of the weight's gradient")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if series:
        for text in axes.legend(frameon=False, fontsize=9.5, handlelength=2.6).get_texts():
            text.set_parse_math(False)
