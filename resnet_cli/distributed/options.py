"""The keys of a run on several processes. Importing this does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from resnet_cli.config.ranges import AtLeast, Bounds
from resnet_cli.errors import InputError


@dataclass(frozen=True)
class ProcessOptions:
    """How a run uses several processes; the fields are the arguments of `process_options`."""

    processes: int = 1
    shards: int | None = None
    sync_batch_norm: bool = False
    collective_timeout: float = 600.0
    max_restarts: int = 0


def process_options(
    processes: Annotated[int, AtLeast(1)] = 1,
    shards: Annotated[int, AtLeast(1)] | None = None,
    sync_batch_norm: bool = False,
    collective_timeout: Annotated[float, Bounds(gt=0, le=1_000_000_000)] = 600.0,
    max_restarts: Annotated[int, AtLeast(0)] = 0,
) -> ProcessOptions:
    """Return how a run uses several processes.

    Args:
        processes: Processes that share the steps of a run, each with a part of every batch; on CUDA one for each GPU.
            Under `torchrun` and `srun` the existing processes are used.
        shards: Split each batch into this many parts and sum their gradients in a fixed order, so that CPU runs with up
            to this many processes give bitwise identical results; None has one part for each process.
        sync_batch_norm: Normalise over the whole batch; false normalises over the part of each process.
        collective_timeout: Seconds that a process waits for the others before the run ends with an error.
        max_restarts: Maximum number of times that a run with a dead process is continued from its last checkpoint.
    """
    return ProcessOptions(processes, shards, sync_batch_norm, collective_timeout, max_restarts)


def options_of(trainer: Mapping[str, Any]) -> ProcessOptions:
    """Return the process options in the config of a trainer.

    Raises:
        InputError: the trainer has settings that cannot be combined with them; one line for each.
    """
    names = [field.name for field in fields(ProcessOptions)]
    options = process_options(**{name: trainer[name] for name in names if name in trainer})
    problems = []
    if options.shards is not None and not trainer.get("deterministic"):
        problems.append(f"trainer.shards={options.shards}: needs trainer.deterministic=true")
    if options.shards is not None and options.processes > options.shards:
        problems.append(
            f"trainer.processes={options.processes}: more than trainer.shards={options.shards}; use at most as many"
        )
    if options.sync_batch_norm:
        others = {"accumulate": (1, None, ", whose parts run one after the other"), "compile": ("off", None, "")}
        problems += [
            f"trainer.sync_batch_norm=true: cannot be combined with trainer.{key}={trainer[key]}{reason}"
            for key, (*usual, reason) in others.items()
            if trainer.get(key) not in usual
        ]
    if problems:
        raise InputError(*problems)
    return options


def require_combinable(trainer: Mapping[str, Any], options: ProcessOptions, processes: int) -> None:
    """Check that a run on several processes, or in shards, has no setting that needs whole batches.

    Args:
        trainer: The trainer's node.
        options: What `options_of` returned for it.
        processes: Number of processes of the run.

    Raises:
        InputError: there are such settings; one line for each.
    """
    if processes == 1 and options.shards is None:
        return
    cause = f"trainer.processes={processes}" if processes > 1 else f"trainer.shards={options.shards}"
    problems = []
    if trainer.get("compile") == "step":
        problems.append(
            f"trainer.compile=step: cannot be combined with {cause}, which sums gradients; use trainer.compile=model"
        )
    if trainer.get("on_oom") == "halve":
        problems.append(
            f"trainer.on_oom=halve: cannot be combined with {cause}, whose parts keep their sizes; use "
            "trainer.accumulate"
        )
    if trainer.get("profile") and processes > 1:
        problems.append(f"trainer.profile=true: cannot be combined with {cause}; profile a run of one process")
    if options.shards is not None and (trainer.get("accumulate") or 1) > 1:
        problems.append(
            f"trainer.accumulate={trainer['accumulate']}: cannot be combined with {cause}, which splits batches already"
        )
    if options.shards is not None and trainer.get("precision") == "fp16":
        problems.append(f"trainer.precision=fp16: cannot be combined with {cause}; use bf16 or fp32")
    if problems:
        raise InputError(*problems)
