"""One rank of a run in a process of its own: what it is given, its part of the run, and how it ends."""

import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.distributed.launch import RankPlace
from resnet_cli.distributed.options import options_of
from resnet_cli.distributed.outcomes import is_of_collective, write_error
from resnet_cli.distributed.ranks import RankGroup, Ranks
from resnet_cli.errors import InputError
from resnet_cli.runs.logs import use_thread_lock_for_bars
from resnet_cli.session.context import RunContext
from resnet_cli.session.rank_output import RankOutput
from resnet_cli.session.rank_requests import RankRequests
from resnet_cli.session.signals import StopSignals
from resnet_cli.training.control import RunControl
from resnet_cli.training.malloc import keep_freed_memory

TrainFunction = Callable[..., Any]

CONTEXT = ("command", "overrides", "resume_command", "paths", "files", "seconds_before", "log_to_terminal")


def to_payload(
    config: RunConfig, folder: Path, context: RunContext, planned: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the ranks of a run are given, as plain data."""
    return {
        "settings": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "folder": str(folder),
        "planned": planned,
        "sweep": None if context.sweep is None else str(context.sweep),
        "prunes": context.control.prune is not RunControl().prune,
        "context": {name: getattr(context, name) for name in CONTEXT},
    }


def start_rank(train: TrainFunction, rank: int, place: RankPlace) -> None:
    """Do the work of a rank that the command has started on this machine; its process ends with this.

    Args:
        train: `resnet_cli.session.train.train`.
        rank: Number of the rank.
        place: Where the ranks meet, and what they are given.
    """
    keep_freed_memory()
    if hasattr(os, "setpgid"):  # Ctrl-C of the terminal goes to the command, which passes it on once
        os.setpgid(0, 0)
    use_thread_lock_for_bars()
    stack = place.stack(rank).open("w", encoding="utf-8")
    if hasattr(signal, "SIGUSR2"):
        faulthandler.register(signal.SIGUSR2, stack, all_threads=False)
    with StopSignals(quiet=True) as stop:
        try:
            seconds = options_of(place.payload["settings"]["trainer"]).collective_timeout
            uses_cuda = use_card(rank, place.payload["settings"]["trainer"])
            ranks = RankGroup(rank, place.size, place.connect(seconds), timeout=seconds, cuda=uses_cuda)
            ranks.stop = stop
            with RankOutput(rank):
                train_rank(train, place.payload, ranks)
            ranks.close()
        except BaseException as error:
            write_error(place.outcome(rank), error, collective=is_of_collective(error))
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(1)  # tearing down a failed process group would print further errors


def takes_cards(trainer: Mapping[str, Any]) -> bool:
    """Return True if the ranks of a run compute on CUDA, each on a card of its own."""
    return trainer.get("device") in ("auto", "cuda") and torch.cuda.is_available()


def use_card(local_rank: int, trainer: Mapping[str, Any]) -> bool:
    """Make the card of this rank the present one, and return True; False where the run uses none.

    A rank that others have started may see fewer cards than there are ranks on its machine, such as its own alone with
    `srun --gpus-per-task=1`.
    """
    if not takes_cards(trainer):
        return False
    torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return True


def require_own_card(ranks: Ranks, *, uses_cuda: bool) -> None:
    """Raise an `InputError`, on every rank, if two of them have the same card.

    Their numbers do not tell: each of several ranks may see a card of its own as number 0.
    """
    own = None
    if uses_cuda:
        index = torch.cuda.current_device()
        own = socket.gethostname(), str(getattr(torch.cuda.get_device_properties(index), "uuid", index))
    users: dict[tuple[str, str], int] = {}
    for rank, card in enumerate(ranks.gather(own)):
        if card is not None and users.setdefault(card, rank) != rank:
            raise InputError(
                f"trainer.processes={ranks.size}: ranks {users[card]} and {rank} have the same CUDA device, on "
                f"{card[0]}; start as many as there are devices, or use trainer.device=cpu"
            )


def train_rank(train: TrainFunction, payload: Mapping[str, Any], ranks: RankGroup) -> None:
    """Take this rank's part in a run: the first one trains as a single process does, and writes the run folder."""
    control = RunControl(ranks.stop)
    if payload["prunes"] and ranks.is_first:
        control = RunControl(ranks.stop, RankRequests(ranks).prune)
    sweep = None if payload["sweep"] is None else Path(payload["sweep"])
    context = RunContext(control=control, sweep=sweep, **payload["context"])
    train(RunConfig(**payload["settings"]), Path(payload["folder"]), context, planned_trainer=payload["planned"])
