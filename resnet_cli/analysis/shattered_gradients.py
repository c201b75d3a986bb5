"""Shattered gradients: how alike the gradients of a network are at neighbouring inputs (arXiv 1702.08591, section 2).

Where the gradient at one input says nothing about that at the next, gradient descent steps blindly. Along a line
through the space of images the gradients of a shallow network resemble brown noise, those of a deep plain one white
noise, and those of a residual one lie between.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.plots.panels import mark_series
from resnet_cli.seeding import random_state_kept, seeded_generator

POINTS, EXTENT = 256, 2.0  # inputs on the line, from -EXTENT to EXTENT, as in the paper
LAGS = 15
LINES = 4  # over which autocorrelations are averaged


@dataclass(frozen=True)
class LagRow:
    """Autocorrelation of the gradients at inputs that are `lag` points apart; `distance` is that in the line's unit."""

    lag: int
    distance: float
    autocorrelation: float


def shattered_gradients(model: nn.Module, in_size: Sequence[int], *, seed: int = 0) -> list[LagRow]:
    """Return the autocorrelation of the gradient of a class score by the input, for the lags 0 to 15.

    The inputs are 256 points of a line `a + t b` with t from -2 to 2, where a and b are images of normal noise. Batch
    norm takes the statistics of the line, as constants. It works on a copy; the random state does not change.

    Args:
        model: Images [B, C, H, W] -> logits [B, K].
        in_size: Channels, height and width of the images.
        seed: Seed of the lines, of which several are averaged.
    """
    parameter = next(model.parameters(), torch.ones(()))
    totals_L = torch.zeros(LAGS + 1, dtype=torch.float64)
    for line in range(LINES):
        generator = seeded_generator("cpu", seed, "line", line)
        start, direction = torch.randn(2, *in_size, generator=generator)
        t_N = torch.linspace(-EXTENT, EXTENT, POINTS)
        inputs = (start + t_N[:, None, None, None] * direction).to(parameter.device, parameter.dtype)
        totals_L += autocorrelation(input_gradients(model, inputs), LAGS)
    step = 2 * EXTENT / (POINTS - 1)
    return [LagRow(lag, lag * step, value) for lag, value in enumerate((totals_L / LINES).tolist())]


def input_gradients(model: nn.Module, inputs_NCHW: Tensor) -> Tensor:
    """Return the gradient [N, P] of the first class's score by each input, for a network in evaluation mode.

    Its batch norms have the statistics of these inputs.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for norm in (m for m in twin.modules() if isinstance(m, _BatchNorm)):
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train(norm.track_running_stats)
    with random_state_kept(inputs_NCHW.device), torch.no_grad():
        twin(inputs_NCHW)
    twin.eval()
    inputs_NCHW = inputs_NCHW.detach().requires_grad_()
    with torch.enable_grad():
        (gradients,) = torch.autograd.grad(twin(inputs_NCHW)[:, 0].sum(), inputs_NCHW)
    return gradients.flatten(1)


def autocorrelation(series_NP: Tensor, lags: int) -> Tensor:
    """Return the autocorrelation of a series of vectors for the lags 0 to `lags`; of a constant it is 1."""
    centred_NP = series_NP.double() - series_NP.double().mean(0)
    scale = centred_NP.square().sum()
    if scale <= 1e-20 * series_NP.double().square().sum():  # no more than rounding: the gradient is the same everywhere
        return torch.ones(lags + 1, dtype=torch.float64)
    count = len(centred_NP)
    sums = [(centred_NP[: count - lag] * centred_NP[lag:]).sum() for lag in range(lags + 1)]
    return (torch.stack(sums) / scale).cpu()


def plot_shattered(axes: Any, series: Mapping[str, Sequence[LagRow]]) -> None:
    """Plot the autocorrelations over the lag on matplotlib axes."""
    mark_series(axes, {label: [(row.lag, row.autocorrelation) for row in rows] for label, rows in series.items()})
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel(f"lag, in points of a line of {POINTS} inputs")
    axes.set_ylabel("autocorrelation of the input's gradient")
