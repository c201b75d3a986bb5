"""Averages of a model's weights, evaluated and saved in place of its own: `trainer.averaging`.

`ExponentialAverage` (`ema`) follows each step; `StochasticAverage` (`swa`) averages the epochs of a tail of the run;
`Lookahead` (`lookahead`) follows every few steps, and training continues from it. To add a kind, subclass
`WeightAverage`, and add a line to `make_average` and to `load_averages`.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.training.lookahead import Lookahead, LookaheadOptions
from resnet_cli.training.module_state import buffers_of
from resnet_cli.training.stochastic_average import StochasticAverage
from resnet_cli.training.weight_average import WeightAverage

Averaging = Literal["none", "ema", "swa", "lookahead"]


class ExponentialAverage(WeightAverage):
    """average <- average + (1 - decay_t) (weights - average), after each optimizer step.

    decay_t = min(decay, (1 + t) / (10 + t)) for step t, so that the first steps of a short run do not dominate its
    average (the ramp of TensorFlow's ExponentialMovingAverage). Floating-point buffers (batch-norm statistics) are
    averaged in the same way; integer buffers keep the model's values.

    `torch.optim.swa_utils.AveragedModel` is not used: it copies the weights at its first update instead of averaging,
    and it keeps a second module with other state-dict keys, which would change checkpoints.

    Args:
        model: The model, whose current weights initialise the average.
        decay: Weight of the previous average in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(list(model.parameters()), buffers_of(model, floating_point_only=True))
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after optimizer step number `step` (1 is the first) to the average."""
        self.follow_buffers()
        torch._foreach_lerp_(self._averages, self._replaced, self.weight(step))

    def weight(self, step: int) -> float:
        """Return 1 - decay_t: the weight of the new values after optimizer step number `step`."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def update_by(self, weight: Tensor) -> None:
        """Add the weights to the average, with a device tensor as the weight of the new values."""
        difference = torch._foreach_sub(self._replaced, self._averages)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._averages, difference)


def make_average(
    averaging: Averaging,
    model: nn.Module,
    decay: float,
    swa_start: float,
    swa_lr: float | None,
    lookahead: LookaheadOptions = LookaheadOptions(),  # noqa: B008  it is frozen
) -> WeightAverage | None:
    """Return the average that `averaging` names; None for `none`.

    Raises:
        InputError: options of one kind are set with another, or `swa_start` is not a valid position.
    """
    if lookahead.final_alpha is not None and averaging != "lookahead":
        raise InputError(f"trainer.lookahead_final_alpha={lookahead.final_alpha:g}: needs trainer.averaging=lookahead")
    if not lookahead.alpha and averaging == "lookahead":
        raise InputError("trainer.lookahead_alpha=0: nothing would be learned; 0.5 is usual")
    if swa_lr is not None and averaging != "swa":
        raise InputError(f"trainer.swa_lr={swa_lr:g}: needs trainer.averaging=swa")
    if averaging == "lookahead":
        return Lookahead(model, lookahead)
    if averaging == "ema":
        return ExponentialAverage(model, decay)
    return StochasticAverage(model, swa_start, swa_lr) if averaging == "swa" else None


def load_averages(model: nn.Module, state: dict[str, Any]) -> None:
    """Replace a model's weights with the averages that a run evaluates.

    Args:
        model: The model with the run's own weights loaded.
        state: What `WeightAverage.state_dict` returned.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the state belongs to another model, or is malformed.
    """
    average: WeightAverage
    if "lookahead_buffers" in state:
        average = Lookahead(model, LookaheadOptions(buffers=bool(state["lookahead_buffers"])))
    else:
        average = StochasticAverage(model, 0.0, None) if "count" in state else ExponentialAverage(model, decay=0.0)
    average.load_state_dict(state)
    average.copy_to_model()
