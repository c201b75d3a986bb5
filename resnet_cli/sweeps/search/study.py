"""A search's Optuna study: its trials by number, and the database that they are in. Optuna is imported late."""

import errno
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.errors import InputError, MachineError
from resnet_cli.sweeps.search.space import Space

LOCK_SECONDS = 60.0  # that a job waits for others to write to an SQLite file
Sampler = Literal["tpe", "random"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Study:
    """An Optuna study that is open."""

    study: Any
    storage: Any

    def numbers(self, *states: str) -> list[int]:
        """Numbers of the trials in these states."""
        return [trial.number for trial in self.study.get_trials(deepcopy=False) if trial.state.name in states]

    def count(self, *states: str) -> int:
        """How many trials are in these states."""
        return len(self.numbers(*states))

    def begun(self) -> int:
        """How many trials there are; those that somebody queued are none yet."""
        return self.count("RUNNING", "COMPLETE", "PRUNED", "FAIL")

    def ask(self, sampler: Sampler, seed: int) -> int:
        """Begin a trial; gives its number. Its values are drawn when they are asked for."""
        import optuna

        number = len(self.study.get_trials(deepcopy=False))
        digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=4).digest()
        make = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
        self.study.sampler = make(seed=int.from_bytes(digest, "big"))
        return int(self.study.ask().number)

    def trial(self, number: int) -> Any:
        """A trial to draw values for and to report to."""
        import optuna

        return optuna.trial.Trial(self.study, self._id(number))

    def set_folder(self, number: int, name: str) -> None:
        """Note where a trial's job runs."""
        self.storage.set_trial_user_attr(self._id(number), "folder", name)

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        """End a trial."""
        import optuna

        known = optuna.trial.TrialState[state if state != "COMPLETE" or value is not None else "FAIL"]
        self.study.tell(number, value if known == optuna.trial.TrialState.COMPLETE else None, state=known)

    def remember(self, space: Space) -> None:
        """Note what is searched, for `require_same`."""
        self.study.set_user_attr("overrides", _identity(space))

    def require_same(self, space: Space, direction: Direction) -> None:
        """Refuse to go on with another search.

        Raises:
            InputError: a line for each override that differs.
        """
        before, now = self.study.user_attrs.get("overrides"), _identity(space)
        if before is None:
            return
        changed = [
            f"{now.get(key) or key}: the search that is there has {before.get(key) or 'no such override'}"
            for key in dict.fromkeys([*now, *before])
            if now.get(key) != before.get(key)
        ]
        own = self.study.direction.name.lower()
        if own != direction:
            changed.append(f"hydra.sweeper.direction={direction}: the search that is there has {own}")
        if changed:
            raise InputError(*(f"{problem}; another hydra.sweep.dir makes another search" for problem in changed))

    def summary(self, space: Space, folder: Path) -> str:
        """How many trials there are, and the best one."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "interrupted"}
        counts = {name: self.count(state) for state, name in names.items()}
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        line = f"search: {self.begun()} trial{'s' if self.begun() != 1 else ''}: {told}"
        if not counts["complete"]:
            return line
        best = self.study.best_trial
        chosen = [override.lstrip("+") for override in space.overrides(best) if override not in space.fixed]
        return f"{line}\nbest: {best.value:.2f} %, {' '.join(chosen)} ({folder / best.user_attrs['folder']})"

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return int(self.storage.get_trial_id_from_study_id_trial_number(study, number))


@contextmanager
def opened(hydra: Any) -> Iterator[Study]:
    """The study of a search, made if there is none; `hydra` is that of its composed config, or of one of its jobs'.

    Raises:
        InputError: the storage cannot be opened.
        MachineError: it fails later.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = hydra.sweeper
    pruners: dict[str, Callable[[], Any]] = {
        "none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner,
        "halving": optuna.pruners.SuccessiveHalvingPruner, "hyperband": optuna.pruners.HyperbandPruner,
    }  # fmt: skip
    with ExitStack() as stack:
        try:
            storage = _storage(options.storage, default_file(hydra))
            stack.callback(storage.engine.dispose)
            stack.callback(storage.remove_session)
            study = optuna.create_study(
                storage=storage, study_name=options.study_name, direction=options.direction, load_if_exists=True,
                pruner=pruners[options.pruner](), sampler=optuna.samplers.RandomSampler(),
            )  # fmt: skip
        except Exception as error:  # whatever a driver raises
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"hydra.sweeper.storage: {options.storage or default_file(hydra)}: {reason}") from None
        try:
            yield Study(study, storage)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise MachineError(errno.EIO, f"hydra.sweeper.storage: {reason}") from None


def default_file(hydra: Any) -> Path:
    """Where a search is kept that is given no storage."""
    return Path(str(hydra.sweep.dir)).absolute() / "search.db"


def _storage(url: str | None, file: Path) -> Any:
    from optuna.storages import RDBStorage

    if url is not None:
        is_sqlite = url.startswith("sqlite")
        return RDBStorage(url, {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else None)

    def connect() -> sqlite3.Connection:  # a URL could not say every path
        return sqlite3.connect(file, timeout=LOCK_SECONDS, check_same_thread=False)

    return RDBStorage("sqlite:///search.db", {"creator": connect})


def _identity(space: Space) -> dict[str, str]:
    """Overrides that make a search this one: how many epochs, but not how its jobs start or on what device."""
    leave_out = {*CONTROL_KEYS, *(SAFE_TO_CHANGE - {"trainer.epochs"})}
    return {key: text for key, text in space.given.items() if not {key, key.split(".")[0]} & leave_out}
