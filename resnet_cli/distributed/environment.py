"""Ranks that exist already: those of torchrun, and the tasks of a SLURM step."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from resnet_cli.errors import InputError

FIRST_PORT, PORTS = 15_000, 20_000  # range from which the number of a SLURM job selects a port
LAST_PORT = 65_535


@dataclass(frozen=True)
class ExistingRank:
    """The rank of this process, as torchrun or srun describes it in environment variables.

    Args:
        rank: Rank of this process.
        size: Number of ranks.
        local_rank: Rank among those on the same machine.
        local_size: Number of ranks on the same machine.
        address: Machine of the first rank.
        port: Port of the store on that machine.
        has_store: Whether a store is listening there already, as with torchrun.
        attempt: Number of times that the ranks were started before.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    has_store: bool = False
    attempt: int = 0


def find_existing_rank(environment: Mapping[str, str] = os.environ) -> ExistingRank | None:
    """Return the rank that torchrun or srun gives this process; None if there are no others.

    Raises:
        InputError: a variable that they set is not a number.
    """
    if environment.get("TORCHELASTIC_RUN_ID") is not None:
        return _torchrun_rank(environment)
    if environment.get("SLURM_STEP_ID") is not None and environment.get("SLURM_PROCID") is not None:
        return _slurm_rank(environment)
    return None


def _torchrun_rank(environment: Mapping[str, str]) -> ExistingRank | None:
    size = _number(environment, "WORLD_SIZE")
    if size < 2:
        return None
    return ExistingRank(
        _number(environment, "RANK"), size, _number(environment, "LOCAL_RANK"),
        _number(environment, "LOCAL_WORLD_SIZE", size), environment.get("MASTER_ADDR", "127.0.0.1"),
        _port(environment), environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        _number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
    )  # fmt: skip


def _slurm_rank(environment: Mapping[str, str]) -> ExistingRank | None:
    """Return the rank of a task; None in the shell of a batch script, which is not a task of a parallel step."""
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    size = _number(environment, tasks, 1)
    if size < 2 or environment["SLURM_STEP_ID"] in ("batch", "4294967291"):
        return None
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    job = _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    local = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return ExistingRank(
        _number(environment, "SLURM_PROCID"), size, _number(environment, "SLURM_LOCALID", 0),
        int(local[0]) if local else size, environment.get("MASTER_ADDR") or first_host(nodes),
        _port(environment, FIRST_PORT + job % PORTS),
        attempt=_number(environment, "SLURM_RESTART_COUNT", 0),
    )  # fmt: skip


def first_host(nodes: str) -> str:
    """Return the first host of a SLURM list: `gpu[03-07,12],login` is `gpu03`."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?([^\],]*[^\]]*\]([^,]*))?", nodes)
    if found is None:
        return nodes
    return found[1] + (found[2] or "") + (found[4] or "")


def _port(environment: Mapping[str, str], default: int | None = None) -> int:
    port = _number(environment, "MASTER_PORT", default)
    if not 0 < port <= LAST_PORT:
        raise InputError(f"MASTER_PORT={port}: not a port number; it must be 1 to {LAST_PORT}")
    return port


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(str(text))
    except ValueError:
        raise InputError(f"{name}={text}: not a number; torchrun and srun set it for each of their processes") from None
