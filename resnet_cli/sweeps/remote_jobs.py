"""Jobs of a sweep that other processes train: wait for them, and find those that are left to do."""

import time
from collections.abc import Iterator, MutableSequence

from hydra.core.utils import JobReturn, JobStatus

from resnet_cli.runs.lock import is_in_use
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.job import JobElsewhereError
from resnet_cli.sweeps.launch import SweepLaunch
from resnet_cli.sweeps.placement import resolve_job_folder

POLL_SECONDS = 1.0  # between looks at a folder that another process writes


def unfinished_elsewhere(
    results: MutableSequence[JobReturn], first: int, launch: SweepLaunch | None
) -> Iterator[range]:
    """Wait for the jobs that other processes train, and yield the numbers of those that did not finish there.

    Such a job was launched by a command that was killed, or outside this sweep. Consecutive numbers form one range.

    Args:
        results: The results of jobs in order; those of jobs that finished elsewhere are completed.
        first: The number of the first of them.
        launch: The launch of the sweep, whose signals end the waiting.

    Raises:
        JobStoppedError: a signal was received.
    """
    left: list[int] = []
    for number, result in enumerate(results, first):
        error = result._return_value
        if result.status == JobStatus.FAILED and isinstance(error, JobElsewhereError):
            _wait(error, launch)
            if resolve_job_folder(error.folder, error.settings).is_finished:
                result.status, result.return_value = JobStatus.COMPLETED, None
            else:
                left.append(number)
    while left:
        count = next((index for index, number in enumerate(left) if number != left[0] + index), len(left))
        yield range(left[0], left[0] + count)
        del left[:count]


def _wait(error: JobElsewhereError, launch: SweepLaunch | None) -> None:
    while is_in_use(error.folder):
        if launch is not None and launch.signum is not None:
            raise JobStoppedError(launch.signum)
        time.sleep(POLL_SECONDS)
