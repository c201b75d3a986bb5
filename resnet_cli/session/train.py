"""Train one run: prepare it, open its folder, train, and evaluate on the test set once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.distributed.options import options_of
from resnet_cli.errors import StoppedError
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.logs import RunLog
from resnet_cli.session.context import RunContext
from resnet_cli.training.malloc import keep_freed_memory

logger = logging.getLogger("resnet_cli")


def train(
    config: RunConfig, folder: Path, context: RunContext, *, planned_trainer: Node | None = None
) -> dict[str, Any]:
    """Train in a run folder and evaluate on the test set once at the end.

    The folder's files are written only after everything has been built, so that wrong input leaves nothing behind.

    Args:
        config: The validated config.
        folder: The run folder.
        context: Signals, pruning, commands for the record, and logging.
        planned_trainer: The trainer's node that determines the length of the schedule. None is the config's own; a
            shortened run keeps the learning rates of the whole run by passing the whole run's node.

    Returns:
        The record that `run.json` holds; with `verify_resume` or `find`, the result of that.

    Raises:
        InputError: config, data or checkpoint are wrong.
        DivergedError: training met a non-finite number.
        MachineError: the folder cannot be written.
        NotIdenticalError: `verify_resume` found a difference, or the run is not the one that it reproduces.
        StoppedError: a signal asked the run to stop.
    """
    began = monotonic() - context.seconds_before
    options = options_of(config.trainer)
    keep_freed_memory()  # before the first tensor, and therefore before the imports below, which load torch
    from resnet_cli.distributed.ranks import ALONE, joined_ranks
    from resnet_cli.seeding import python_random_state_kept
    from resnet_cli.session.find.start import find_setting
    from resnet_cli.session.paths import located
    from resnet_cli.session.prepare import isolated_compiler, prepare
    from resnet_cli.session.record import evaluate_test_set, open_run_folder, run_status
    from resnet_cli.session.reproduction import reproducing
    from resnet_cli.session.shared_start import fixed_threads, uses_ranks
    from resnet_cli.session.verify import verify_resume

    run, ranks = RunDir(folder), joined_ranks() or ALONE
    if uses_ranks(options, ranks):
        from resnet_cli.session import on_ranks

        record = on_ranks.train_elsewhere(train, config, folder, context, planned_trainer)
        if record is not None:
            return record
        context = replace(context, control=on_ranks.agreed_control(context.control, ranks))
    with (
        RunLog(terminal=context.log_to_terminal) as log, _resume_hint(run, context.resume_command),
        python_random_state_kept(),
    ):  # fmt: skip
        if config.find is not None:
            return find_setting(config, run, context)
        if config.verify_resume:
            return verify_resume(train, located(config, context.paths))
        run.require_writable()
        with (
            exclusive(run.path), isolated_compiler(), fixed_threads(options),
            reproducing(config, run, ranks) as reproduction,
        ):  # fmt: skip
            prepared = prepare(
                config, run, planned_trainer, context.paths, control=context.control, began=began, ranks=ranks
            )
            context.control.raise_if_stopped()  # the last moment at which stopping leaves no folder behind
            saver = open_run_folder(prepared, context, log)
            prepared.trainer.ranks.from_first(lambda: None)  # the others may write to the log now
            if reproduction is not None:
                reproduction.begin(prepared)
            trainer, loaders = prepared.trainer, prepared.loaders
            first_step = trainer.state.step
            with run_status(prepared, saver):
                trainer.fit(loaders.train, loaders.val, saver=saver, control=context.control)
                evaluate_test_set(prepared, saver, context.control)
            if prepared.budget is not None:
                prepared.budget.finish(run, trained=trainer.state.step > first_step)
            if reproduction is not None and run.read_record()["status"] == "finished":
                reproduction.finish(run)
            return run.read_record()


@contextmanager
def _resume_hint(run: RunDir, command: str) -> Iterator[None]:
    """Log the command that resumes the run when a signal stops it."""
    try:
        yield
    except StoppedError:
        if run.record.exists():
            logger.info("stopped; resume with: %s", command)
        raise
