"""`resnet_cli.train`: what resnet-train does, called from Python, such as from a notebook."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.commands.train.planned import planned
from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.compose import compose_settings, is_run
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.hydra_app.overrides import require_fixed_folder
from resnet_cli.hydra_app.single_run import require_single_run
from resnet_cli.loggers import require_packages
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.runs.names import format_command, resume_command
from resnet_cli.seeding import random_state_kept
from resnet_cli.session.context import RunContext
from resnet_cli.session.paths import paths_today
from resnet_cli.session.signals import StopSignals
from resnet_cli.session.stored_code import class_overrides_to_resume
from resnet_cli.session.train import train as train_run
from resnet_cli.training.control import RunControl

if TYPE_CHECKING:
    from resnet_cli.inference.classifier import Classifier


@dataclass(frozen=True)
class Run:
    """A run that has been trained.

    Args:
        path: Its folder.
        record: What `run.json` holds: status, best epoch, test result, versions and more. With `find`, which trains no
            run, what `find_lr.json` or `find_batch_size.json` holds.
        rows: The metrics of each epoch, as in `metrics.jsonl`; `pandas.DataFrame(run.rows)` is a table of them.
    """

    path: Path
    record: dict[str, Any]
    rows: list[dict[str, Any]]

    def load(self, **options: Any) -> "Classifier":
        """Return the trained net as a classifier; the options are those of `resnet_cli.load_run`.

        With `find` there is no net to load.
        """
        from resnet_cli.inference.classifier import load_run

        return load_run(self.path, **options)


def train(overrides: Sequence[str] = (), *, config_dir: str | PathLike[str] | None = None) -> Run:
    """Train one run as `resnet-train` does with these arguments, and return it.

    An interrupt finishes the step, saves `last.pt` and raises `KeyboardInterrupt`; `train(["resume=..."])` continues.
    A second interrupt raises it without waiting for the step and the save. The caller's process goes on in either case.
    The global random state of torch is that of before the call afterwards.

    Args:
        overrides: `group=option` and `key=value`, as on the command line: `["model=resnet20", "data=digits"]`.
        config_dir: A folder of config groups of your own, as `--config-dir` names it.

    Raises:
        InputError: The config, the data or a path is wrong; its text has a line for each problem.
        DivergedError: Training met a non-finite number.
        MachineError: The run folder cannot be written.
        ComputationError: The device cannot compute a step, such as out of memory.
        NotIdenticalError: `reproduce` is set, and the results differ.
        KeyboardInterrupt: A signal stopped the run.
    """
    try:
        with random_state_kept():
            return _train(overrides, config_dir)
    except Exception as error:
        found = as_user_error(error)
        if found is None:
            raise
        # Frames of this package do not help the caller, so the traceback shows the calling line alone.
        raise found.with_traceback(None) from None


def _train(overrides: Sequence[str], config_dir: str | PathLike[str] | None) -> Run:
    """Train one run; see `train`."""
    arguments = _as_arguments(overrides)
    if config_dir is not None:
        if not isinstance(config_dir, str | PathLike):
            raise InputError(f"train: config_dir={config_dir!r}: must be the path of a folder")
        config_dir = str(config_dir)
    option = next((argument for argument in arguments if argument.startswith("-")), None)
    if option is not None:
        raise InputError(f"train: {option}: takes settings only; a sweep is a loop of calls, or resnet-train -m")
    run = next(filter(is_run, arguments), None)
    if run is not None and expand_home(run, "RUN").exists():  # `compose_settings` would take it as the run to resume
        raise InputError(f"train: {run}: takes settings only; resume={find_run(run).path} continues this run")
    options = [] if config_dir is None else ["--config-dir", config_dir]
    with planned([*options, *arguments]) as plans:
        composed = compose_settings(arguments, config_dir=config_dir)
    settings, run_dir = composed.settings, composed.run_dir
    run_dir = str(expand_home(run_dir, "hydra.run.dir")) if run_dir.startswith("~") else run_dir
    folder = _relative(Path(run_dir))
    if settings.get("verify_resume"):
        raise InputError("verify_resume: needs processes of its own; use resnet-train verify_resume=true")
    require_single_run(settings, run_dir, composed.swept)
    require_packages(settings.get("logger"))
    require_fixed_folder(settings, is_fixed=composed.is_run_dir_fixed)
    paths = paths_today(settings, composed.keys, RunDir(folder))
    with StopSignals(ends_process=False) as stop:  # it is the caller's process
        context = RunContext(
            control=RunControl(stop), command=format_command("resnet-train", arguments), overrides=composed.overrides,
            resume_command=resume_command(folder, *class_overrides_to_resume(settings)), paths=paths,
            files=plans.files_of(settings.get("plan")), seconds_before=plans.seconds,
        )  # fmt: skip
        try:
            stop.begin_job()
            record = train_run(RunConfig(**settings), folder, context)
        except StoppedError as stopped:
            raise KeyboardInterrupt(f"stopped by {signal.Signals(stopped.signum).name}") from None
    return Run(folder, record, RunDir(folder).read_metrics())


def _as_arguments(overrides: object) -> list[str]:
    """Return the settings as texts.

    Raises:
        InputError: They are no list of strings, of which paths are a kind.
    """
    if isinstance(overrides, str):
        raise InputError(f'train: takes a list of settings, such as ["{overrides}"]')
    if isinstance(overrides, bytes | Mapping) or not isinstance(overrides, Iterable):
        kind = type(overrides).__name__
        raise InputError(f'train: takes a list of settings, such as ["model=resnet20"]; this is of type {kind}')
    settings = list(overrides)
    wrong = [setting for setting in settings if not isinstance(setting, str | PathLike)]
    if wrong:
        raise InputError(*(f'train: {value!r}: settings are strings, such as "trainer.epochs=5"' for value in wrong))
    return list(map(str, settings))


def _relative(folder: Path) -> Path:
    """Return a folder relative to the working folder if it is inside."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
