"""A proof on the user's own machine that a run which is killed and resumed ends as one that was never stopped."""

import json
import logging
import multiprocessing
import os
import random
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from resnet_cli.config.signatures import signature
from resnet_cli.errors import InputError, NotIdenticalError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import RunLog
from resnet_cli.seeding import derive_seed

logger = logging.getLogger("resnet_cli")

LIMITS = {"epochs": 2, "max_batches": 6}  # at most; with a save after each step
CLOCK = ("seconds", "samples_per_second")  # what the time of day says, and no two runs share


def verify_resume(
    run: Callable[..., Any], settings: Mapping[str, Any], *, init_from: str | None = None
) -> dict[str, list[int] | int]:
    """Train a shortened run twice in temporary folders, once killed and resumed, and compare what they leave.

    The second is killed with SIGKILL inside its first epoch, behind the steps of that epoch (in validation, if there
    is one), and once more anywhere later. Each part is a process of its own.

    Args:
        run: Trains: `resnet_cli.session.train.train_settings`.
        settings: The config of the whole run; its learning rates are those of the first steps of the whole run.
        init_from: As in `resnet_cli.session.train.train`.

    Returns:
        `killed`, the steps that had been taken at each kill, and how many `tensors` and other `values` are equal.

    Raises:
        NotIdenticalError: names the first difference.
        InputError, DivergedError, MachineError: what the run itself raises.
    """
    short = {**settings, "trainer": _shortened(settings["trainer"])}
    with TemporaryDirectory(prefix="resnet-cli-verify-") as name:
        whole, parts = RunDir(Path(name, "whole")), RunDir(Path(name, "parts"))
        common = {
            "command": "verify_resume", "settings": short, "planned": settings["trainer"],
            "resume": "auto", "init_from": init_from, "resume_force": False,
        }  # fmt: skip
        part = partial(_in_process, run, common)
        calls = part(whole.path, kill_at=None)
        assert calls is not None, "not killed"
        logger.info("verify  part 1: trained to the end without a stop")
        per_epoch = checkpoints.load(whole.last)["state"]["rows"][0]["step"]
        killed: list[int] = []
        draw = random.Random(derive_seed(settings["seed"], "verify"))
        for kill_at in _kills(draw, steps=per_epoch, calls=calls - 1):
            done = _done(parts, per_epoch)
            if part(parts.path, kill_at=kill_at - done + 1) is not None:
                break  # it came to its end before: its epochs have fewer batches than the first
            killed.append(_told(parts, len(killed) + 2))
        part(parts.path, kill_at=None)
        logger.info("verify  part %d: resumed and trained to the end", len(killed) + 2)
        a, b = read_results(whole), read_results(parts)
        difference = first_difference(a, b)
        if difference is not None:
            raise NotIdenticalError(f"not identical: {difference} (never stopped, and killed after {_listed(killed)})")
        leaves = list(_leaves(a))
        tensors = sum(isinstance(leaf, Tensor) for leaf in leaves)
        logger.info(
            "identical: %d tensors and %d other values, killed after %s",
            tensors, len(leaves) - tensors, _listed(killed),
        )  # fmt: skip
        return {"killed": killed, "tensors": tensors, "values": len(leaves) - tensors}


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Where nested plain data and tensors first differ, as `key: value != value`; None where they agree bit for bit.

    Types, keys and their order, lengths, shapes and number types count; a NaN equals itself, and zero not minus zero.
    """
    where = path or "the whole"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return f"{where}: keys {_shown(list(a))} != {_shown(list(b))}"
        pairs = ((f"{path}.{key}" if path else str(key), a[key], b[key]) for key in a)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{where}: length {len(a)} != {len(b)}"
        pairs = ((f"{path}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)))
    elif isinstance(a, Tensor) and isinstance(b, Tensor):
        return _tensor_difference(a.detach().cpu(), b.detach().cpu(), where)
    else:  # repr of a float is exact
        return None if type(a) is type(b) and repr(a) == repr(b) else f"{where}: {_shown(a)} != {_shown(b)}"
    return next((found for name, x, y in pairs if (found := first_difference(x, y, name)) is not None), None)


def _tensor_difference(a: Tensor, b: Tensor, where: str) -> str | None:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{where}: {a.dtype} {list(a.shape)} != {b.dtype} {list(b.shape)}"
    if not a.numel():
        return None
    bytes_a, bytes_b = (t.contiguous().reshape(-1).view(torch.uint8).view(a.numel(), -1) for t in (a, b))
    differs = (bytes_a != bytes_b).any(dim=1)
    if not differs.any():
        return None
    first = int(differs.nonzero()[0])
    index = [int(i) for i in torch.unravel_index(torch.tensor(first), a.shape)]
    x, y = (t.reshape(-1)[first].item() for t in (a, b))
    return f"{where}{index if index else ''}: {x!r} != {y!r} ({int(differs.sum())} of {a.numel()} differ)"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, Tensor) else f"a tensor {list(value.shape)}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _shortened(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's node for a run of a moment; keys that a trainer of the user's own does not take stay out."""
    known = signature(trainer["_target_"])
    result = dict(trainer)
    for name, limit in LIMITS.items():
        if name in known.parameters or known.open:
            given = trainer.get(name)
            result[name] = limit if given is None else min(given, limit)
    if "checkpoint_every" in known.parameters or known.open:
        result["checkpoint_every"] = 1
    return result


