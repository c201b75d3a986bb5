"""Exponential moving average of a model's weights and buffers, evaluated and exported in place of the raw ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """average <- average + (1 - decay_t) (weights - average), after each optimizer step.

    decay_t = min(decay, (1 + t) / (10 + t)) for step t, so that the first steps of a short run do not dominate its
    average (the ramp of TensorFlow's ExponentialMovingAverage). Floating-point buffers (batch-norm statistics) are
    averaged alike; integer buffers keep the model's values.

    `torch.optim.swa_utils.AveragedModel` copies the weights at its first update, where this ramp averages, and it keeps
    a second module, whose state dict has other keys: checkpoints would differ.

    Args:
        model: Its present weights are the first average.
        decay: Weight of the past per step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        self._averages = [tensor.detach().clone() for tensor in self._weights]

    @property
    def tensors(self) -> list[Tensor]:
        """The averages, in the order of `state_dict`."""
        return self._averages

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer step number `step` (1 is the first)."""
        torch._foreach_lerp_(self._averages, self._weights, self.weight(step))

    def weight(self, step: int) -> float:
        """Return 1 - decay_t: the weight of the new values after optimizer step number `step`."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def update_by(self, weight: Tensor) -> None:
        """Like `update`, with the weight as a device tensor so that `torch.compile` does not specialise on its value.

        Args:
            weight: `weight(step)`, a scalar.
        """
        difference = torch._foreach_sub(self._weights, self._averages)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._averages, difference)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Load the averages into the model, and its own weights on exit."""
        weights = [tensor.detach().clone() for tensor in self._weights]
        self._load_into_model(self._averages)
        try:
            yield
        finally:
            self._load_into_model(weights)

    def copy_to_model(self) -> None:
        """Replace the model's weights by the averages."""
        self._load_into_model(self._averages)

    @torch.no_grad()
    def _load_into_model(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._weights, values)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the averages in the order of the model's parameters, then its floating-point buffers."""
        return {"average": self._averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the number of tensors or their shapes differ.
        """
        stored = state["average"]
        if [t.shape for t in stored] != [t.shape for t in self._averages]:
            raise ValueError("the stored averages belong to another model")
        for tensor, value in zip(self._averages, stored, strict=True):
            tensor.copy_(value)
