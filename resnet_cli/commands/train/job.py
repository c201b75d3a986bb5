"""What resnet-train does: its commands, and each job. Torch is imported only when a run begins."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_cli.commands.train import app
from resnet_cli.config.trust import to_name_again
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.compose import run_settings
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.hydra_app.overrides import override_keys, task_overrides
from resnet_cli.runs.names import format_command, job_folder_name, random_letters, resume_command
from resnet_cli.session.job import train
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.sweeps import job as sweep_job
from resnet_cli.sweeps import launch
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.search import sweeper


def run(arguments: Sequence[str], stop: StopSignals) -> int:
    """Run `resnet-train` with these arguments; gives the exit status (see the table in the README).

    Raises:
        StoppedError, KeyboardInterrupt: a signal ended it.
    """
    compat.register_resolver("letters", random_letters, use_cache=True)
    compat.register_resolver("job_folder", _job_folder)
    compat.register_resolver("sweep_name", _sweep_name)
    origin = launch.LauncherContext(stop, sys.argv[1:])

    def job(composed: DictConfig) -> float | None:
        return task(composed, origin)

    status, folder, closing = 0, None, ""
    try:
        for words, kept, before in launch.commands(arguments):
            with launch.SweepLaunch(kept, before, stop) as launched:
                try:
                    status = max(status, app.run(words, stop, job))
                finally:
                    folder, closing = launched.folder or folder, launched.closing or closing
    except InputError as error:
        return print_error(error)
    finally:
        if folder:
            told = _tell_sweep(folder, closing)
            status = status or told
    if stop.signum is not None and folder:
        raise StoppedError(stop.signum)
    return status


def _job_folder(*named: str) -> str:
    """The job's overrides but for those that go on with it or watch it; `named` replace those of their keys."""
    ways = {"resume", "resume_force", "verify_resume", "logger", "sweep"}
    names = dict(zip(override_keys(named), named, strict=True))
    words = []
    for override in task_overrides(HydraConfig.get()):
        [key] = override_keys([override])
        word = names.get(key, override)
        if key.split(".")[0] not in ways and (key not in names or "=" in word):
            words.append(word)
    return job_folder_name(words)


def _sweep_name() -> str:
    """The sweep's `name=`, else its `model=` with all the options, else its experiment, else the default model."""
    given = dict(override.split("=", 1) for override in task_overrides(HydraConfig.get()) if "=" in override)
    name = given.get("name") or given.get("model") or given.get("experiment")
    name = name or str(HydraConfig.get().runtime.choices["model"])
    return job_folder_name([name], limit=60)


def _tell_sweep(sweep: SweepDir, closing: str) -> int:
    """Print a sweep's table, and what runs the jobs that did not finish; gives the exit status.

    Args:
        sweep: Its folder.
        closing: What a search says after the table; failed jobs are not run again by one.
    """
    from resnet_cli.report import short_table

    try:
        jobs = sweep.jobs()
        if any(job.record for job in jobs):
            print(f"\n{short_table(sweep.path)}", flush=True)
    except InputError as error:  # the folder has gone
        return print_error(error)
    waiting = sum(not job.record for job in jobs)
    if waiting:
        print(f"{waiting} of {len(jobs)} jobs have not begun", flush=True)
    if closing:
        print(closing, flush=True)
    unfinished = sum(job.status not in ("finished", "pruned") for job in jobs)
    if not unfinished:
        return 0
    can_go_on = not closing or any(job.status not in ("finished", "pruned", "failed") for job in jobs)
    command = launch.sweep_command(_relative(sweep.path.absolute()))
    go_on = f"; go on with: {command}" if can_go_on else ""
    print(f"error: {unfinished} of {len(jobs)} jobs did not finish{go_on}", file=sys.stderr, flush=True)
    return 1


def task(composed: DictConfig, origin: launch.LauncherContext) -> float | None:
    """One job: train with the composed config; gives the best validation accuracy, for sweepers to maximise."""
    hydra_config = HydraConfig.get()
    overrides = task_overrides(hydra_config)
    settings = run_settings(composed, overrides)
    folder = _relative(Path(hydra_config.runtime.output_dir))
    stop, command = origin.stop, format_command("resnet-train", origin.typed)
    if hydra_config.mode == RunMode.MULTIRUN:
        sweep = SweepDir(_relative(Path(hydra_config.sweep.dir).absolute()))
        with sweeper.reporting(hydra_config) as report:
            number = hydra_config.job.num if report is None else report.number
            return sweep_job.run(settings, overrides, number, folder, sweep, stop, command, report)
    own = to_name_again(settings)
    try:
        stop.begin_job()
        record = train(settings, folder, stop, command, resume_command(folder, *own))
    except StoppedError as stopped:
        raise JobStoppedError(stopped.signum) from None
    if not settings.get("verify_resume"):
        print(*next_commands(record["epochs"], folder, own), sep="\n")
    best = record.get("best") or {}
    return best.get("val_accuracy")


def _relative(folder: Path) -> Path:
    """The folder as seen from the working folder, where it is below it: that is what the user types."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def next_commands(epochs: int, folder: Path, own: Sequence[str]) -> list[str]:
    """What to try after this run, as commands to type; `own` are the overrides that name the user's own classes."""
    commands = {
        resume_command(folder, *own, f"trainer.epochs={2 * epochs}"): "train this one for longer",
        "resnet-train model=resnet data=cifar10": "photographs (downloads 170 MB)",
        "resnet-train -m model=resnet20,plain20 seed=0,1,2": "a sweep: with and without shortcuts",
    }
    width = min(max(map(len, commands)), 80)
    return ["next:", *(f"  {command:{width}}  {meaning}" for command, meaning in commands.items())]
