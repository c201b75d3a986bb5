"""resnet-cli: train residual image classifiers from one command, or from Python with the same parts."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_cli.commands.train.python import Run, train
    from resnet_cli.inference.classifier import load_run
    from resnet_cli.training.trainer import ClassifierTrainer

__all__ = ["ClassifierTrainer", "Run", "load_run", "train"]
_MODULES = {  # imported on first access: `resnet-train --help` must not wait for torch
    "ClassifierTrainer": "resnet_cli.training.trainer",
    "Run": "resnet_cli.commands.train.python",
    "load_run": "resnet_cli.inference.classifier",
    "train": "resnet_cli.commands.train.python",
}
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names too, for completion and for the documentation."""
    return [*globals(), *__all__]
