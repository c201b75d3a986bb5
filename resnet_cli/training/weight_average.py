"""WeightAverage: base class of the averages of a model's weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of some of a model's tensors, which replace them in the model while it is evaluated or saved.

    A subclass follows either the steps of a run, by `update` and `update_by`, or its epochs.

    Args:
        weights: Parameters of the model, whose current values initialise the averages.
        buffers: Modules of the model and the names of their buffers, which are averaged too, after the weights.
    """

    def __init__(self, weights: Sequence[Tensor], buffers: Sequence[tuple[nn.Module, str]] = ()) -> None:
        self._num_weights, self._buffers = len(weights), list(buffers)
        self._replaced = [*weights, *(module.get_buffer(name) for module, name in buffers)]
        self._averages = [tensor.detach().clone() for tensor in self._replaced]

    @property
    def tensors(self) -> list[Tensor]:
        """The averages, in the order of `state_dict`; they stay the same objects."""
        return self._averages

    @property
    def is_active(self) -> bool:
        """True if the averages are evaluated and saved instead of the model's own weights."""
        return True

    def check_length(self, num_epochs: float, num_batches: int | None = None) -> None:
        """Raise an `InputError` if a run is too short for the average; the arguments are those of `start_epoch`."""

    @property
    def is_in_step(self) -> bool:
        """True if `update_by` inside a compiled step does what `update` does after an eager one."""
        return True

    def start_epoch(self, epoch: int, num_epochs: float, step: int, num_batches: int | None = None) -> None:
        """Begin or continue an epoch; averages that depend on the position in the run override this.

        Args:
            epoch: Its number, from 0.
            num_epochs: Epochs of the run.
            step: Optimizer steps taken so far.
            num_batches: Steps of an epoch; None if the loader has no length.

        Raises:
            InputError: as in `check_length`.
        """

    def follow_buffers(self) -> None:
        """Refer to the tensors that are buffers now, where a module has replaced one by another of the same kind."""
        for number, (module, name) in enumerate(self._buffers, self._num_weights):
            own, known = module._buffers.get(name), self._replaced[number]  # ten times as fast as `getattr`
            if own is known or own is None:
                continue
            if (own.shape, own.dtype, own.device) == (known.shape, known.dtype, known.device):
                self._replaced[number] = own

    def update(self, step: int) -> None:
        """Add the weights after optimizer step number `step` (1 is the first) to the average."""

    def weight(self, step: int) -> float:
        """Return the weight of the new values after optimizer step number `step`, for `update_by`."""
        return 0.0

    def update_by(self, weight: Tensor) -> None:
        """Like `update`, with the weight as a device tensor so that `torch.compile` does not specialise on its value.

        `follow_buffers` must have been called since the forward pass.

        Args:
            weight: `weight(step)`, a scalar.
        """

    @property
    def share_of_epochs(self) -> float:
        """Share of the epochs that end with an extra pass over the training images; 1 if it depends on their number."""
        return 0.0

    def facts(self) -> dict[str, int]:
        """Return the entries that the average adds to the row of an epoch."""
        return {}

    def restart(self) -> None:
        """Restart from the model's current weights."""
        self.follow_buffers()
        self._copy(self._replaced, to=self._averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Load the averages into the model if they are active, and its own weights on exit."""
        if not self.is_active:
            yield
            return
        self.follow_buffers()
        tensors, own = list(self._replaced), [tensor.detach().clone() for tensor in self._replaced]
        buffers = [module._buffers.get(name) for module, name in self._buffers]
        self._copy(self._averages, to=tensors)
        try:
            yield
        finally:
            for (module, name), tensor in zip(self._buffers, buffers, strict=True):
                if module._buffers.get(name) is not tensor:  # a forward pass has replaced it
                    setattr(module, name, tensor)
            self._replaced[:] = tensors
            self._copy(own, to=tensors)

    def copy_to_model(self) -> None:
        """Replace the model's weights with the averages, if they are active."""
        if self.is_active:
            self.follow_buffers()
            self._copy(self._averages, to=self._replaced)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages in the order of `tensors`, and any counters of a subclass."""
        return {"average": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of another kind; the number of tensors or their shapes differ.
        """
        stored = state["average"]
        if set(state) != set(self.state_dict()):
            raise ValueError("the stored averages are those of another trainer.averaging")
        if [t.shape for t in stored] != [t.shape for t in self._averages]:
            raise ValueError("the stored averages belong to another model")
        self._copy(stored, to=self._averages)

    @staticmethod
    @torch.no_grad()
    def _copy(values: list[Tensor], *, to: list[Tensor]) -> None:
        if to:
            torch._foreach_copy_(to, values)
