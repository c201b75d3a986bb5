"""Verify on the user's machine that a killed and resumed run ends exactly as an uninterrupted one."""

import logging
import multiprocessing
import os
import random
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.signatures import signature
from resnet_cli.errors import InputError, NotIdenticalError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.seeding import derive_seed
from resnet_cli.session import build
from resnet_cli.session.comparison import count_leaves, first_difference, read_results
from resnet_cli.session.context import RunContext
from resnet_cli.streams import discard_output
from resnet_cli.training.backend import Backend
from resnet_cli.training.control import RunControl
from resnet_cli.training.device import resolve_device

logger = logging.getLogger("resnet_cli")

LIMITS = {"epochs": 2, "max_batches": 6}  # of the shortened run, which saves after each step

TrainFunction = Callable[..., Any]


def verify_resume(train: TrainFunction, config: RunConfig) -> dict[str, list[int] | int]:
    """Train a shortened run twice in temporary folders, once killed and resumed, and compare the results.

    The second run is killed with SIGKILL inside its first epoch, after the steps of that epoch (in validation, if
    there is one), and once more anywhere later. Each part of it runs in a process of its own.

    Args:
        train: `resnet_cli.session.train.train`.
        config: The config of the whole run; the shortened run has the learning rates of its first steps.

    Returns:
        `killed`, the number of steps done at each kill, and how many `tensors` and other `values` are equal.

    Raises:
        NotIdenticalError: the results differ; names the first difference.
        InputError, DivergedError, MachineError: raised by the run itself.
    """
    with TemporaryDirectory(prefix="resnet-cli-verify-") as name:
        whole, parts = RunDir(Path(name, "whole")), RunDir(Path(name, "parts"))
        short = _ShortRun(train, replace(config, trainer=without_budget(config.trainer)))
        polls = short.run(whole.path)
        assert polls is not None, "not killed"
        logger.info("verify  part 1: trained to the end without a stop")
        killed = _train_with_kills(short, whole, parts, polls)
        results = read_results(whole)
        difference = first_difference(results, read_results(parts))
        if difference is not None:
            killed_after = f"uninterrupted, and killed after {_format_steps(killed)}"
            raise NotIdenticalError(f"not identical: {difference} ({killed_after}){_remedy(config)}")
        tensors, values = count_leaves(results)
        logger.info(
            "identical: %d tensors and %d other values, killed after %s", tensors, values, _format_steps(killed)
        )
        return {"killed": killed, "tensors": tensors, "values": values}


def _remedy(config: RunConfig) -> str:
    """Return a hint if reproducible operations have to be enabled on this device, else an empty string."""
    device = resolve_device(config.trainer.get("device"))
    if Backend(device, deterministic=bool(build.get_argument(config.trainer, "deterministic"))).is_reproducible:
        return ""
    return f"; on {device.type}, use trainer.deterministic=true"


def _train_with_kills(short: "_ShortRun", whole: RunDir, parts: RunDir, polls: int) -> list[int]:
    """Train in `parts`, killed and resumed; return the number of steps done at each kill.

    Args:
        short: The run.
        whole: The folder of the uninterrupted run.
        parts: The folder to train in.
        polls: How often the uninterrupted run polled for a signal.
    """
    steps_per_epoch = checkpoints.load(whole.last)["state"]["rows"][0]["step"]
    killed: list[int] = []
    draw = random.Random(derive_seed(short.config.seed, "verify"))
    for kill_at in _draw_kills(draw, steps=steps_per_epoch, polls=polls - 1):
        done = _batches_done(parts, steps_per_epoch)
        if short.run(parts.path, kill_at=kill_at - done + 1) is not None:
            break  # it ended before: its epochs have fewer batches than the first
        killed.append(_log_kill(parts, part=len(killed) + 2))
    short.run(parts.path)
    logger.info("verify  part %d: resumed and trained to the end", len(killed) + 2)
    return killed


def _draw_kills(draw: random.Random, *, steps: int, polls: int) -> list[int]:
    """Draw the polls for a signal at which to kill; a run polls after each step and each evaluated batch."""
    in_epoch = draw.randint(2, max(2, steps - 1))
    after_steps = max(in_epoch, steps) + 1  # at the first validation batch, else at the next epoch's first step
    later = draw.randint(after_steps + 1, max(after_steps + 1, polls))
    return [kill for kill in (in_epoch, after_steps, later) if kill <= polls]


def _batches_done(run: RunDir, steps_per_epoch: int) -> int:
    """Return the number of batches that a resumed run skips."""
    if not run.last.exists():
        return 0
    state = checkpoints.load(run.last)["state"]
    return int(state["epoch"] * steps_per_epoch + state["batches"])


