"""The signal that a SLURM cluster sends to a job before its time limit."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from resnet_cli.errors import StoppedError
from resnet_cli.session.signals import JobStoppedError


@contextmanager
def requeue_when_stopped() -> Iterator[None]:
    """Inside the block, let a job that SLURM signals before its time limit save before submitit requeues it.

    submitit requeues a job in its handler of that signal and raises `SystemExit` out of it, wherever the job is. Here
    the signal stops the job as SIGTERM does, after the step and with a save, and the handler is called then.
    """
    number = getattr(signal, "SIGUSR2", None)
    requeue = None if number is None else signal.getsignal(number)
    if number is None or getattr(requeue, "__name__", "") != "checkpoint_and_try_requeue":
        yield
        return
    assert callable(requeue)
    is_signalled = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal is_signalled
        is_signalled = True
        signal.raise_signal(signal.SIGTERM)

    signal.signal(number, stop)
    try:
        yield
    except (JobStoppedError, StoppedError):
        if is_signalled:
            requeue(number, None)  # raises SystemExit
        raise
    finally:
        signal.signal(number, requeue)
