"""Trackers: where a run's numbers go besides its own folder."""

from resnet_cli.trackers.mlflow import MLflow
from resnet_cli.trackers.several import Trackers, missing_packages
from resnet_cli.trackers.tensorboard import TensorBoard
from resnet_cli.trackers.tracker import Tracker
from resnet_cli.trackers.wandb import WeightsAndBiases

__all__ = ["MLflow", "TensorBoard", "Tracker", "Trackers", "WeightsAndBiases", "missing_packages"]
