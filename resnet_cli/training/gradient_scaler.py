"""GradientScaler: torch's scaler of float16 losses, which transfers its scale from the device once per step."""

from typing import Any

import torch
from torch import Tensor


class GradientScaler(torch.amp.GradScaler):
    """`torch.amp.GradScaler` with the scale kept on the host until it is updated: each read waits for the device."""

    _on_host: float | None = None

    def get_scale(self) -> float:
        """Return the scale; the first call after an update waits for the device."""
        if self._on_host is None:
            self._on_host = super().get_scale()
        return self._on_host

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale after a step, as `torch.amp.GradScaler.update`."""
        self._on_host = None
        super().update(new_scale)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._on_host = None
        super().load_state_dict(state_dict)
