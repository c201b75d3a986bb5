"""Gradient norms of the layers, summed over the steps of an epoch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear]:
    """The convolutions and linear layers of `model` whose weight learns, by name, in the order of its modules."""
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS) and layer.weight.requires_grad
    }


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
