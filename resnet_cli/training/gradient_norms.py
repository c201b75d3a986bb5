"""Gradient norms of the layers, summed over the steps of an epoch."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear]:
    """Return the convolutions and linear layers whose weight is trainable, by name, in the order of the modules."""
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS) and layer.weight.requires_grad
    }


class GradientSums:
    """Gradient norms of the weighted layers, summed on the device over the steps of an epoch, without waiting for it.

    The layers are those with a trainable weight when the first step is added; one that is frozen in some steps counts
    as zero in them. A step whose gradients are not all finite is left out: in float16 such a step changes no weight.

    Args:
        model: The model whose layers are recorded.
        device: Its device.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.skipped: Collection[Tensor] = ()  # weights that never train
        self._weights: dict[str, Tensor] = {}
        self._set([], 0)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors that a step updates in place."""
        return self._sums_L, self._steps

    def find_layers(self) -> None:
        """Find the layers, once."""
        if not self._weights:
            layers = weighted_layers(self.model)
            found = {name: layer.weight for name, layer in layers.items() if layer.weight not in self.skipped}
            self._set([0.0] * len(found), 0)  # may run out of memory, so the layers are not stored before
            self._weights = found

    def reset(self) -> None:
        """Set the sums to zero in place: a recorded step adds to these tensors."""
        for tensor in self.tensors:
            tensor.zero_()

    def add(self) -> None:
        """Add the norms of the current gradients; a layer without a gradient counts as zero."""
        self.find_layers()
        if not self._weights:
            return
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self._weights.values()]
        norms_L = torch.stack(torch._foreach_norm(gradients)).to(self._sums_L.dtype)
        is_finite = norms_L.isfinite().all()
        self._sums_L += norms_L.where(is_finite, 0.0)
        self._steps += is_finite

    def compute(self) -> dict[str, float | None]:
        """Return the mean norm of each layer, None if no step was added; the host waits for the device."""
        steps = int(self._steps.item())
        means = [total / steps if steps else None for total in self._sums_L.tolist()]
        return dict(zip(self._weights, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"sums": dict(zip(self._weights, self._sums_L.tolist(), strict=True)), "steps": int(self._steps.item())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._weights = {name: self.model.get_parameter(f"{name}.weight".lstrip(".")) for name in state["sums"]}
        self._set(list(state["sums"].values()), state["steps"])

    def _set(self, sums: Sequence[float], steps: int) -> None:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._sums_L = torch.tensor(sums, dtype=dtype, device=self.device)
        self._steps = torch.tensor(steps, device=self.device)
