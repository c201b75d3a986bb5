"""What resnet-train does: the Hydra app that trains. Torch is imported only when a run begins."""

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_cli.commands import compatibility
from resnet_cli.commands.arguments import CONFIG_FOLDER, hydra_arguments, override_keys, task_overrides
from resnet_cli.commands.callback import RunFailedError
from resnet_cli.commands.compose import run_settings, use_working_folder
from resnet_cli.commands.explain import explained, tell
from resnet_cli.commands.signals import JobStoppedError, StopSignals
from resnet_cli.errors import JobFailedError, StoppedError
from resnet_cli.run import RunDir, command_line, job_folder, quoted, random_letters, resume_command
from resnet_cli.trust import to_name_again


def run(arguments: Sequence[str], stop: StopSignals) -> int:
    """Run `resnet-train` with these arguments; gives the exit status (see the table in the README).

    Raises:
        StoppedError, KeyboardInterrupt: a signal ended it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, so that its errors can be told in a line
    try:
        _start_hydra(hydra_arguments(arguments), stop)
    except SystemExit as done:  # --help and the like
        return int(done.code or 0)
    except RunFailedError as failed:
        if isinstance(failed.error, JobStoppedError):
            raise StoppedError(failed.error.signum) from None
        return tell(failed.error)
    except Exception as error:
        return tell(error)
    return 0


def _start_hydra(arguments: Sequence[str], stop: StopSignals) -> None:
    """Let Hydra compose the config and call `task` for each job."""
    typed = sys.argv[1:]

    def job(composed: DictConfig) -> float | None:
        return task(composed, stop, typed)

    compatibility.register_resolver("letters", random_letters, use_cache=True)
    compatibility.register_resolver("job_folder", _job_folder)
    compatibility.register_resolver("sweep_name", _sweep_name)
    use_working_folder()
    stop()  # from here to the task signals are noted: raised inside Hydra they would leave its empty folder behind
    sys.argv[1:] = arguments
    try:
        with compatibility.patched_argparse():
            hydra.main(config_path=str(CONFIG_FOLDER), config_name="train", **compatibility.main_options())(job)()
    finally:
        sys.argv[1:] = typed


def _job_folder() -> str:
    """The job's overrides but for those that go on with it or watch it: the same folder for both."""
    overrides = task_overrides(HydraConfig.get())
    ways = {"resume", "resume_force", "verify_resume", "logger"}
    return job_folder([override for override in overrides if override_keys([override])[0].split(".")[0] not in ways])


def _sweep_name() -> str:
    """The sweep's `name=`, else its `model=` with all the options, else its experiment, else the default model."""
    given = dict(override.split("=", 1) for override in task_overrides(HydraConfig.get()) if "=" in override)
    name = given.get("name") or given.get("model") or given.get("experiment")
    name = name or str(HydraConfig.get().runtime.choices["model"])
    return job_folder([name], limit=60)


def task(composed: DictConfig, stop: StopSignals, typed: Sequence[str]) -> float | None:
    """One job: train with the composed config; gives the best validation accuracy, for sweepers to maximise."""
    hydra_config = HydraConfig.get()
    overrides = task_overrides(hydra_config)
    settings = run_settings(composed, overrides)
    folder = _relative(Path(hydra_config.runtime.output_dir))
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    if sweeping:
        print(f"\njob {hydra_config.job.num}: {' '.join(overrides)}", flush=True)
    own = to_name_again(settings)
    go_on = _sweep_command(typed, hydra_config) if sweeping else resume_command(folder, *own)
    try:
        stop.rest()
        record = _train(settings, folder, stop, command_line("resnet-train", typed), go_on)
    except StoppedError as stopped:
        raise JobStoppedError(stopped.signum) from None
    except Exception as error:
        if not sweeping:
            raise
        _tell_job(error, hydra_config.job.num, overrides)
        _clear_frames(error)
        raise JobFailedError("not every job of the sweep finished") from None
    finally:
        gc.collect()  # the next job of a sweep begins with the memory of this one
    if not sweeping and not settings.get("verify_resume"):
        print(*next_commands(record["epochs"], folder, own), sep="\n")
    best = record.get("best") or {}
    return best.get("val_accuracy")


def _clear_frames(error: BaseException | None) -> None:
    """Empty the frames of an error and of those behind it: a kept traceback keeps model and data of a failed job."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _tell_job(error: Exception, number: int, overrides: Sequence[str]) -> None:
    known = explained(error)
    if known is None:
        traceback.print_exception(error)
    reason = str(known).splitlines()[0] if known else f"{type(error).__name__}: {error}"
    print(f"error: job {number} ({', '.join(overrides)}): {reason}", file=sys.stderr, flush=True)


def _relative(folder: Path) -> Path:
    """The folder as seen from the working folder, where it is below it: that is what the user types."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _sweep_command(typed: Sequence[str], hydra_config: Any) -> str:
    """What goes on with a sweep that was stopped: its command again, in its folder."""
    given = [word for word in typed if override_keys([word])[0] not in ("hydra.sweep.dir", "resume")]
    sweep = _relative(Path(hydra_config.sweep.dir).absolute())
    return command_line("resnet-train", [*given, f"hydra.sweep.dir={quoted(str(sweep))}", "resume=auto"])


def _train(settings: dict[str, Any], folder: Path, stop: StopSignals, command: str, go_on: str) -> dict[str, Any]:
    from resnet_cli import session
    from resnet_cli.logs import RunLog

    with RunLog() as log:
        try:
            return session.train(folder=folder, command=command, log=log, should_stop=stop, **settings)
        except StoppedError:
            if RunDir(folder).record.exists():
                log.info(f"stopped; go on with: {go_on}")
            raise


def next_commands(epochs: int, folder: Path, own: Sequence[str]) -> list[str]:
    """What to try after this run, as commands to type; `own` are the overrides that name the user's own classes."""
    commands = {
        resume_command(folder, *own, f"trainer.epochs={2 * epochs}"): "train this one for longer",
        "resnet-train model=resnet data=cifar10": "photographs (downloads 170 MB)",
        "resnet-train -m model=resnet20,plain20 seed=0,1,2": "a sweep: with and without shortcuts",
    }
    width = min(max(map(len, commands)), 80)
    return ["next:", *(f"  {command:{width}}  {meaning}" for command, meaning in commands.items())]
