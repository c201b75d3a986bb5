"""Trials of benchmarks/slurm.sh: sweeps whose node dies, interrupted sweeps, and long sweeps."""

import signal
import time
from datetime import datetime

from slurm_cluster import Place, kill_node, require, start_node

JOBS = 50


def node(place: Place) -> str:
    """Let the node of two jobs die and come back."""
    sweep = place.sweep("seed=0,1")
    place.wait_for("both jobs to train", lambda: [len(place.rows(run)) > 2 for run in place.runs(sweep)] == [True] * 2)
    kill_node()
    place.wait_for("both jobs to be requeued", lambda: list(place.queue().values()) == ["PENDING"] * 2)
    start_node()
    place.quicken()
    place.ends(sweep, status=0)  # SLURM makes them wait for two minutes, in which it cleans up the node
    place.require_whole(sweep, jobs=2, were_killed=True)
    first = next(run for run in place.runs(sweep) if place.record(run)["seed"] == 0)
    place.require_same(first, place.alone("seed=0"))
    return f"2 jobs, {place.starts(sweep)} starts, finished; weights and rows equal those of an uninterrupted run"


def lost_node(place: Place) -> str:
    """Let the node of two jobs die that SLURM may not requeue."""
    sweep = place.sweep("seed=0,1", "+hydra.launcher.additional_parameters.no_requeue=true")
    place.wait_for("both jobs to train", lambda: [len(place.rows(run)) > 2 for run in place.runs(sweep)] == [True] * 2)
    kill_node()
    began = time.time()
    seconds = place.ends(sweep, status=1, timeout=180) - began
    said = sweep.err.read_text()
    for number in (0, 1):
        require(f"error: job {number} (" in said, f"job {number} is not named: {said[-400:]}")
    require("(NODE_FAIL)" in said, f"the reason is not told: {said[-400:]}")
    require(f"resume with: resnet-train -m resume={sweep.folder.relative_to(place.path)}" in said, said[-400:])
    require(place.statuses(sweep) == ["failed"] * 2, f"jobs are {place.statuses(sweep)}")
    start_node()
    place.quicken()
    place.ends(place.resume(sweep), status=0)
    place.require_whole(sweep, jobs=2, were_killed=True)
    return f"reported after {seconds:.0f} s, both jobs by name with NODE_FAIL; finished by the command that was printed"


def stop(place: Place) -> str:
    """Interrupt a sweep while some of its jobs are pending."""
    sweep = place.sweep("seed=range(4)", "hydra.launcher.array_parallelism=2")
    place.wait_for("two jobs to train", lambda: [len(place.rows(run)) > 2 for run in place.runs(sweep)] == [True] * 2)
    began = time.time()
    sweep.process.send_signal(signal.SIGINT)
    seconds = place.ends(sweep, status=130, timeout=120) - began
    require(place.statuses(sweep) == ["interrupted"] * 2, f"jobs are {place.statuses(sweep)}")
    require("PENDING" not in place.states(), f"the queue has {place.queue()}")
    place.quicken()
    place.ends(place.resume(sweep), status=0)
    place.require_whole(sweep, jobs=4)
    return f"ended after {seconds:.0f} s, 2 jobs interrupted, none waits; 4 finished after -m resume="


def array(place: Place) -> str:
    """Run many jobs in an array of two at a time."""
    place.quicken()
    sweep = place.sweep(f"seed=range({JOBS})", "hydra.launcher.array_parallelism=2", "trainer.epochs=1")
    most, deadline = 0, time.monotonic() + 3600
    while sweep.process.poll() is None and time.monotonic() < deadline:
        most = max(most, list(place.queue().values()).count("RUNNING"))
        time.sleep(1)
    ended = place.ends(sweep, status=0, timeout=1)
    place.require_whole(sweep, jobs=JOBS, epochs=1)
    require(most == 2, f"{most} jobs ran at once, as the queue says")
    records = [place.record(run) for run in place.runs(sweep)]
    spans = [
        tuple(datetime.fromisoformat(record[key]).timestamp() for key in ("started", "ended")) for record in records
    ]
    together = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    require(together <= 2, f"{together} jobs trained at once, as their records say")
    late = ended - max(end for _, end in spans)
    require(late < 60, f"the command ended {late:.0f} s after the last job")
    said = sweep.err.read_text()
    require(not said, f"on stderr: {said[:300]}")
    require(f"{JOBS} runs: {JOBS} finished" in sweep.out.read_text(), "the table does not count them")
    return f"{JOBS} finished, at most {most} at once, the table {late:.0f} s after the last job, nothing on stderr"
