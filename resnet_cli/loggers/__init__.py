"""Trackers: where a run's numbers go besides its own folder."""

from resnet_cli.loggers.base import Tracker
from resnet_cli.loggers.group import Trackers, missing_packages
from resnet_cli.loggers.mlflow import MLflow
from resnet_cli.loggers.tensorboard import TensorBoard
from resnet_cli.loggers.wandb import WeightsAndBiases

__all__ = ["MLflow", "TensorBoard", "Tracker", "Trackers", "WeightsAndBiases", "missing_packages"]
