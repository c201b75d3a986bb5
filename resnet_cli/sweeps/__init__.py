"""Many runs: a sweep's folder, its jobs and how they are launched."""

from resnet_cli.sweeps.folder import Sweep

__all__ = ["Sweep"]
