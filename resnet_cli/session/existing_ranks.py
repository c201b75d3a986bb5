"""Run a command on processes that exist already: the first runs it, the others take part in each of its runs."""

import os
import sys
import traceback
from collections.abc import Callable

from resnet_cli.config.messages import escape_lines
from resnet_cli.distributed.environment import ExistingRank
from resnet_cli.distributed.existing import ExistingRanks
from resnet_cli.distributed.options import options_of
from resnet_cli.errors import DivergedError, InputError, JobFailedError, MachineError, StoppedError
from resnet_cli.session.rank_output import RankOutput
from resnet_cli.session.rank_process import require_own_card, train_rank, use_card
from resnet_cli.session.signals import StopSignals
from resnet_cli.session.train import train

USER_ERRORS = (InputError, DivergedError, MachineError, JobFailedError)  # which the first rank prints, if it has them


def run_on_existing(place: ExistingRank, stop: StopSignals, command: Callable[[], int]) -> int:
    """Run a command on the first rank, or serve it on another; return the exit status.

    Raises:
        InputError: the ranks cannot meet.
        StoppedError: a signal stopped it.
    """
    ranks, status = ExistingRanks(place), 1
    try:
        if place.rank:
            with RankOutput(place.rank):
                status = _serve(ranks, stop)
        else:
            with ranks.leading():
                status = command()
    except StoppedError as stopped:
        status = 128 + stopped.signum
        raise
    finally:
        if not place.rank:
            ranks.end(status)
        _end_if_abandoned(ranks, status)
    return status


def _end_if_abandoned(ranks: ExistingRanks, status: int) -> None:
    """End this process at once if the exit of Python could wait for the other ranks; see `ExistingRanks`."""
    if ranks.is_abandoned:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _serve(ranks: ExistingRanks, stop: StopSignals) -> int:
    """Take part in the runs that the first rank sends, and return its exit status."""

    def raise_if_stopped() -> None:
        if signum := stop():
            raise StoppedError(signum)

    while "status" not in (job := ranks.receive(raise_if_stopped)):
        trainer = job["settings"]["trainer"]
        try:
            uses_cuda = use_card(ranks.place.local_rank, trainer)
            with ranks.joined(timeout=options_of(trainer).collective_timeout, cuda=uses_cuda) as group:
                group.stop = stop
                require_own_card(group, uses_cuda=uses_cuda)
                train_rank(train, job, group)
        except USER_ERRORS as error:
            if not ranks.is_reported(error):
                lines = error.problems if isinstance(error, InputError) else [str(error.args[-1])]
                print(escape_lines("\n".join(f"error: {line}" for line in lines)), file=sys.stderr)
        except StoppedError:
            continue
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return 1
    return int(job["status"])
