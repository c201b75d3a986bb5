"""Lookahead: slow weights that follow the fast ones every k steps and then replace them (Zhang et al. 2019)."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn

from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import AtLeast, Between, Positive
from resnet_cli.config.run_length import total_steps
from resnet_cli.errors import InputError
from resnet_cli.training.module_state import buffers_of
from resnet_cli.training.weight_average import WeightAverage


@dataclass(frozen=True)
class LookaheadOptions:
    """Settings of `Lookahead`; the defaults are those of Zhang et al. 2019.

    Attributes:
        k: Steps between two synchronisations.
        alpha: Fraction of the way that the slow weights move towards the fast ones at a synchronisation, 0 to 1.
        final_alpha: `alpha` at the end of the run; None keeps `alpha` constant.
        power: At the fraction x of the run, alpha is `alpha + (final_alpha - alpha) x**power`.
        buffers: Whether floating-point buffers (batch-norm statistics) are averaged and written back like weights.
    """

    k: int = 5
    alpha: float = 0.5
    final_alpha: float | None = None
    power: float = 1.0
    buffers: bool = False


def lookahead_options(
    lookahead_k: Annotated[int, AtLeast(1)] = 5,
    lookahead_alpha: Annotated[float, Between(0, 1)] = 0.5,
    lookahead_final_alpha: Annotated[float, Between(0, 1)] | None = None,
    lookahead_power: Annotated[float, Positive()] = 1.0,
    lookahead_buffers: bool = False,
) -> LookaheadOptions:
    """Return the lookahead settings of a trainer; the config group `trainer` takes its `lookahead_*` keys from here."""
    alphas = (lookahead_alpha, lookahead_final_alpha)
    return LookaheadOptions(lookahead_k, *alphas, power=lookahead_power, buffers=lookahead_buffers)


class Lookahead(WeightAverage):
    """slow <- slow + alpha (fast - slow), then fast <- slow, every k optimizer steps.

    The slow weights are evaluated and saved; after the last step these are the ones of the last synchronisation. The
    optimizer's state is not changed, as in the paper's experiments. Batch-norm statistics are the model's, as in the
    published code of Zhang et al.; with `buffers` they are slow too, as in airbench94 (Jordan 2024, arXiv 2404.00498),
    whose `1 - alpha` is `0.95**5 x**3`: `alpha=1`, `final_alpha=0.2262190625`, `power=3`.

    Args:
        model: The model, whose current weights initialise the slow ones.
        options: Settings.
    """

    def __init__(self, model: nn.Module, options: LookaheadOptions) -> None:
        buffers = buffers_of(model, floating_point_only=True) if options.buffers else []
        super().__init__(list(model.parameters()), buffers)
        self.options = options
        self._total_steps: int | None = None

    @property
    def is_in_step(self) -> bool:
        """False: most steps do not synchronise, so the synchronisation is not part of a compiled step."""
        return False

    def check_length(self, num_epochs: float, num_batches: int | None = None) -> None:
        """Raise an `InputError` if the run ends before the first synchronisation."""
        steps = None if num_batches is None else total_steps(num_epochs, num_batches)
        if steps is not None and steps < self.options.k:
            raise InputError(
                f"trainer.lookahead_k={self.options.k}: the slow weights, which are evaluated and saved, do not move "
                f"in a run of {counted(steps, 'step')}; use at most {steps}"
            )

    def start_epoch(self, epoch: int, num_epochs: float, step: int, num_batches: int | None = None) -> None:
        """Set the length of the run, over which alpha changes.

        Raises:
            InputError: alpha changes and the loader has no length; or as in `check_length`.
        """
        self.check_length(num_epochs, num_batches)
        if num_batches is None and self.options.final_alpha is not None:
            raise InputError("trainer.lookahead_final_alpha: the loader has no length; set trainer.max_batches")
        self._total_steps = None if num_batches is None else total_steps(num_epochs, num_batches)

    def weight(self, step: int) -> float:
        """Return alpha after optimizer step number `step`; 0 between synchronisations."""
        chosen = self.options
        if step % chosen.k:
            return 0.0
        if chosen.final_alpha is None or not self._total_steps:
            return chosen.alpha
        share = min(step / self._total_steps, 1.0)
        return float(chosen.alpha + (chosen.final_alpha - chosen.alpha) * share**chosen.power)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Synchronise slow and fast weights after optimizer step number `step`, if it is a multiple of k."""
        if step % self.options.k == 0:
            self.follow_buffers()
            torch._foreach_lerp_(self._averages, self._replaced, self.weight(step))
            self._copy(self._averages, to=self._replaced)

    def state_dict(self) -> dict[str, Any]:
        """Return the slow weights, and whether buffers are among them."""
        return {**super().state_dict(), "lookahead_buffers": self.options.buffers}
