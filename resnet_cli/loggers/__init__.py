"""Experiment loggers: services and files that record a run's metrics besides its own folder."""

from resnet_cli.loggers.base import Logger
from resnet_cli.loggers.group import LoggerGroup, require_packages
from resnet_cli.loggers.mlflow import MLflow
from resnet_cli.loggers.tensorboard import TensorBoard
from resnet_cli.loggers.wandb import WeightsAndBiases

__all__ = ["Logger", "LoggerGroup", "MLflow", "TensorBoard", "WeightsAndBiases", "require_packages"]
