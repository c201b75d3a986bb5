"""Run the commands of resnet-train, and each of their jobs. Torch is imported only when a run begins."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_cli.commands.train import app
from resnet_cli.commands.train.planned import planned
from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.selection import select_by_of, selected_score
from resnet_cli.config.source_files import modules_in
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError, MachineError, StoppedError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.compose import run_settings
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.hydra_app.overrides import override_keys, task_overrides, with_quoted_paths
from resnet_cli.hydra_app.run_name import register_resolvers
from resnet_cli.runs.folder import RunDir, reproduced_from, reproduced_path
from resnet_cli.runs.logs import print_line, use_thread_lock_for_bars
from resnet_cli.runs.names import format_command, resume_command
from resnet_cli.runs.reading import section
from resnet_cli.session.context import RunContext
from resnet_cli.session.paths import Origin, paths_from, paths_today
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.session.stored_code import class_overrides_to_resume
from resnet_cli.session.train import train
from resnet_cli.streams import columns_of
from resnet_cli.sweeps import job as sweep_job
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.isolation import job_runner
from resnet_cli.sweeps.job_names import job_folder, sweep_name
from resnet_cli.sweeps.launch import SweepLaunch
from resnet_cli.sweeps.resume import resolve_commands, resume_sweep_command
from resnet_cli.sweeps.search.reporter import trial_reporter
from resnet_cli.sweeps.worker import LauncherContext
from resnet_cli.training.control import RunControl

# Keys of `data` that do not determine which images there are and how they are labelled, split and sampled.
LOADING_KEYS = (
    "augment", "batch_size", "eval_batch_size", "backend", "workers", "worker_timeout", "drop_last",
)  # fmt: skip


def run(arguments: Sequence[str], stop: StopSignals) -> int:
    """Run `resnet-train` with these arguments and return the exit status (see docs/reference/exit_statuses.md).

    Raises:
        StoppedError, KeyboardInterrupt: a signal stopped it.
    """
    use_thread_lock_for_bars()
    register_resolvers()
    compat.register_resolver("job_folder", job_folder)
    compat.register_resolver("sweep_name", sweep_name)
    launches: list[SweepLaunch] = []
    status = 0
    try:
        for command in list(resolve_commands(with_quoted_paths(arguments))):  # all are checked before the first trains
            launches.append(SweepLaunch(command, stop))
            origin = command.origin
            modules = modules_in(origin.modules, trusted=origin.trusts_modules)
            with modules, planned(command.arguments, command.changed_keys) as plans, launches[-1]:
                task = make_task(LauncherContext(stop, sys.argv[1:], origin, plans, command.changed_keys))
                status = max(status, app.run(command.arguments, stop, task))
                is_stopped = launches[-1].is_stopped  # read here: the launch removes the request at its end
            if is_stopped:  # by a signal, or by sweep.stop_on_failure
                break
    except Exception as error:  # including Hydra's, about the config that a plan is made for
        return print_error(error)
    finally:
        folder = next((launch.folder for launch in reversed(launches) if launch.folder), None)
        if folder:
            summary = next((launch.summary for launch in reversed(launches) if launch.summary), "")
            jobs = [job for launch in launches for job in launch.jobs.values()]
            sweep_status = _print_sweep(folder, summary, jobs)
            status = status or sweep_status
    if stop.signum is not None and folder:
        raise StoppedError(stop.signum)
    return status


def make_task(context: LauncherContext) -> app.Task:
    """Return the function that Hydra calls with the config of each job; launchers pickle it for other processes.

    Args:
        context: The signals and the command line of the launching process.
    """

    def task(composed: DictConfig) -> float | None:
        """Train one job and return the score of its best epoch, for sweepers to optimise."""
        hydra_config = HydraConfig.get()
        overrides = task_overrides(hydra_config)
        start = Path(hydra_config.runtime.cwd)
        origin = replace(context.origin, folders=context.origin.folders or (start,))
        settings = _job_settings(composed, overrides, origin)
        folder = _relative(Path(hydra_config.runtime.output_dir), start)
        stop, command = context.stop, format_command("resnet-train", context.arguments)
        if hydra_config.mode == RunMode.MULTIRUN:
            sweep = SweepDir(_relative(start / hydra_config.sweep.dir, start))
            with trial_reporter(hydra_config, select_by_of(settings)) as reporter:
                number = hydra_config.job.num if reporter is None else reporter.number
                paths = paths_from(settings, origin, RunDir(folder), needed=False)
                files = context.plans.files_of(settings.get("plan"))
                job = sweep_job.SweepJob(
                    settings, overrides, number, folder, sweep, command, paths, files, origin, context.changed
                )
                return job_runner(settings, hydra_config)(job, stop, reporter)
        own_classes = class_overrides_to_resume(settings)
        resume = resume_command(folder, *own_classes)
        try:
            stop.begin_job()
            paths = paths_today(settings, override_keys(overrides), RunDir(folder))
            run_context = RunContext(
                control=RunControl(stop), command=command, overrides=overrides, resume_command=resume, paths=paths,
                files=context.plans.files_of(settings.get("plan")), seconds_before=context.plans.seconds,
            )  # fmt: skip
            record = train(RunConfig(**settings), folder, run_context)
        except StoppedError as stopped:
            raise JobStoppedError(stopped.signum) from None
        if not settings.get("verify_resume") and settings.get("find") is None:
            rows = RunDir(folder).read_metrics()
            epochs = None if rows and rows[-1]["epoch"] < record["epochs"] else record["epochs"]
            data, loss = repeated_overrides(record)
            lines = next_commands(epochs, folder, own_classes, columns_of(sys.stdout), data, loss)
            print_line("\n".join(lines), sys.stdout)
        return selected_score(record)

    return task


def _job_settings(composed: DictConfig, overrides: Sequence[str], origin: Origin) -> Settings:
    """Return the settings of a job, with the present path of a run to reproduce.

    Args:
        composed: The composed config.
        overrides: The overrides of the job.
        origin: Where relative paths start from.
    """
    with reproduced_from(origin.folders):
        settings = run_settings(composed, overrides)
        name = settings.get("reproduce")
        return settings if name is None else {**settings, "reproduce": reproduced_path(name)}


def _relative(folder: Path, start: Path) -> Path:
    """Return the folder relative to the working folder if it is inside: that is what the user types.

    With `hydra.job.chdir=true`, the working folder is no longer `start`, that of the user; the path stays absolute.
    """
    return folder.relative_to(start) if Path.cwd() == start and folder.is_relative_to(start) else folder


def repeated_overrides(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the typed overrides that further commands about the data of a run need, and those of its loss.

    A run that reproduces another one has the data and the loss of that one.

    Args:
        record: The record of the run. The loss is needed if images have several labels, which not all losses take.
    """
    typed = list(record.get("overrides") or ())
    if isinstance(source := section(record, "reproduces").get("run"), str):
        typed = [*(RunDir(Path(source)).read_record().get("overrides") or ()), *typed]
    keys = override_keys(typed)
    data = [
        text
        for text, key in zip(typed, keys, strict=True)
        if key == "data" or (key.startswith("data.") and key.split(".")[1] not in LOADING_KEYS)
    ]
    has_label_sets = (record.get("data") or {}).get("labels") == "multi"
    loss = [text for text, key in zip(typed, keys, strict=True) if has_label_sets and key.split(".")[0] == "loss"]
    return data, loss


