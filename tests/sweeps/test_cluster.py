"""What a SLURM cluster says: one note where it keeps no accounting, and lines why it refuses jobs."""

import logging
import signal

import pytest

from resnet_cli.errors import InputError
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.sweeps.cluster import NO_ACCOUNTING, cluster_messages
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.worker import job_process

submitit = pytest.importorskip("submitit")


class SlurmLauncher:
    """Stands for Hydra's."""


def test_missing_accounting_is_told_once(monkeypatch, tmp_path, capfd):
    sacct = tmp_path / "sacct"
    sacct.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    sacct.chmod(0o755)
    monkeypatch.setattr(logging.getLogger("submitit"), "disabled", False)  # Hydra's configuration disables loggers
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    from submitit.slurm.slurm import SlurmJob

    before = SlurmJob.watcher
    with cluster_messages(SlurmLauncher()):
        for _ in range(3):
            SlurmJob.watcher.get_info("1", mode="force")
            SlurmJob.watcher._last_status_check = float("-inf")
        assert SlurmJob.watcher.num_calls == 3
    assert capfd.readouterr() == ("", f"{NO_ACCOUNTING}\n")
    assert SlurmJob.watcher is before
    assert not logging.getLogger("submitit").filters


def test_jobs_that_the_cluster_refuses_are_wrong_input():
    from submitit.core.utils import FailedJobError

    said = "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed\n"
    with pytest.raises(InputError) as raised, cluster_messages(SlurmLauncher()):
        raise FailedJobError(said)
    assert str(raised.value).splitlines() == [f"hydra.launcher: {line}" for line in said.splitlines()]


def test_other_errors_and_launchers_are_left_alone():
    for launcher in (SlurmLauncher(), object()):
        with pytest.raises(RuntimeError, match="of a job"), cluster_messages(launcher):
            raise RuntimeError("of a job")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="a signal of Unix")
def test_a_job_that_is_signalled_before_its_time_limit_saves_and_is_requeued(monkeypatch, tmp_path):
    events = []

    def checkpoint_and_try_requeue(signum, frame):
        events.append("requeued")
        raise SystemExit(-1)

    def run(*, is_stopped):
        with job_process(StopSignals(), SweepDir(tmp_path)) as (_, should_stop):  # signals of another process
            assert should_stop() is None
            signal.raise_signal(signal.SIGUSR2)
            assert should_stop() == signal.SIGTERM, "which ranks understand too"
            events.append("saved")
            if is_stopped:
                raise JobStoppedError(signal.SIGTERM)

    before = signal.signal(signal.SIGUSR2, checkpoint_and_try_requeue)
    try:
        with pytest.raises(SystemExit):
            run(is_stopped=True)
        assert events == ["saved", "requeued"]
        run(is_stopped=False)  # it has ended before it was to stop
        assert events == ["saved", "requeued", "saved"]
        assert signal.getsignal(signal.SIGUSR2) is checkpoint_and_try_requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
