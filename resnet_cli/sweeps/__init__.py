"""Sweeps: many runs in one folder, how they are launched, and how they are resumed."""

from resnet_cli.sweeps.folder import Sweep

__all__ = ["Sweep"]
