"""Initialisations that depend on training images: LSUV, and whitening by the first convolution.

Shapes: B images, C channels, H height, W width, N patches of an image, D values of a patch (C * its height * width).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError

IMAGE_COUNTS: Mapping[str, int] = {"lsuv": 256, "whitening": 5_000}  # number of images that each uses

DEFAULT_IMAGES = 5_000  # for a network without `init_images`
MAX_VALUES = 2**26  # values of all images together: 256 MB

TOLERANCE = 0.1  # of LSUV's output variances (section 3)
MAX_TRIES = 10
CONSTANT = 1e-12  # fraction of an output's mean square below which its variance is rounding (float32: 6e-8^2 = 4e-15)
EPS = 5e-4  # added to the eigenvalues for images of unit variance, as in the code of airbench94
CHUNK = 2**24  # values of patches in memory at once

Layer = nn.Conv2d | nn.Linear


def initialise_model_from_images(model: nn.Module, sample: Callable[[int], Tensor]) -> list[str]:
    """Call a network's `initialise_from_data(images_BCHW) -> list[str]`, if it has this method, with training images.

    The network receives `init_images` images (5,000 without such an attribute), fewer if they are large. It may set its
    weights from them, and returns lines for the log.

    Args:
        model: The network on its training device. Without the method, or if `init_images` is 0, nothing happens.
        sample: Count -> at most that many training images `[B, C, H, W]` on that device.

    Raises:
        InputError: the method raised it; keys get the prefix `model.`.
    """
    method = getattr(model, "initialise_from_data", None)
    count = int(getattr(model, "init_images", DEFAULT_IMAGES))
    if method is None or count < 1:
        return []
    images_BCHW = sample(min(count, max(1, MAX_VALUES // sample(1).numel())))
    try:
        return [str(line) for line in method(images_BCHW)]
    except InputError as error:
        raise InputError(*(f"model.{problem}" for problem in error.problems)) from error


@torch.no_grad()
def lsuv(model: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Rescale each convolution and linear layer, in the order of their calls, until its output has unit variance.

    Layer-sequential unit variance (Mishkin and Matas 2015, arXiv 1511.06422, algorithm 1); the weights should be
    orthonormal. A single forward pass is enough, since each layer is rescaled before the next one is called. Dropout is
    off, and batch norms use batch statistics.

    Returns:
        Lines for the log.
    """
    images_BCHW = images_BCHW[: IMAGE_COUNTS["lsuv"]]
    variances: dict[nn.Module, tuple[float, float]] = {}
    unscalable: dict[nn.Module, float] = {}
    constant: set[nn.Module] = set()

    def rescale(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        assert isinstance(layer, Layer)
        if layer in variances or layer in unscalable or layer in constant:  # called again
            return output
        before = after = _variance(output)
        if not before > CONSTANT * output.square().mean().item():  # written so that NaN counts as constant too
            constant.add(layer)
            return output
        drawn, rescaled = layer.weight.clone(), output
        for _ in range(MAX_TRIES):
            if abs(after - 1) <= TOLERANCE or not 0 < after < math.inf:
                break
            layer.weight.div_(math.sqrt(after))
            rescaled = layer.forward(*args, **kwargs)
            after = _variance(rescaled)
        if abs(after - 1) <= TOLERANCE:
            variances[layer] = (before, after)
            return rescaled
        unscalable[layer] = before  # its output is not proportional to its weights
        layer.weight.copy_(drawn)
        return output

    layers: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, Layer)}
    hooks = [layer.register_forward_hook(rescale, with_kwargs=True) for layer in layers]
    try:
        with _calibrating(model):
            model(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    lines = [f"lsuv on {counted(len(images_BCHW), 'image')}: {_summary(list(variances.values()))}"]
    if unscalable:
        names = [f"{layers[m]} ({variance:.3g})" for m, variance in unscalable.items()]
        lines.append(
            f"lsuv warning: not rescaled, since their output variance did not reach 1 in {MAX_TRIES} tries: "
            f"{_shorten(names)}"
        )
    if constant:
        names = [layers[m] for m in layers if m in constant]
        lines.append(f"lsuv warning: not rescaled, since their outputs are constant or not finite: {_shorten(names)}")
    return lines


def _variance(output: Tensor) -> float:
    return output.var(correction=0).item()


def _summary(variances: Sequence[tuple[float, float]]) -> str:
    if not variances:
        return "no layer was rescaled"
    (low, high), (least, most) = ((min(values), max(values)) for values in zip(*variances, strict=True))
    count = counted(len(variances), "layer")
    return f"{count}, output variances {low:.3g} to {high:.3g} before, {least:.3g} to {most:.3g} after"


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


@contextmanager
def _calibrating(model: nn.Module) -> Iterator[None]:
    """Disable dropout and use batch statistics in batch norms; restore modes, buffers and random state on exit."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    cuda = {p.device for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    try:
        with torch.random.fork_rng(devices=list(cuda)):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return name and module of the convolution that `whiten` sets.

    Raises:
        InputError: there is no convolution, or the first one has groups or fewer than two filters.
    """
    name, conv = next(((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if conv is None:
        raise InputError("init=whitening: this network has no convolution; init=he suits every network")
    if conv.groups != 1 or conv.out_channels < 2:
        raise InputError(
            f"init=whitening: the first convolution, {name}, has groups={conv.groups} and {conv.out_channels} filters; "
            f"it must have groups=1 and 2 filters or more"
        )
    return name, conv


@torch.no_grad()
def whiten(model: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Set the first convolution to the principal components of the images' patches and their negatives.

    Each eigenvector of the patches' covariance is divided by sqrt(eigenvalue + eps), so that the outputs are
    uncorrelated and of unit variance (Page 2018; Jordan 2024, arXiv 2404.00498, section 3.1). The leading components
    come first, then their negatives; any remaining filters keep their weights. The bias is set to zero.

    Returns:
        A line for the log.

    Raises:
        InputError: the images and the convolution differ in channels, or the images are smaller than a patch; see also
            `first_convolution`.
    """
    name, conv = first_convolution(model)
    images_BCHW = images_BCHW[: IMAGE_COUNTS["whitening"]]
    spans = [(k - 1) * d + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    channels, *sides = images_BCHW.shape[1:]
    if channels != conv.in_channels or any(side < span for side, span in zip(sides, spans, strict=True)):
        raise InputError(
            f"init=whitening: images of {channels}x{sides[0]}x{sides[1]} have no patches of "
            f"{conv.in_channels}x{spans[0]}x{spans[1]}, which the first convolution, {name}, takes"
        )
    values_D, vectors_DD = torch.linalg.eigh(_patch_covariance(images_BCHW, conv))
    values_D, vectors_DD = values_D.flip(0).clamp(min=0), vectors_DD.T.flip(0)  # the largest first, as rows
    count = min(conv.out_channels // 2, len(values_D))
    filters = (vectors_DD / (values_D + EPS).sqrt()[:, None])[:count].view(count, *conv.weight.shape[1:])
    conv.weight[: 2 * count].copy_(torch.cat([filters, -filters]))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return [
        f"whitening on {counted(len(images_BCHW), 'image')}: {2 * count} of {conv.out_channels} filters of {name}, "
        f"eigenvalues {values_D[0].item():.3g} to {values_D[count - 1].item():.3g}"
    ]


def _patch_covariance(images_BCHW: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return the covariance [D, D] of the patches that the convolution sees without padding; float64, on the CPU."""
    size = conv.weight[0].numel()
    total_D, moments_DD, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    for images in torch.split(images_BCHW, max(1, CHUNK // (size * images_BCHW[0, 0].numel()))):
        patches_BDN = F.unfold(images, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
        total_D += patches_BDN.sum((0, 2)).cpu().double()
        moments_DD += (patches_BDN @ patches_BDN.mT).sum(0).cpu().double()
        count += len(patches_BDN) * patches_BDN.shape[2]
    mean_D = total_D / count
    return moments_DD / count - mean_D.outer(mean_D)
