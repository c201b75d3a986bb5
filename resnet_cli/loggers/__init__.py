"""Trackers: where a run's numbers go besides its own folder."""

from resnet_cli.loggers.base import Logger
from resnet_cli.loggers.group import LoggerGroup, missing_packages
from resnet_cli.loggers.mlflow import MLflow
from resnet_cli.loggers.tensorboard import TensorBoard
from resnet_cli.loggers.wandb import WeightsAndBiases

__all__ = ["Logger", "LoggerGroup", "MLflow", "TensorBoard", "WeightsAndBiases", "missing_packages"]
