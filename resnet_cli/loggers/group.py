"""All trackers of a run: one that fails is told in one line and is silent from then on."""

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
from resnet_cli.loggers.base import End, Logger, Row

logger = logging.getLogger("resnet_cli")

ENDS: Mapping[str, End] = {"finished": "finished", "interrupted": "interrupted", "pruned": "interrupted"}
FAILURE = (Exception, SystemExit)  # a library's sys.exit would end a whole sweep


def missing_packages(nodes: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Refuse trackers whose packages are not installed; the packages are looked for, not imported.

    Args:
        nodes: The config's `logger`, checked.

    Raises:
        InputError: a line for each, with what to type.
    """
    problems = []
    for name, node in (nodes or {}).items():
        try:
            tracker = locate(node["_target_"])
        except Exception as error:  # a user's module can fail in any way while it is imported
            problems.append(f"logger.{name}._target_: importing {node['_target_']} failed: {error}")
            continue
        missing = [package for package in getattr(tracker, "packages", ()) if not _is_installed(package)]
        if missing:
            how = f": pip install '{tracker.install or ' '.join(missing)}'"
            problems.append(f"logger.{name}: {', '.join(missing)} not installed{how}")
    if problems:
        raise InputError(*problems)


def _is_installed(package: str) -> bool:
    """Whether there is a module of this name; a mere folder is none, such as the `wandb` that runs leave behind."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


class LoggerGroup:
    """The trackers of one run, by the names that they have in the config.

    Their calls are kept quiet: no log lines or warnings of their libraries reach the terminal. What they change in the
    environment is put back at the end, for the next job of a sweep.
    """

    def __init__(self, trackers: Mapping[str, Logger]) -> None:
        self._working = dict(trackers)
        self._environment: dict[str, str | None] = {}  # what the variables were that trackers have changed

    def start(
        self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], ids: Mapping[str, str]
    ) -> dict[str, str]:
        """Open all; gives `ids` with those of runs that were opened. See `Tracker.start`."""
        found = dict(ids)

        def open_one(name: str, tracker: Logger) -> None:
            run_id = tracker.start(folder, parameters, rows, ids.get(name))
            if run_id is not None:
                found[name] = run_id

        self._each("start", open_one)
        return found

    def row(self, row: Row) -> None:
        """Tell all of an epoch."""
        self._each(f"epoch {row['epoch']}", lambda _, tracker: tracker.row(row))

    def end(self, record: Mapping[str, Any], epochs: int) -> None:
        """Close all, with the status and the test result, if there is one, of the run's record."""
        status = ENDS.get(str(record.get("status")), "failed")
        test = {f"test_{name}": record["test"][name] for name in ("accuracy", "loss") if record.get("test")}
        try:
            self._each("end", lambda _, tracker: tracker.end(status, test, epochs), is_last=True)
        finally:
            self._working.clear()
            for name, value in self._environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def _each(self, moment: str, act: Callable[[str, Logger], None], *, is_last: bool = False) -> None:
        for name, tracker in list(self._working.items()):
            try:
                with self._quiet():
                    act(name, tracker)
            except FAILURE as error:
                del self._working[name]
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logger.warning("warning: logger.%s failed (%s: %s); the run goes on without it", name, moment, reason)
                if not is_last:
                    with suppress(*FAILURE), self._quiet():
                        tracker.end("failed", {}, 0)  # it may hold processes and files

    @contextmanager
    def _quiet(self) -> Iterator[None]:
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
                    self._environment.setdefault(name, environment.get(name))