def next_commands(
    epochs: int | None,
    folder: Path,
    own_classes: Sequence[str],
    columns: int | None = None,
    data: Sequence[str] = (),
    loss: Sequence[str] = (),
) -> list[str]:
    """Return lines that suggest commands to type after a run.

    Args:
        epochs: Number of epochs of the run; None if it stopped early, so that more would not be trained.
        folder: Its folder.
        own_classes: Overrides that name the user's own classes, which resuming needs.
        columns: Width of the terminal; on a narrow one each meaning is printed above its command. None: no terminal.
        data: Overrides of the data, if they are not the default ones.
        loss: Overrides of the loss that training on these data needs.
    """
    place = shlex.quote(folder.as_posix())
    trust = " --trust" if own_classes else ""
    commands = {
        f"resnet-eval {place}{trust}": "test result by class, calibration, worst mistakes",
        f"resnet-predict {place} IMAGES{trust}": "classes of image files, or of a folder of them",
    }
    if epochs is not None:
        commands[resume_command(folder, *own_classes, f"trainer.epochs={2 * epochs}")] = "train this one for longer"
    if data:
        commands[shlex.join(["resnet-data", *data])] = "images of each class, damaged files, copies"
    else:
        commands["resnet-train model=resnet data=cifar10"] = "photographs (downloads 170 MB)"
    swept_data = [text for text, key in zip(data, override_keys(data), strict=True) if key != "data.fold"]
    sweep = ["resnet-train", "-m", *swept_data, *loss, "model=resnet20,plain20", "seed=0,1,2"]
    commands[shlex.join(sweep)] = "a sweep: with and without shortcuts"
    width = min(max(map(len, commands)), 80)
    lines = [f"  {command:{width}}  {meaning}" for command, meaning in commands.items()]
    if columns is not None and max(map(len, lines)) > columns:
        lines = [line for command, meaning in commands.items() for line in (f"  # {meaning}", f"  {command}")]
    return ["next:", *lines]


def _print_sweep(sweep: SweepDir, summary: str, planned: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Print a sweep's table and the command that runs its unfinished jobs; return the exit status.

    Args:
        sweep: Its folder.
        summary: Lines of a search to print after the table. A search does not run failed jobs again.
        planned: Folder names and overrides of the jobs of this command. What began in another folder with the same
            overrides, before a config file was changed, is not expected to finish.
    """
    from resnet_cli.report import format_sweep_table

    try:
        jobs = sweep.jobs()
        if any(job.record for job in jobs):
            print_line(f"\n{format_sweep_table(sweep.path)}", sys.stdout)
    except (InputError, MachineError) as error:  # the folder is missing, or cannot be read
        return print_error(error)
    waiting = sum(not job.record for job in jobs)
    if waiting:
        print_line(
            f"{waiting} of {counted(len(jobs), 'job')} {'has' if waiting == 1 else 'have'} not started", sys.stdout
        )
    if summary:
        print_line(summary, sys.stdout)
    folders, present = {sweep.path / name for name, _ in planned}, {frozenset(overrides) for _, overrides in planned}
    expected = [job for job in jobs if job.run.path in folders or frozenset(job.overrides) not in present]
    unfinished = sum(job.status not in ("finished", "pruned") or job.has_failed_to_continue for job in expected)
    if not unfinished:
        return 0
    can_resume = not summary or any(job.status not in ("finished", "pruned", "failed") for job in jobs)
    command = resume_sweep_command(_relative(sweep.path.absolute(), Path.cwd()))
    hint = f"; resume with: {command}" if can_resume else ""
    print_line(f"error: {unfinished} of {counted(len(jobs), 'job')} did not finish{hint}", sys.stderr)
    return 1
