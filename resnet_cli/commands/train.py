"""resnet-train: the Hydra app that trains. Torch is imported only when a run begins."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_cli.commands import compatibility
from resnet_cli.commands.arguments import CONFIG_FOLDER, hydra_arguments, task_overrides
from resnet_cli.commands.callback import RunFailedError
from resnet_cli.commands.compose import run_settings, use_working_folder
from resnet_cli.commands.explain import explained, tell
from resnet_cli.errors import JobFailedError, StoppedError
from resnet_cli.run import command_line, job_folder, random_letters, resume_command


def main() -> None:
    """Run the command line and exit with its status."""
    status = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-train` with these arguments; gives the exit status (see the table in the README)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, so that its errors can be told in a line
    try:
        _start_hydra(hydra_arguments(arguments))
    except StoppedError as stop:
        return 128 + stop.signum
    except KeyboardInterrupt:
        return 130
    except SystemExit as done:  # --help and the like
        return int(done.code or 0)
    except RunFailedError as failed:
        return tell(failed.error)
    except Exception as error:
        return tell(error)
    return 0


def _start_hydra(arguments: Sequence[str]) -> None:
    """Let Hydra compose the config and call `task` for each job."""
    compatibility.register_resolver("letters", random_letters, use_cache=True)
    compatibility.register_resolver("job_folder", _job_folder)
    compatibility.register_resolver("sweep_name", _sweep_name)
    use_working_folder()
    typed = sys.argv[1:]
    sys.argv[1:] = arguments
    try:
        with compatibility.patched_argparse():
            hydra.main(config_path=str(CONFIG_FOLDER), config_name="train", **compatibility.main_options())(task)()
    finally:
        sys.argv[1:] = typed


def _job_folder() -> str:
    return job_folder(task_overrides(HydraConfig.get()))


def _sweep_name() -> str:
    """The sweep's `name=`, else its `model=` with all the options, else its experiment, else the default model."""
    given = dict(override.split("=", 1) for override in task_overrides(HydraConfig.get()) if "=" in override)
    name = given.get("name") or given.get("model") or given.get("experiment")
    name = name or str(HydraConfig.get().runtime.choices["model"])
    return job_folder([name], limit=60)


def task(composed: DictConfig) -> float | None:
    """One job: train with the composed config; gives the best validation accuracy, for sweepers to maximise."""
    hydra_config = HydraConfig.get()
    overrides = task_overrides(hydra_config)
    settings = run_settings(composed, overrides)
    folder = _relative(Path(hydra_config.runtime.output_dir))
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    if sweeping:
        print(f"\njob {hydra_config.job.num}: {' '.join(overrides)}", flush=True)
    try:
        record = _train(settings, folder)
    except Exception as error:
        if not sweeping:
            raise
        _tell_job(error, hydra_config.job.num, overrides)
        traceback.clear_frames(error.__traceback__)  # a kept traceback would keep model and data of a failed job
        raise JobFailedError("not every job of the sweep finished") from None
    if not sweeping:
        print(*next_commands(record["epochs"], folder), sep="\n")
    best = record.get("best") or {}
    return best.get("val_accuracy")


def _tell_job(error: Exception, number: int, overrides: Sequence[str]) -> None:
    known = explained(error)
    if known is None:
        traceback.print_exception(error)
    reason = str(known).splitlines()[0] if known else f"{type(error).__name__}: {error}"
    print(f"error: job {number} ({', '.join(overrides)}): {reason}", file=sys.stderr, flush=True)


def _relative(folder: Path) -> Path:
    """The folder as seen from the working folder, where it is below it: that is what the user types."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _train(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    from resnet_cli import session
    from resnet_cli.logs import RunLog

    with RunLog() as log, _stop_signals() as stop:
        command = command_line("resnet-train", sys.argv[1:])
        try:
            record = session.train(
                folder=folder, command=command, log=log, should_stop=lambda: stop["signal"], **settings
            )
        except StoppedError:
            log.info(f"stopped; go on with: {resume_command(folder)}")
            raise
        return record


def next_commands(epochs: int, folder: Path) -> list[str]:
    """What to try after this run, as commands to type."""
    commands = {
        resume_command(folder, f"trainer.epochs={2 * epochs}"): "train this one for longer",
        "resnet-train model=resnet data=cifar10": "photographs (downloads 170 MB)",
        "resnet-train -m model=resnet20,plain20 seed=0,1,2": "a sweep: with and without shortcuts",
    }
    width = min(max(map(len, commands)), 80)
    return ["next:", *(f"  {command:{width}}  {meaning}" for command, meaning in commands.items())]


@contextmanager
def _stop_signals() -> Iterator[dict[str, int | None]]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a request to stop after the current step; a second Ctrl-C stops at once."""
    asked: dict[str, int | None] = {"signal": None}

    def ask(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and asked["signal"] is not None:
            raise KeyboardInterrupt
        asked["signal"] = signum
        print("\nstopping after this step (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    numbers = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
