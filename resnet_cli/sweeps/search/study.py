"""The Optuna study of a search: its trials by number, and the database that stores them. Imports Optuna when opened."""

import errno
import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnet_cli.config.counts import counted
from resnet_cli.config.paths import is_path_key
from resnet_cli.config.run_length import BUDGET
from resnet_cli.config.selection import format_score
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.errors import InputError, MachineError
from resnet_cli.sweeps.job_facts import RECORDS
from resnet_cli.sweeps.job_keys import (
    KEYS_NOT_IN_NAMES,
    KEYS_OF_PATHS,
    KEYS_OF_RESULTS,
    is_identifying,
    normal_path,
)
from resnet_cli.sweeps.search.space import Space

LOCK_SECONDS = 60.0  # that a job waits for other jobs to write to an SQLite file
Sampler = Literal["tpe", "random"]
Direction = Literal["maximize", "minimize"]
STATE_NAMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "interrupted"}


@dataclass(frozen=True)
class Study:
    """An open Optuna study."""

    study: Any  # optuna.Study
    storage: Any  # optuna.storages.RDBStorage

    def trial_numbers(self, *states: str) -> list[int]:
        """Return the numbers of the trials in these states."""
        return [trial.number for trial in self.study.get_trials(deepcopy=False) if trial.state.name in states]

    def count_trials(self, *states: str) -> int:
        """Return the number of trials in these states."""
        return len(self.trial_numbers(*states))

    def count_started(self) -> int:
        """Return the number of trials that have started, without those that only wait in Optuna's queue."""
        return self.count_trials(*STATE_NAMES)

    def start_trial(self, sampler: Sampler, seed: int) -> int:
        """Start a trial and return its number. Its values are sampled when they are first asked for.

        The sampler's seed is a function of the search's seed and the number, so that an interrupted search continues
        with the values that it would have chosen.
        """
        import optuna

        number = len(self.study.get_trials(deepcopy=False))
        digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=4).digest()
        make = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
        self.study.sampler = make(seed=int.from_bytes(digest, "big"))
        return int(self.study.ask().number)

    def load_trial(self, number: int) -> Any:
        """Return an `optuna.trial.Trial`, which samples values and takes reports."""
        import optuna

        return optuna.trial.Trial(self.study, self._trial_id(number))

    def set_folder(self, number: int, name: str) -> None:
        """Store the name of the folder of a trial's job."""
        self.storage.set_trial_user_attr(self._trial_id(number), "folder", name)

    def finish_trial(self, number: int, state: str, value: float | None = None) -> None:
        """Finish a trial in a state of `optuna.trial.TrialState`; one that is complete without a value has failed."""
        import optuna

        final = optuna.trial.TrialState[state if state != "COMPLETE" or value is not None else "FAIL"]
        self.study.tell(number, value if final == optuna.trial.TrialState.COMPLETE else None, state=final)

    def store_space(self, space: Space) -> None:
        """Store the overrides of the search, for `require_same_search`."""
        self.study.set_user_attr("overrides", _identifying_overrides(space))
        self.study.set_user_attr("paths", _overrides_of_results(space))

    def require_same_search(
        self, space: Space, direction: Direction, changed: Collection[str] = (), base: str | None = None
    ) -> None:
        """Raise an error unless the study was made for this search.

        Args:
            space: The search space.
            direction: The direction of the search.
            changed: Keys that were changed when the sweep was resumed, which may have other paths.
            base: The working folder of the sweep's commands.

        Raises:
            InputError: one line for each override that differs.
        """
        attributes, current = self.study.user_attrs, _identifying_overrides(space)
        stored = attributes.get("overrides")
        if stored is None:
            return
        if "paths" in attributes:  # versions up to 0.2.0 did not store these
            stored, current = {**stored, **attributes["paths"]}, {**current, **_overrides_of_results(space)}
        problems = [
            f"{current.get(key) or key}: the existing search has {stored.get(key) or 'no such override'}; use another "
            f"hydra.sweep.dir for another search{_way_to_move(key) if key in current and key in stored else ''}"
            for key in dict.fromkeys([*current, *stored])
            if _normal(key, current.get(key), base) != _normal(key, stored.get(key), base)
            and not (key in changed and (key == BUDGET or is_path_key(key) or not is_identifying(key)))
        ]
        stored_direction = self.study.direction.name.lower()
        if stored_direction != direction:
            problems.append(
                f"hydra.sweeper.direction={direction}: the existing search has {stored_direction}; use another "
                "hydra.sweep.dir for another search"
            )
        if problems:
            raise InputError(*problems)

    def format_summary(self, space: Space, folder: Path, select_by: str) -> str:
        """Return lines with the number of trials in each state and the best trial.

        Args:
            space: The search space.
            folder: The sweep's folder.
            select_by: The metric that the trials are compared by.
        """
        counts = {name: self.count_trials(state) for state, name in STATE_NAMES.items()}
        total = sum(counts.values())
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        line = f"search: {counted(total, 'trial')}: {shown}"
        if not counts["complete"]:
            return line
        best = self.study.best_trial
        sampled = [override.lstrip("+") for override in space.overrides(best) if override not in space.fixed]
        score = format_score(select_by, best.value)
        return f"{line}\nbest: {score}, {' '.join(sampled)} ({folder / best.user_attrs['folder']})"

    def _trial_id(self, number: int) -> int:
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return int(self.storage.get_trial_id_from_study_id_trial_number(study_id, number))


