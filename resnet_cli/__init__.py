"""resnet-cli: train residual image classifiers from one command, or from Python with the same parts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_cli.training.trainer import ClassifierTrainer

__all__ = ["ClassifierTrainer"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import the trainer when it is asked for: `resnet-train --help` must not wait for torch."""
    if name == "ClassifierTrainer":
        from resnet_cli.training.trainer import ClassifierTrainer

        return ClassifierTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
