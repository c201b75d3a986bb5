"""MLflow logger, with a database file or a server."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Annotated, Any

from resnet_cli.config.ranges import NotEmpty
from resnet_cli.loggers.base import FinalStatus, Logger, Row, flatten_scalars

STATUS: Mapping[FinalStatus, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
METRIC_OF_EVERY_ROW = "train_loss"  # its history is the list of the logged epochs
PARAMETERS_PER_REQUEST = 100  # MLflow refuses more
PARAMETER_LENGTH = 6000  # characters; MLflow refuses more
SQLITE = "sqlite:///"

if sys.platform != "win32":
    import fcntl


class MLflow(Logger):
    """Logs the run to an MLflow store: by default the SQLite file mlflow.db in the working folder.

    MLflow's telemetry is switched off unless `MLFLOW_DISABLE_TELEMETRY=false` is set.

    Args:
        experiment: The experiment that the run belongs to.
        uri: The store: `sqlite:///FILE`, or the address of a server. The default is the value of
            `MLFLOW_TRACKING_URI`, or else `sqlite:///mlflow.db`.
    """

    packages = ("mlflow", "sqlalchemy", "alembic")
    install = "resnet-cli[mlflow]"

    def __init__(self, experiment: str = "resnet-cli", uri: Annotated[str, NotEmpty()] | None = None) -> None:
        self.experiment, self.uri = experiment, uri

    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> str:
        """Resume the run of this id if the store has it, else create one, and log the epochs that it lacks."""
        # MLflow reads the variable at import; its telemetry would leave threads running.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
        file = Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
        # MLflow caches connections by address, so the address must not depend on the working folder.
        uri = f"{SQLITE}{file}" if file else uri
        with _exclusive_creation(file):
            self._client = MlflowClient(tracking_uri=uri)
            self._run_id = self._find_run(run_id) or self._create_run(folder.resolve().name)
        self._client.update_run(self._run_id, status="RUNNING")
        self._log_parameters(parameters)
        self._logged_epochs = self._logged_steps(METRIC_OF_EVERY_ROW)
        for row in rows:
            self.row(row)
        return self._run_id

    def row(self, row: Row) -> None:
        """Log an epoch unless it is logged already: MLflow cannot replace a point."""
        if row["epoch"] not in self._logged_epochs:
            self._log_metrics(flatten_scalars(row), row["epoch"])
            self._logged_epochs.add(row["epoch"])

    def end(self, status: FinalStatus, test: Mapping[str, float], epochs: int) -> None:
        """Log the test result and end the run."""
        new = {name: value for name, value in test.items() if epochs not in self._logged_steps(name)}
        self._log_metrics(new, epochs)
        self._client.set_terminated(self._run_id, status=STATUS[status])

    def _find_run(self, run_id: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            return str(self._client.get_run(run_id).info.run_id)
        except MlflowException:
            return None

    def _create_run(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment: Any = self._client.get_experiment_by_name(self.experiment)
        if experiment is None:
            with suppress(MlflowException):  # another job created it in the meantime
                self._client.create_experiment(self.experiment)
            experiment = self._client.get_experiment_by_name(self.experiment)
        return str(self._client.create_run(experiment.experiment_id, run_name=name).info.run_id)

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log the parameters; those that a resumed run has changed become tags, since MLflow's parameters are fixed."""
        from mlflow.entities import Param, RunTag

        logged = self._client.get_run(self._run_id).data.params
        current = {_valid_name(key): str(value)[:PARAMETER_LENGTH] for key, value in parameters.items()}
        new = [Param(key, value) for key, value in current.items() if key not in logged]
        changed = [RunTag(key, value) for key, value in current.items() if logged.get(key, value) != value]
        for i in range(0, len(new), PARAMETERS_PER_REQUEST):
            self._client.log_batch(self._run_id, params=new[i : i + PARAMETERS_PER_REQUEST])
        self._client.log_batch(self._run_id, tags=changed)

    def _log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)  # milliseconds
        batch = [Metric(_valid_name(key), value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self._run_id, batch)

    def _logged_steps(self, name: str) -> set[int]:
        return {metric.step for metric in self._client.get_metric_history(self._run_id, name)}


@contextmanager
def _exclusive_creation(database: Path | None) -> Iterator[None]:
    """Wait until no other process opens an SQLite store in this folder: two that create its tables corrupt the file.

    The folder is not locked on Windows, nor on file systems that cannot lock folders.
    """
    if sys.platform == "win32" or database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(database.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # released with the descriptor; a lock file would be left behind
        yield
    finally:
        os.close(descriptor)


def _valid_name(key: str) -> str:
    """Return the key with characters that MLflow does not accept replaced by underscores."""
    return re.sub(r"[^\w.:/ -]", "_", key)
