"""resnet-train: trains, sweeps and resumes. Importing this package is cheap; `main` loads Hydra when it is called."""

from resnet_cli.commands.train.main import main, run

__all__ = ["main", "run"]
