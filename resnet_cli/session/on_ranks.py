"""A run on several ranks: start them unless they exist, and do the work of those that do not write the folder."""

import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_lines
from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.distributed.existing import existing_ranks
from resnet_cli.distributed.launch import Launcher
from resnet_cli.distributed.options import ProcessOptions, options_of, require_combinable
from resnet_cli.distributed.outcomes import RankFailedError
from resnet_cli.distributed.ranks import Ranks, joined_ranks
from resnet_cli.errors import InputError, MachineError, PrunedError
from resnet_cli.runs.card import update_card
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import RankLog, append_to_log, print_line
from resnet_cli.session import build
from resnet_cli.session.context import RunContext
from resnet_cli.session.prepare import isolated_compiler, prepare
from resnet_cli.session.rank_process import (
    TrainFunction,
    require_own_card,
    start_rank,
    takes_cards,
    to_payload,
    use_card,
)
from resnet_cli.session.rank_requests import answer_requests
from resnet_cli.session.reproduction import following
from resnet_cli.session.shared_start import fixed_threads
from resnet_cli.session.test_set import score_test_set
from resnet_cli.session.time_budget import taken_seconds
from resnet_cli.training.control import RunControl


def require_possible(config: RunConfig, processes: int) -> None:
    """Check, before anything is started, that a run can use so many processes.

    Raises:
        InputError: it cannot; one line for each reason.
    """
    if processes == 1:
        return
    name, problems = f"trainer.processes={processes}", []
    for key in ("find", "verify_resume"):
        if getattr(config, key):
            problems.append(f"{key}: cannot be combined with {name}; it runs in a single process")
    size = build.batch_size(config.data)
    if size < processes:
        problems.append(
            f"data.batch_size={size}: must be at least {name}, since every process takes part of each batch"
        )
    if problems:
        raise InputError(*problems)


def require_several_devices(trainer: Node, processes: int) -> None:
    """Raise an `InputError` if the trainer's node names a single device for several ranks."""
    device = str(trainer.get("device") or "cpu")
    if device.startswith("cuda:") or device == "mps":
        kind = "cuda" if device.startswith("cuda:") else "cpu"
        raise InputError(
            f"trainer.device={device}: is a single device; for trainer.processes={processes} use trainer.device={kind}"
        )
    if device == "auto" and not takes_cards(trainer) and torch.backends.mps.is_available():
        raise InputError(
            f"trainer.device=auto: is mps on this machine, one device; trainer.processes={processes} takes device=cpu"
        )


def require_cards(trainer: Node, processes: int) -> None:
    """Raise an `InputError` if the ranks that are started here need a CUDA device each and there are too few."""
    require_several_devices(trainer, processes)
    cards = torch.cuda.device_count() if takes_cards(trainer) else processes
    if processes > cards:
        raise InputError(
            f"trainer.processes={processes}: this machine has {counted(cards, 'CUDA device')}; use as many, or "
            "trainer.device=cpu"
        )


def train_on_ranks(
    train: TrainFunction,
    config: RunConfig,
    folder: Path,
    context: RunContext,
    planned: Node | None,
    options: ProcessOptions,
) -> dict[str, Any]:
    """Train a run on ranks that are started here, and continue it if one of them dies; return its record.

    Args:
        train: `resnet_cli.session.train.train`.
        config: The config.
        folder: The run folder.
        context: The surroundings.
        planned: The trainer's node that determines the length of the schedule.
        options: How many processes there are.

    Raises:
        RankFailedError: a rank died, and `max_restarts` is used up.
        InputError, DivergedError, MachineError, StoppedError: as in a single process.
    """
    began, run = monotonic(), RunDir(folder)
    require_cards(config.trainer, options.processes)
    run.require_writable()
    recorded = taken_seconds(run.read_record())
    prune = context.control.prune
    answers = {"prune": prune} if prune is not RunControl().prune else {}
    answer = partial(answer_requests, answers=answers)
    launcher = Launcher(partial(start_rank, train), options.processes, context.control.should_stop, answer)
    while True:
        context.control.raise_if_stopped()
        elapsed = context.seconds_before + monotonic() - began
        elapsed -= taken_seconds(run.read_record()) - recorded  # a restart adds the recorded seconds itself
        try:
            launcher.run(to_payload(config, folder, replace(context, seconds_before=elapsed), planned))
            return run.read_record()
        except RankFailedError as error:
            if launcher.attempt > options.max_restarts:
                _record_failure(run, error)
                raise
            line = f"{error}; restart {launcher.attempt} of {options.max_restarts} from the last checkpoint"
            _append_to_run_log(run, error.traceback)
            _append_to_run_log(run, line)
            print_line(escape_lines(line), sys.stdout)
            config = replace(config, resume="auto")


