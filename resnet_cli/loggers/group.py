"""All loggers of a run: one that fails is reported in one line and not called again."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from resnet_cli.config.signatures import locate
from resnet_cli.errors import InputError
from resnet_cli.loggers.base import FinalStatus, Logger, Row

logger = logging.getLogger("resnet_cli")

# How loggers see the status in `run.json`; any other status is a failure.
FINAL_STATUS: Mapping[str, FinalStatus] = {
    "finished": "finished", "interrupted": "interrupted", "pruned": "interrupted",
}  # fmt: skip
TEST_SCORES = ("accuracy", "loss", "tta_accuracy", "tta_loss")  # of the record's test result
LOGGER_ERRORS = (Exception, SystemExit)  # a library that calls sys.exit would end a whole sweep


def require_packages(nodes: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Raise an error if a logger's packages are not installed; the packages are searched for, not imported.

    Args:
        nodes: The config's `logger`, validated.

    Raises:
        InputError: one line for each such logger, with the command that installs its packages.
    """
    problems = []
    for name, node in (nodes or {}).items():
        try:
            logger_class = locate(node["_target_"])
        except Exception as error:  # importing a user's module can raise anything
            problems.append(f"logger.{name}._target_: importing {node['_target_']} failed: {error}")
            continue
        missing = [package for package in getattr(logger_class, "packages", ()) if not _is_installed(package)]
        if missing:
            command = f"pip install '{logger_class.install or ' '.join(missing)}'"
            problems.append(f"logger.{name}: {', '.join(missing)} not installed: {command}")
    if problems:
        raise InputError(*problems)


def _is_installed(package: str) -> bool:
    """Return whether a module of this name can be imported.

    A plain folder does not count, since `wandb` leaves a folder of its own name in the working folder.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


class LoggerGroup:
    """The loggers of one run, by their names in the config.

    Log records and warnings of the loggers' libraries are suppressed during each call. Environment variables that the
    loggers change are restored at the end, for the next job of a sweep.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self._active = dict(loggers)
        self._changed_environment: dict[str, str | None] = {}  # former values of the variables that loggers changed

    def start(
        self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_ids: Mapping[str, str]
    ) -> dict[str, str]:
        """Start all loggers and return `run_ids`, updated with the ids of the runs that they opened.

        See `Logger.start` for the arguments.
        """
        opened = dict(run_ids)

        def start_one(name: str, one: Logger) -> None:
            run_id = one.start(folder, parameters, rows, run_ids.get(name))
            if run_id is not None:
                opened[name] = run_id

        self._call_each("start", start_one)
        return opened

    def row(self, row: Row) -> None:
        """Log the metrics of an epoch."""
        self._call_each(f"epoch {row['epoch']}", lambda _, one: one.row(row))

    def end(self, record: Mapping[str, Any], epochs: int) -> None:
        """Close all loggers with the status and the test result, if any, of the run's record."""
        status = FINAL_STATUS.get(str(record.get("status")), "failed")
        found = record.get("test") or {}
        test = {f"test_{name}": found[name] for name in TEST_SCORES if found.get(name) is not None}
        try:
            self._call_each("end", lambda _, one: one.end(status, test, epochs), is_last=True)
        finally:
            self._active.clear()
            self._restore_environment()

    def _call_each(self, stage: str, call: Callable[[str, Logger], None], *, is_last: bool = False) -> None:
        """Call a function with the name and the object of each logger; drop a logger whose call raises."""
        for name, one in list(self._active.items()):
            try:
                with self._quiet():
                    call(name, one)
            except LOGGER_ERRORS as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logger.warning("warning: logger.%s failed (%s: %s); the run continues without it", name, stage, reason)
                self._drop(name, close=not is_last)

    def _drop(self, name: str, *, close: bool) -> None:
        """Stop using a logger; close it if asked to, since it may hold processes and files."""
        failed = self._active.pop(name)
        if close:
            with suppress(*LOGGER_ERRORS), self._quiet():
                failed.end("failed", {}, 0)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Suppress log records and warnings, and note which environment variables change."""
        environment, disabled = dict(os.environ), logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(disabled)
            for name in environment.keys() | os.environ.keys():
                if environment.get(name) != os.environ.get(name):
                    self._changed_environment.setdefault(name, environment.get(name))

    def _restore_environment(self) -> None:
        for name, value in self._changed_environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
