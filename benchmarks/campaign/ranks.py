"""Runs on several processes: a rank is killed or the launcher is stopped, and the run is resumed."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from campaign.checkpoints import command, ended_alike
from campaign.harness import Bench, Running, Trial, outcome, session

SHARDED = ("trainer.deterministic=true", "trainer.shards=6", "trainer.epochs=12")
WITHIN = 60.0  # seconds from a rank's death or a signal to the end of all, on a busy machine
GRACE = 3.0  # for multiprocessing's own helper, which ends after its processes
CHANGES = ((2, 2), (3, 3), (2, 1), (3, 2), (2, 3), (1, 2))  # processes before and after


def killed(bench: Bench) -> Iterator[Trial]:
    """Kill one rank or the whole run; resume on the same number of processes, on fewer and on more."""
    whole = _whole(bench)
    for before, after in CHANGES[: bench.count(len(CHANGES), 1)]:
        for what in ("one rank", "all of it") if before > 1 else ("all of it",):
            run = bench.folder("parts") / "run"
            started = _begun(bench, run, before)
            problem = "it did not begin" if started is None else _kill(started, what)
            if not problem:
                arguments = command(bench, run, *SHARDED, f"trainer.processes={after}")
                problem = ended_alike(bench.cli(*arguments, timeout=200), run, whole)
            yield Trial(f"{what} of {before} killed, resumed on {after}", not problem, problem)


def stopped(bench: Bench) -> Iterator[Trial]:
    """Send SIGTERM to the launcher, or Ctrl-C to its group: the run is saved, all exit, and it resumes exactly."""
    whole = _whole(bench)
    kinds = ((signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True))
    for number, group in kinds[: bench.count(len(kinds), 1)]:
        run = bench.folder("parts") / "run"
        started = _begun(bench, run, 2)
        problem = "it did not begin"
        if started is not None:
            sent = time.monotonic()
            started.signal(number, group=group)
            done = started.wait(WITHIN + 5)
            late = time.monotonic() - sent
            problem = done.clean(128 + number) or (f"{late:.1f} s after the signal" if late > WITHIN else "")
            problem = problem or _alive(started)
        if not problem:
            arguments = command(bench, run, *SHARDED, "trainer.processes=2")
            problem = ended_alike(bench.cli(*arguments, timeout=200), run, whole)
        yield Trial(f"{number.name} to {'the group' if group else 'the launcher'}", not problem, problem)


def _whole(bench: Bench) -> dict[str, str]:
    """Return the outcome of the run on one process, never stopped."""
    run = bench.folder("whole") / "run"
    problem = bench.cli(*command(bench, run, *SHARDED), timeout=200).clean(lines=0)
    return {} if problem else outcome(run)


def _begun(bench: Bench, run: Path, processes: int) -> Running | None:
    """Start a run, and return it once it has saved something and a moment more has passed."""
    started = bench.start(*command(bench, run, *SHARDED, f"trainer.processes={processes}"))
    if not started.until((run / "checkpoints/last.pt").exists, timeout=180):
        started.kill(group=True)
        return None
    time.sleep(bench.random.uniform(0, 0.5))
    return started


def _kill(started: Running, what: str) -> str:
    """Kill a rank or a whole run; return what is wrong with how it ended."""
    if what == "all of it":
        started.kill(group=True)
        started.wait(WITHIN)
        return ""
    ranks = [pid for pid in started.children() if _is_rank(pid)]
    if len(ranks) < 2:
        return f"{len(ranks)} ranks were found"
    began = time.monotonic()
    os.kill(ranks[-1], signal.SIGKILL)
    done = started.wait(WITHIN + 5)
    late = time.monotonic() - began
    if done.status != 1:
        return f"exit {done.status}, not 1: {done.err.strip()[-300:]}"
    return (f"{late:.1f} s after the kill" if late > WITHIN else "") or _alive(started)


def _is_rank(pid: int) -> bool:
    """Return whether a process is a rank: those that multiprocessing has spawned."""
    with suppress(OSError):  # it has just ended
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _alive(started: Running) -> str:
    """Return how many processes of an ended run are still alive, after a grace period for helper processes."""
    deadline = time.monotonic() + GRACE
    while (left := session(started.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return f"{len(left)} processes live" if left else ""