def _kills(draw: random.Random, *, steps: int, calls: int) -> list[int]:
    """Looks for a signal (one after each step, and after each batch of validation and test) at which to kill."""
    inside = draw.randint(2, max(2, steps - 1))
    behind = max(inside, steps) + 1  # the first validation batch, whose steps are saved; or the next epoch's first
    later = draw.randint(behind + 1, max(behind + 1, calls))
    return [kill for kill in (inside, behind, later) if kill <= calls]


def _done(run: RunDir, per_epoch: int) -> int:
    """The batches that a run will not repeat."""
    if not run.last.exists():
        return 0
    state = checkpoints.load(run.last)["state"]
    return int(state["epoch"] * per_epoch + state["batches"])


def _told(run: RunDir, number: int) -> int:
    if not run.last.exists():
        logger.info("verify  part %d: killed before the first save", number)
        return 0
    state = checkpoints.load(run.last)["state"]
    logger.info(
        "verify  part %d: killed after step %d (epoch %d, batch %d)",
        number, state["step"], state["epoch"] + 1, state["batches"],
    )  # fmt: skip
    return int(state["step"])


def _listed(steps: list[int]) -> str:
    return f"step{'s' if len(steps) != 1 else ''} {', '.join(map(str, steps))}"


def read_results(run: RunDir) -> dict[str, Any]:
    """All that a run leaves behind and that its clock does not decide."""
    record = run.read_record()
    left = {
        "last": checkpoints.load(run.last)["state"],
        "best": checkpoints.load(run.best)["state"],
        "metrics": [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()],
        "record": {name: record.get(name) for name in ("best", "test", "selection")},
    }
    return {key: _without_clock(value) for key, value in left.items()}


def _without_clock(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_clock(item) for key, item in value.items() if key not in CLOCK}
    return [_without_clock(item) for item in value] if isinstance(value, list | tuple) else value


def _in_process(run: Callable[..., Any], common: Mapping[str, Any], folder: Path, *, kill_at: int | None) -> int | None:
    """Train in a process of its own; gives how often it looked for a signal, or None if it was killed."""
    # A server that has imported torch and nothing else forks the parts: forking this process, which may have worked
    # with threads or on a GPU before, can hang.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([run.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(run, {**common, "folder": folder}, kill_at, sender))
    process.start()
    sender.close()
    answer = None
    try:
        while process.is_alive() and not receiver.poll(0.05):
            pass  # not until the pipe's end: workers of a killed process hold it open for a while
        if receiver.poll():
            answer = receiver.recv()
    except EOFError:
        answer = None
    finally:
        if answer is None:
            process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, tuple):
        kind, arguments = answer
        raise kind(*arguments)
    if answer is None and kill_at is None:
        raise RuntimeError(f"verify_resume: a part of the proof ended with exit status {process.exitcode}")
    return answer


def _work(run: Callable[..., Any], arguments: Mapping[str, Any], kill_at: int | None, answer: Connection) -> None:
    """One part, silent; it kills itself at a given look for a signal, of which there is one before the first step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one decides
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == kill_at:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    try:
        run(log=RunLog(), should_stop=look, **arguments)
    except InputError as error:
        answer.send((InputError, error.problems))
    except Exception as error:
        told = (type(error), error.args) if type(error).__module__ == "resnet_cli.errors" else None
        answer.send(told or (RuntimeError, ("".join(traceback.format_exception(error)),)))
    else:
        answer.send(looks)
