"""Exponential moving average of a model's weights and buffers, evaluated and exported in place of the raw ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """average <- average + (1 - decay_t) (weights - average), after each optimizer step.

    decay_t = min(decay, (1 + t) / (10 + t)) for step t, so that the start of a short run is not averaged in for good
    (the ramp of TensorFlow's ExponentialMovingAverage). Floating-point buffers (batch-norm statistics) are averaged
    alike; whole-number buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        self._whole = [b for b in model.buffers() if not b.is_floating_point()]
        self._average = [tensor.detach().clone() for tensor in self._live]

    @property
    def tensors(self) -> list[Tensor]:
        """The averages, in the order of `state_dict`."""
        return self._average

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after optimizer step number `step` (1 is the first)."""
        torch._foreach_lerp_(self._average, self._live, self.weight(step))

    def weight(self, step: int) -> float:
        """1 - decay_t: how much of the weights goes into the average after optimizer step number `step`."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def move(self, weight: Tensor) -> None:
        """`update` by a weight that is a tensor on the device: to compiled code its value is no constant."""
        difference = torch._foreach_sub(self._live, self._average)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._average, difference)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside this block and its own weights after it."""
        own = [tensor.detach().clone() for tensor in self._live]
        self._copy_in(self._average)
        try:
            yield
        finally:
            self._copy_in(own)

    @torch.no_grad()
    def _copy_in(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._live, values)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The averages in the order of the model's parameters, then its floating-point buffers."""
        return {"average": self._average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """The reverse of `state_dict`.

        Raises:
            ValueError: another number of tensors, or other shapes.
        """
        stored = state["average"]
        if [t.shape for t in stored] != [t.shape for t in self._average]:
            raise ValueError("the stored averages are of another model")
        for tensor, value in zip(self._average, stored, strict=True):
            tensor.copy_(value)
