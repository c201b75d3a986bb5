"""Jobs on a SLURM cluster: how they end, as its queue says; why it refuses them; its signal before the time limit."""

import json
import signal
import time

import pytest
from hydra.core.utils import JobReturn, JobStatus

from resnet_cli.errors import InputError, JobFailedError
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.sweeps.folder import FAILURE, SweepDir
from resnet_cli.sweeps.slurm_jobs import LaunchedJob, followed_on_cluster
from resnet_cli.sweeps.slurm_queue import queue_watcher
from resnet_cli.sweeps.worker import job_process

submitit = pytest.importorskip("submitit")
JOBS = [LaunchedJob(5, "seed=5", ["seed=5"]), LaunchedJob(6, "seed=6", ["seed=6"])]


class SlurmLauncher:
    """Stands for Hydra's."""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with `squeue`, which prints its file `queue`, and `scancel`, which notes what it is told."""
    place = tmp_path / "slurm"
    place.mkdir()
    for name, script in {
        "squeue": f"cat {place}/queue || exit 1",
        "scancel": f"echo $* >> {place}/cancelled",
        "sacct": f"touch {place}/asked; exit 1",
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    return place


def test_a_job_has_ended_when_the_queue_says_so_twice(slurm, capfd):
    ended = {}
    watcher = queue_watcher(lambda: False, ended)

    def states(queue=None):
        if queue is not None:
            (slurm / "queue").write_text("".join(f"{line}\n" for line in queue))
        watcher._last_status_check = float("-inf")
        return [watcher.is_done(job) for job in ("7_0", "7_1")]

    assert states() == [False, False], "the queue does not answer"
    assert states() == [False, False]
    err = capfd.readouterr().err
    assert err.startswith("note: cat: ")
    assert err.count("\n") == 1
    assert states(["7_0|NODE_FAIL", "7_1|RUNNING"]) == [False, False]
    assert states(["7_0|PENDING", "7_1|COMPLETED"]) == [False, False], "it was requeued"
    assert states(["7_0|RUNNING", "8|FAILED"]) == [False, True], "what the queue has forgotten has ended"
    assert states(["7_0|SUSPENDED"]) == [False, True]
    assert list(ended) == ["7_1"]
    assert capfd.readouterr() == ("", "")


def test_jobs_that_wait_are_taken_out_of_the_queue_at_a_stop(slurm):
    (slurm / "queue").write_text("7_0|RUNNING\n7_1|PENDING\n")
    stopped = []
    watcher = queue_watcher(lambda: bool(stopped), {})
    assert [watcher.is_done(job) for job in ("7_0", "7_1")] == [False, False]
    assert not (slurm / "cancelled").exists()
    stopped.append(True)
    (slurm / "queue").write_text("7_0|RUNNING\n7_1|CANCELLED\n")
    for _ in range(3):
        watcher._last_status_check = float("-inf")
        watcher.is_done("7_0")
    assert (slurm / "cancelled").read_text() == "--quiet --state=PENDING 7_0 7_1\n"
    assert [watcher.is_done(job) for job in ("7_0", "7_1")] == [False, True]


def test_a_job_that_dies_is_recorded_and_the_others_are_waited_for(slurm, tmp_path, capfd):
    from submitit.core import utils
    from submitit.slurm.slurm import SlurmJob

    (slurm / "queue").write_text("9_0|NODE_FAIL\n9_1|COMPLETED\n")
    sweep, before = SweepDir(tmp_path / "s"), (SlurmJob.results, SlurmJob.watcher)
    (sweep.path / "seed=5").mkdir(parents=True)
    record = sweep.path / "seed=5" / "run.json"
    record.write_text('{"status": "running"}')
    good = JobReturn(status=JobStatus.COMPLETED, _return_value=1.0)
    with followed_on_cluster(SlurmLauncher(), sweep, JOBS):
        jobs = [SlurmJob(sweep.path / ".submitit" / "%j", job_id=f"9_{index}") for index in (0, 1)]
        for job in jobs:
            job.paths.folder.mkdir(parents=True)
            job.watcher.is_done(job.job_id)
            job.watcher._last_status_check = float("-inf")
        with utils.temporary_save_path(jobs[1].paths.result_pickle) as path:
            utils.cloudpickle_dump(("success", good), path)
        for job in jobs:
            job.watcher.is_done(job.job_id, mode="force")
        monotonic_end = pytest.MonkeyPatch()
        monotonic_end.setattr("resnet_cli.sweeps.slurm_jobs.RESULT_SECONDS", 0.0)
        (died,), (ended,) = jobs[0].results(), jobs[1].results()
        monotonic_end.undo()
    reason = "SLURM job 9_0 ended without a result (NODE_FAIL)"
    with pytest.raises(JobFailedError, match=r"job 5 \(seed=5\): SLURM job 9_0"):
        _ = died.return_value
    assert ended.return_value == 1.0
    assert {key: json.loads(record.read_text())[key] for key in ("status", "reason")} == {
        "status": "failed", "reason": reason,
    }  # fmt: skip
    ((line, is_error),) = map(json.loads, sweep.messages.read_text().splitlines())
    assert is_error
    assert line.startswith(f"error: job 5 (seed=5): {reason}; see {sweep.path}/.submitit/9_0/9_0_0_log.err")
    assert (SlurmJob.results, SlurmJob.watcher) == before
    assert not (slurm / "asked").exists(), "sacct needs accounting"
    capfd.readouterr()


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGINT, JobStoppedError), (FAILURE, JobFailedError)])
def test_a_job_that_never_began_is_stopped_and_not_failed(slurm, tmp_path, signum, error):
    from submitit.slurm.slurm import SlurmJob

    (slurm / "queue").write_text("9_1|CANCELLED\n")
    sweep = SweepDir(tmp_path / "s")
    sweep.path.mkdir()
    sweep.request_stop(signum)
    began = time.monotonic()
    with followed_on_cluster(SlurmLauncher(), sweep, JOBS):
        job = SlurmJob(sweep.path / ".submitit" / "%j", job_id="9_1")
        job.paths.folder.mkdir(parents=True)
        for _ in range(2):
            job.watcher._last_status_check = float("-inf")
            job.watcher.is_done(job.job_id)
        (stopped,) = job.results()
    with pytest.raises(error):
        _ = stopped.return_value
    assert not sweep.messages.exists()
    assert time.monotonic() - began < 10, "its result is not waited for"


def test_jobs_that_the_cluster_refuses_are_wrong_input(tmp_path):
    from submitit.core.utils import FailedJobError

    said = "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed\n"
    with pytest.raises(InputError) as raised, followed_on_cluster(SlurmLauncher(), SweepDir(tmp_path), JOBS):
        raise FailedJobError(said)
    assert str(raised.value).splitlines() == [f"hydra.launcher: {line}" for line in said.splitlines()]


def test_other_errors_and_launchers_are_left_alone(tmp_path):
    for launcher in (SlurmLauncher(), object()):
        with (
            pytest.raises(RuntimeError, match="of a job"),
            followed_on_cluster(launcher, SweepDir(tmp_path), JOBS),
        ):
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