def train_on_existing(
    train: TrainFunction,
    config: RunConfig,
    folder: Path,
    context: RunContext,
    planned: Node | None,
    options: ProcessOptions,
) -> dict[str, Any]:
    """Train a run on the first of the ranks that exist already, and let the others take part; see `train_on_ranks`."""
    existing = existing_ranks()
    assert existing is not None, "train_on_ranks starts some"
    require_several_devices(config.trainer, existing.size)
    existing.send(to_payload(config, folder, context, planned))
    uses_cuda = use_card(existing.place.local_rank, config.trainer)
    with existing.joined(timeout=options.collective_timeout, cuda=uses_cuda) as ranks:
        require_own_card(ranks, uses_cuda=uses_cuda)
        record: dict[str, Any] = train(config, folder, context, planned_trainer=planned)
        return record


def _append_to_run_log(run: RunDir, text: str) -> None:
    if text and run.log.exists():
        append_to_log(run.log, text)


def _record_failure(run: RunDir, error: RankFailedError) -> None:
    """Record the error that ended the ranks, which the first one may not have seen, and print its traceback."""
    _append_to_run_log(run, error.traceback)
    _append_to_run_log(run, f"error: {error}")
    if error.traceback:
        print_line(escape_lines(error.traceback), sys.stderr)
    with suppress(InputError, MachineError):
        if run.record.exists():
            run.update_record(status="failed", ended=utc_now(), reason=str(error))
            update_card(run)


def agreed_control(control: RunControl, ranks: Ranks) -> RunControl:
    """Return a control whose answers are the same on every rank."""
    if ranks.size == 1:
        return control
    ranks.stop = control.should_stop
    return RunControl(ranks.agree_to_stop, lambda rows: ranks.from_first(lambda: control.prune(rows)))


def train_elsewhere(
    train: TrainFunction, config: RunConfig, folder: Path, context: RunContext, planned: Node | None
) -> dict[str, Any] | None:
    """Do this process's part of a run on several ranks, unless it is the first rank or the only process.

    If there are no ranks yet, they are started, or those of torchrun or srun are used, and the record of their run is
    returned. A rank other than the first takes part in the run and returns an empty record. The arguments are those
    of `train_on_ranks`.

    Returns:
        The record; None if this process is the first rank, or the run has no others.
    """
    options, ranks, existing = options_of(config.trainer), joined_ranks(), existing_ranks()
    processes = max(options.processes if existing is None else existing.size, ranks.size if ranks else 1)
    require_combinable(config.trainer, options, processes)
    require_possible(config, processes)
    if processes > 1 and ranks is None:
        start = train_on_ranks if existing is None else train_on_existing
        return start(train, config, folder, context, planned, options)
    if ranks is None or ranks.is_first:
        return None
    with isolated_compiler(), fixed_threads(options):
        _train_as_follower(config, RunDir(folder), context, planned, ranks)
    return {}


def _train_as_follower(config: RunConfig, run: RunDir, context: RunContext, planned: Node | None, ranks: Ranks) -> None:
    """Take the part of a rank that is not the first: its steps and its batches of the evaluations."""
    control = agreed_control(context.control, ranks)
    with RankLog(ranks.rank) as log, following(ranks):
        prepared = prepare(config, run, planned, context.paths, control=control, ranks=ranks)
        control.raise_if_stopped()
        ranks.from_first(lambda: None)  # wait until the folder exists
        if run.path.is_dir():  # on a machine that does not see it, warnings are in the terminal alone
            log.attach(run.log)
        trainer, loaders = prepared.trainer, prepared.loaders
        with suppress(PrunedError):
            trainer.fit(loaders.train, loaders.val, control=control, verbose=False)
            if not ranks.from_first(lambda: False):
                score_test_set(trainer, loaders, prepared.config, control)