@contextmanager
def open_study(hydra: Any) -> Iterator[Study]:
    """Open the study of a search, creating it if it does not exist.

    Args:
        hydra: The node `hydra` of the composed config of the search, or of one of its jobs.

    Raises:
        InputError: the storage cannot be opened.
        MachineError: the storage fails later.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = hydra.sweeper
    pruners: dict[str, Callable[[], Any]] = {
        "none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner,
        "halving": optuna.pruners.SuccessiveHalvingPruner, "hyperband": optuna.pruners.HyperbandPruner,
    }  # fmt: skip
    with ExitStack() as resources:
        try:
            storage = _open_storage(options.storage, default_storage_file(hydra))
            resources.callback(storage.engine.dispose)
            resources.callback(storage.remove_session)
            study = optuna.create_study(
                storage=storage, study_name=options.study_name, direction=options.direction, load_if_exists=True,
                pruner=pruners[options.pruner](), sampler=optuna.samplers.RandomSampler(),
            )  # fmt: skip
        except Exception as error:  # database drivers raise exceptions of their own
            place = options.storage or default_storage_file(hydra)
            raise InputError(f"hydra.sweeper.storage: {place}: {_one_line(error)}") from None
        try:
            yield Study(study, storage)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise MachineError(errno.EIO, f"hydra.sweeper.storage: {_one_line(error.__cause__ or error)}") from None


def default_storage_file(hydra: Any) -> Path:
    """Return the file that stores a search whose config names no storage, also in a job that is in its own folder."""
    return Path(str(hydra.runtime.cwd)).absolute() / str(hydra.sweep.dir) / "search.db"


def _open_storage(url: str | None, default_file: Path) -> Any:
    from optuna.storages import RDBStorage

    if url is not None:
        is_sqlite = url.startswith("sqlite")
        return RDBStorage(url, {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else None)

    def connect() -> sqlite3.Connection:  # not by a URL, which cannot express every path
        return sqlite3.connect(default_file, timeout=LOCK_SECONDS, check_same_thread=False)

    return RDBStorage("sqlite:///search.db", {"creator": connect})


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _way_to_move(key: str) -> str:
    """Return the end of an error that says how a search goes on with the new path of a file; empty for other keys."""
    can_move = is_path_key(key) and key in {*SAFE_TO_CHANGE, *RECORDS}
    return f", or -m resume=SWEEP {key}=PATH if it has moved" if can_move else ""


def _identifying_overrides(space: Space) -> dict[str, str]:
    """Return the overrides that identify a search, such as the number of epochs, but not the device."""
    return {key: override for key, override in space.overrides_by_key.items() if is_identifying(key)}


def _overrides_of_results(space: Space) -> dict[str, str]:
    """Return the overrides that do not identify jobs, but decide what they are trained on or what is measured."""
    keys = {*KEYS_OF_PATHS, *KEYS_OF_RESULTS} - KEYS_NOT_IN_NAMES
    return {key: override for key, override in space.overrides_by_key.items() if key in keys}


def _normal(key: str, override: str | None, base: str | None) -> str | None:
    """Return one spelling of an override, which may name a path."""
    if override is None or key not in KEYS_OF_PATHS:
        return override
    return normal_path(override.partition("=")[2], base)
