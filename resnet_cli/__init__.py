"""resnet-cli: train residual image classifiers from one command, or from Python with the same parts."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_cli.inference.classifier import load_run
    from resnet_cli.training.trainer import ClassifierTrainer

__all__ = ["ClassifierTrainer", "load_run"]
_HOMES = {  # imported when they are asked for: `resnet-train --help` must not wait for torch
    "ClassifierTrainer": "resnet_cli.training.trainer",
    "load_run": "resnet_cli.inference.classifier",
}
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
