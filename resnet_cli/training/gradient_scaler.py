"""GradientScaler: torch's scaler of float16 losses, which transfers its scale from the device once per step."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

SKIPS_ITSELF = "_step_supports_amp_scaling"  # attribute of fused optimizers, which skip a step on the device


class GradientScaler(torch.amp.GradScaler):
    """`torch.amp.GradScaler` with the scale kept on the host until it is updated: each read waits for the device."""

    _on_host: float | None = None

    def get_scale(self) -> float:
        """Return the scale; the first call after an update waits for the device."""
        if self._on_host is None:
            self._on_host = super().get_scale()
        return self._on_host

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Take the optimizer's step unless a gradient overflows, as `torch.amp.GradScaler.step`.

        A fused optimizer is called in any case, and its kernel changes nothing if a gradient overflows. In the first
        step, torch's fused SGD allocates the momentum that the kernel would have to fill, and keeps it: the host skips
        such a step.
        """
        if not (self.is_enabled() and getattr(optimizer, SKIPS_ITSELF, False) and _creates_momentum(optimizer)):
            return super().step(optimizer, *args, **kwargs)
        setattr(optimizer, SKIPS_ITSELF, False)
        try:
            return super().step(optimizer, *args, **kwargs)
        finally:
            setattr(optimizer, SKIPS_ITSELF, True)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale after a step, as `torch.amp.GradScaler.update`."""
        self._on_host = None
        super().update(new_scale)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._on_host = None
        super().load_state_dict(state_dict)


def _creates_momentum(optimizer: Optimizer) -> bool:
    """Return True if the next step of an SGD optimizer creates the momentum of a parameter."""
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    return (
        isinstance(optimizer, torch.optim.SGD)
        and len(optimizer.state) < count
        and any(
            parameter.grad is not None and optimizer.state.get(parameter, {}).get("momentum_buffer") is None
            for group in optimizer.param_groups
            if group["momentum"]
            for parameter in group["params"]
        )
    )
