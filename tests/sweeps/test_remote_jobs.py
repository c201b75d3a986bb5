"""Jobs of a sweep that another process trains, as on a cluster after the launching process was killed."""

import json
import multiprocessing
import time

import pytest

from resnet_cli.runs.lock import exclusive
from tests.support.runs import job, records, rows_of, tiny


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("ends_well", [True, False])
def test_a_job_that_another_process_trains_is_waited_for(ends_well, train, tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_cli.sweeps.remote_jobs.POLL_SECONDS", 0.05)
    command = tiny("-m", "seed=0,1", "trainer.epochs=1", "trainer.max_batches=1", "hydra.sweep.dir=s")
    assert train(*command)[0] == 0
    other = job(tmp_path / "s", "seed=1")
    record = other / "run.json"
    finished = record.read_text()
    record.write_text(json.dumps({**json.loads(finished), "status": "running"}))
    context = multiprocessing.get_context("fork")
    holds, may_end = context.Event(), context.Event()

    def hold():
        with exclusive(other):
            holds.set()
            may_end.wait(20)
            time.sleep(0.2)
            if ends_well:
                record.write_text(finished)

    process = context.Process(target=hold)
    process.start()
    assert holds.wait(20)
    monkeypatch.setattr("resnet_cli.sweeps.grid.unfinished_elsewhere", waking(may_end.set))
    status, out, err = train("-m", "resume=s")
    process.join()
    assert (status, err) == (0, ""), out
    assert out.count("is being trained by another process; waiting for it") == 1
    assert {one["status"] for one in records(tmp_path / "s").values()} == {"finished"}
    assert len(rows_of(other)) == 1
    assert out.count(": starts") == (not ends_well), "what the other process has left is gone on with"


def waking(wake):
    """The waiting itself, after a call."""
    from resnet_cli.sweeps.remote_jobs import unfinished_elsewhere

    def wait(*arguments):
        wake()
        return unfinished_elsewhere(*arguments)

    return wait
