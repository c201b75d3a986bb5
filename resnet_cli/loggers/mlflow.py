"""MLflow, with a database file or a server."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

from resnet_cli.loggers.base import End, Logger, Row, scalars

STATUS: Mapping[End, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
ALWAYS = "train_loss"  # in each row, so it tells which epochs are there
MOST_PARAMETERS = 100  # in one request
LONGEST_PARAMETER = 6000
SQLITE = "sqlite:///"

if sys.platform != "win32":
    import fcntl


class MLflow(Logger):
    """Logs the run to an MLflow store: by default the SQLite file mlflow.db in the working folder.

    MLflow's reports to its makers are off unless `MLFLOW_DISABLE_TELEMETRY=false` asks for them.

    Args:
        experiment: The experiment that the run is part of.
        uri: The store: `sqlite:///FILE`, or a server's address; null is what `MLFLOW_TRACKING_URI` says, else
            `sqlite:///mlflow.db`.
    """

    packages = ("mlflow", "sqlalchemy", "alembic")
    install = "resnet-cli[mlflow]"

    def __init__(self, experiment: str = "resnet-cli", uri: str | None = None) -> None:
        self.experiment, self.uri = experiment, uri

    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> str:
        """Open the run of this id if the store has it, else a new one, and log the epochs that it lacks."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; else threads that stay
        from mlflow import MlflowClient

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
        file = Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
        uri = f"{SQLITE}{file}" if file else uri  # MLflow keeps connections by address, whatever the working folder
        with _one_maker(file):
            self._client = MlflowClient(tracking_uri=uri)
            self._run_id = self._known(run_id) or self._new(folder.resolve().name)
        self._client.update_run(self._run_id, status="RUNNING")
        self._log_parameters(parameters)
        self._logged = self._steps(ALWAYS)
        for row in rows:
            self.row(row)
        return self._run_id

    def row(self, row: Row) -> None:
        """Log an epoch unless it is there: nothing that MLflow holds can be replaced."""
        if row["epoch"] not in self._logged:
            self._log(scalars(row), row["epoch"])
            self._logged.add(row["epoch"])

    def end(self, status: End, test: Mapping[str, float], epochs: int) -> None:
        """Log the test result and end the run."""
        self._log({name: value for name, value in test.items() if epochs not in self._steps(name)}, epochs)
        self._client.set_terminated(self._run_id, status=STATUS[status])

    def _known(self, run_id: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            return str(self._client.get_run(run_id).info.run_id)
        except MlflowException:
            return None

    def _new(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            with suppress(MlflowException):  # another job was faster
                self._client.create_experiment(self.experiment)
            found = self._client.get_experiment_by_name(self.experiment)
        return str(self._client.create_run(found.experiment_id, run_name=name).info.run_id)

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Parameters of a run cannot change in MLflow: what a resumed run has otherwise becomes a tag."""
        from mlflow.entities import Param, RunTag

        there = self._client.get_run(self._run_id).data.params
        given = {_name(key): str(value)[:LONGEST_PARAMETER] for key, value in parameters.items()}
        new = [Param(key, value) for key, value in given.items() if key not in there]
        changed = [RunTag(key, value) for key, value in given.items() if there.get(key, value) != value]
        for i in range(0, len(new), MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=new[i : i + MOST_PARAMETERS])
        self._client.log_batch(self._run_id, tags=changed)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self._client.log_batch(self._run_id, [Metric(_name(key), value, now, step) for key, value in numbers.items()])

    def _steps(self, name: str) -> set[int]:
        return {metric.step for metric in self._client.get_metric_history(self._run_id, name)}


@contextmanager
def _one_maker(database: Path | None) -> Iterator[None]:
    """Wait for other processes that open a SQLite store in this folder: two that make its tables spoil the file.

    Nothing is held on Windows, nor on file systems that lock no folders.
    """
    if sys.platform == "win32" or database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(database.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with the descriptor; a lock file would stay behind
        yield
    finally:
        os.close(descriptor)


def _name(key: str) -> str:
    """The key with the letters that MLflow takes."""
    return re.sub(r"[^\w.:/ -]", "_", key)