def _log_kill(run: RunDir, *, part: int) -> int:
    """Log after which step a part was killed; return the step."""
    if not run.last.exists():
        logger.info("verify  part %d: killed before the first save", part)
        return 0
    state = checkpoints.load(run.last)["state"]
    logger.info(
        "verify  part %d: killed after step %d (epoch %d, batch %d)",
        part, state["step"], state["epoch"] + 1, state["batches"],
    )  # fmt: skip
    return int(state["step"])


def _format_steps(steps: list[int]) -> str:
    return f"step{'s' if len(steps) != 1 else ''} {', '.join(map(str, steps))}"


@dataclass(frozen=True)
class _ShortRun:
    """The shortened run of a config; each call of `run` trains in a process of its own.

    Args:
        train: `resnet_cli.session.train.train`.
        config: The config of the whole run.
    """

    train: TrainFunction
    config: RunConfig

    def run(self, folder: Path, *, kill_at: int | None = None) -> int | None:
        """Train in a folder until the end, or until the process kills itself.

        Args:
            folder: The run folder; a run in it is resumed.
            kill_at: The poll for a signal at which the process kills itself; None never does.

        Returns:
            How often the run polled for a signal, or None if it was killed.

        Raises:
            InputError, DivergedError, MachineError: raised by the run.
        """
        # A server that has imported torch and nothing else forks the parts: forking this process, which may have
        # worked with threads or on a GPU before, can hang.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["resnet_cli.session.record"])
        receiver, sender = context.Pipe(duplex=False)
        arguments = (self.train, shorten(self.config), folder, self.config.trainer, kill_at, sender)
        process = context.Process(target=_train_in_child, args=arguments)
        process.start()
        sender.close()
        answer = _receive(process, receiver)
        if isinstance(answer, tuple):
            kind, error_arguments = answer
            raise kind(*error_arguments)
        if answer is None and kill_at is None:
            raise RuntimeError(f"verify_resume: a part of the run ended with exit status {process.exitcode}")
        polls: int | None = answer
        return polls


def without_budget(trainer: Node) -> dict[str, Any]:
    """Return a trainer's node without its time budget: each part would measure another number of epochs."""
    return {name: value for name, value in trainer.items() if name != "time_budget"}


def shorten(config: RunConfig) -> RunConfig:
    """Return the config of a run of a few batches that saves after each step and uses no loggers."""
    return replace(
        config,
        trainer=_shorten_trainer(config.trainer),
        resume="auto",
        resume_force=False,
        verify_resume=False,
        logger=None,
    )


def _shorten_trainer(trainer: Node) -> dict[str, Any]:
    """Limit a trainer's node to a few batches; keys that a user's own trainer does not accept are left out."""
    known = signature(trainer["_target_"])
    result = without_budget(trainer)
    for name, limit in LIMITS.items():
        if name in known.parameters or known.open:
            value = trainer.get(name)
            result[name] = limit if value is None else min(value, limit)
    if "checkpoint_every" in known.parameters or known.open:
        result["checkpoint_every"] = 1
    if result.get("swa_start", 0) > 1:  # the tail of epochs that are averaged begins within the shortened run
        result["swa_start"] = 1
    if result.get("lookahead_k", 0) > 1:  # and so does a synchronisation, though an epoch may have a single batch
        result["lookahead_k"] = 2
    return result


def _receive(process: Any, receiver: Connection) -> Any:
    """Return what the process sends before it ends, or None; the process has ended afterwards."""
    answer = None
    try:
        while process.is_alive() and not receiver.poll(0.05):
            pass  # do not wait for the pipe's end: loader workers of a killed process keep it open for a while
        if receiver.poll():
            answer = receiver.recv()
    except EOFError:
        answer = None
    finally:
        if answer is None:
            process.kill()
        process.join()
        receiver.close()
    return answer


def _train_in_child(
    train: TrainFunction, config: RunConfig, folder: Path, planned: Node, kill_at: int | None, answer: Connection
) -> None:
    """Train without output and send the number of polls or the error; the process may kill itself at a poll.

    There is one poll before the first step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the waiting process handles Ctrl-C
    discard_output(1)
    discard_output(2)
    polls = 0

    def should_stop() -> None:
        nonlocal polls
        polls += 1
        if polls == kill_at:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    context = RunContext(control=RunControl(should_stop), command="verify_resume", log_to_terminal=False)
    try:
        train(config, folder, context, planned_trainer=planned)
    except InputError as error:
        answer.send((InputError, error.problems))
    except Exception as error:
        is_known = type(error).__module__ == "resnet_cli.errors"
        text = "".join(traceback.format_exception(error))
        answer.send((type(error), error.args) if is_known else (RuntimeError, (text,)))
    else:
        answer.send(polls)
