"""Regularisers that PyTorch has no layer for: DropConnect on weights, stochastic depth on residual branches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.errors import InputError


class DropConnectConv2d(nn.Conv2d):
    """A convolution that drops weights in training (Wan et al. 2013); `drop_connect` is the probability.

    One mask is drawn for each batch. Kept weights are divided by the probability of keeping them, so that the expected
    output is that of evaluation, where nothing is dropped. The bias is never dropped.
    """

    drop_connect = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, C, H, W]` as `nn.Conv2d` does, with the kept weights."""
        weight = F.dropout(self.weight, self.drop_connect, self.training)
        outputs: Tensor = self._conv_forward(inputs, weight, self.bias)
        return outputs

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        described: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{described}, drop_connect={self.drop_connect}"


class DropConnectLinear(nn.Linear):
    """A linear layer that drops weights in training, as `DropConnectConv2d` does."""

    drop_connect = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, C]` as `nn.Linear` does, with the kept weights."""
        return F.linear(inputs, F.dropout(self.weight, self.drop_connect, self.training), self.bias)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"{super().extra_repr()}, drop_connect={self.drop_connect}"


def add_drop_connect(model: nn.Module, probability: float) -> None:
    """Make every convolution and linear layer of `model` drop weights in training, unless `probability` is 0.

    The layers keep their names, weights and biases, and no random numbers are drawn.

    Raises:
        InputError: the probability is not in [0, 1).
    """
    _check_probability("drop_connect", probability)
    if not probability:
        return
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            replacement = _empty_replacement(layer)
            if replacement is not None:
                vars(replacement).update(vars(layer))
                replacement.drop_connect = probability
                setattr(parent, name, replacement)


def _empty_replacement(layer: nn.Module) -> DropConnectConv2d | DropConnectLinear | None:
    """Return a layer without storage that takes over the weights and settings of `layer`; None for other layers."""
    with torch.device("meta"):
        if type(layer) is nn.Conv2d:
            return DropConnectConv2d(1, 1, 1)
        return DropConnectLinear(1, 1) if type(layer) is nn.Linear else None


class StochasticDepth(nn.Module):
    """Drops a residual branch for some samples in training (Huang et al. 2016, arXiv 1603.09382).

    Samples are dropped independently. Kept branches are divided by the probability of keeping them, so that evaluation
    needs no scaling.

    Args:
        probability: Probability of dropping the branch, from 0 to below 1.

    Raises:
        InputError: the probability is not in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        _check_probability("stochastic_depth", probability)
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch's output `[B, ...]`, zero for the samples that skip it."""
        if not self.training:
            return branch
        kept = branch.new_empty(branch.shape[:1]).bernoulli_(1 - self.probability) / (1 - self.probability)
        return branch * kept.view(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"probability={self.probability}"


def has_random_layers(model: nn.Module) -> bool:
    """Return whether layers of a model draw random numbers in training: dropout of any kind, stochastic depth."""
    names = (type(layer).__name__ for layer in model.modules())
    return any("Drop" in name or "StochasticDepth" in name for name in names)


def linear_rates(blocks: int, last: float) -> list[float]:
    """Return the probability of dropping each of `blocks` blocks, growing linearly to `last` (Huang et al., eq. 4)."""
    return [last * (block + 1) / blocks for block in range(blocks)]


def check_stochastic_depth(last: float, *, shortcuts: bool) -> None:
    """Check that branches are only dropped, with a probability of up to `last`, in blocks with `shortcuts`.

    Raises:
        InputError: without its branch, a block without a shortcut would return zeros; or `last` is not a probability.
    """
    _check_probability("stochastic_depth", last)
    if last > 0 and not shortcuts:
        raise InputError(
            f"stochastic_depth={last}: without a shortcut, a dropped block returns zeros; "
            "use 0 with residual=false or shortcut=none"
        )


def _check_probability(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{key}={value}: must be from 0 to below 1")
