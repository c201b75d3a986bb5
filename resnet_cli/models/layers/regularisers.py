"""Regularisers that PyTorch has no layer for: DropConnect on weights, stochastic depth on residual branches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.errors import InputError


class DropConnectConv2d(nn.Conv2d):
    """A convolution that drops weights in training (Wan et al. 2013); `drop_connect` is the probability.

    Each batch draws one mask. What is kept is divided by the probability of keeping it, so that the expected output is
    that of evaluation, where nothing is dropped. The bias is kept.
    """

    drop_connect = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, C, H, W]` as `nn.Conv2d` does, with the weights that were kept."""
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
        """Map `[B, C]` as `nn.Linear` does, with the weights that were kept."""
        return F.linear(inputs, F.dropout(self.weight, self.drop_connect, self.training), self.bias)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"{super().extra_repr()}, drop_connect={self.drop_connect}"


def add_drop_connect(model: nn.Module, probability: float) -> None:
    """Make every convolution and linear layer of `model` drop weights in training; nothing changes at 0.

    The layers keep their names, weights and biases; nothing is drawn.

    Raises:
        InputError: a probability outside 0 to below 1.
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
    """Leaves a residual branch out for some samples in training (Huang et al. 2016, arXiv 1603.09382).

    Each sample draws for itself. Branches that are kept are divided by the probability of keeping them, so that nothing
    has to change in evaluation.

    Args:
        probability: Of leaving the branch out, from 0 to below 1.

    Raises:
        InputError: another probability.
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


def linear_rates(blocks: int, last: float) -> list[float]:
    """Probabilities of leaving each of `blocks` out that grow in equal steps to `last` (Huang et al., eq. 4)."""
    return [last * (block + 1) / blocks for block in range(blocks)]


def check_stochastic_depth(last: float, *, shortcuts: bool) -> None:
    """Refuse to leave branches out, by a probability of up to `last`, where there are no `shortcuts` instead of them.

    Raises:
        InputError: nothing would be left of a block.
    """
    _check_probability("stochastic_depth", last)
    if last > 0 and not shortcuts:
        raise InputError(
            f"stochastic_depth={last}: nothing would be left of a block without a shortcut; "
            f"it must be 0 with residual=false or shortcut=none"
        )


def _check_probability(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{key}={value}: must be from 0 to below 1")
