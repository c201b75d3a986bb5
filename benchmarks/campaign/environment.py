"""Letter G: runs beside each other, wrong clocks, little shared memory, dead and hung workers."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from campaign.bad_input import SMALL
from campaign.checks import changes, listing, refusal, success
from campaign.harness import Bench, Namespace, Running, Test, Trial, leftovers, outcome, same, works

# Put before a command by `PYTHONPATH`: the clock stands still, is elsewhere, or jumps once some seconds have gone by.
CLOCK = """
import datetime, os, time
_time, _started = time.time, time.time()
_at, _shift, _jump = (os.environ.get(name) for name in ("CLOCK_AT", "CLOCK_SHIFT", "CLOCK_JUMP"))

def now():
    if _at:
        return float(_at)
    moved = _time() + float(_shift or 0)
    if _jump:
        after, by = map(float, _jump.split(":"))
        if _time() - _started > after:
            moved += by
    return moved

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(now(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)

time.time = now
time.time_ns = lambda: int(1e9 * now())
datetime.datetime = Shifted
"""
DAY = 86_400


def clock(bench: Bench, **variables: object) -> dict[str, str]:
    """Return the environment of a command with another clock, installed by `sitecustomize` before any other import."""
    folder = bench.root / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CLOCK)
    path = f"{folder}{os.pathsep}{Path(__file__).resolve().parents[2]}"
    return {"PYTHONPATH": path, **{f"CLOCK_{name.upper()}": str(value) for name, value in variables.items()}}


def one_second(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    at = clock(bench, at=int(time.time()))
    for what, count, more in [("runs", 8, []), ("sweeps", 4, ["-m", "seed=0,1", "data.count=64"])]:
        count = min(count, 2) if bench.quick else count
        arguments = [option for option in SMALL if option.partition("=")[0] not in ("seed", "data.count")] + more
        started = [bench.start(*arguments, cwd=folder, env=at) for _ in range(count)]
        problems = [success(run.wait(300)) for run in started]
        top = "outputs" if what == "runs" else "multirun"
        found = [path for path in (folder / top).glob("*/*") if path.is_dir()]
        records = list((folder / top).rglob("run.json"))
        wanted = count if what == "runs" else 2 * count
        for problem in problems[:-1]:
            yield Trial(f"one of {count} {what}", not problem, problem)
        problem = problems[-1] or ("" if len(found) == count else f"{len(found)} folders for {count} {what}")
        problem = problem or ("" if len(records) == wanted else f"{len(records)} runs, not {wanted}")
        yield Trial(f"{count} {what}, {count} folders", not problem, problem)


def _long(bench: Bench, *more: str) -> list[str]:
    """Return a run that lasts until it is killed."""
    given = {option.partition("=")[0] for option in more}
    return [option for option in bench.tiny if option.partition("=")[0] not in given] + list(more)


def _saved(run: Path) -> bool:
    return (run / "checkpoints/last.pt").exists()


def one_writer(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    seconds = {
        "resume": ["resume=run"],
        "resume=auto": [*bench.tiny, "resume=auto", "hydra.run.dir=run"],
        "the same command": [*bench.tiny, "hydra.run.dir=run"],
        "another path of it": [*bench.tiny, "resume=auto", f"hydra.run.dir={folder}/link/../run"],
        "by a link": ["resume=link"],
    }
    (folder / "link").symlink_to("run")
    seconds["another path of it"][-1] = f"hydra.run.dir={folder}/./run"
    whole = bench.fork(*_long(bench, "trainer.epochs=6"), "hydra.run.dir=whole", cwd=folder)
    if whole.status:
        yield Trial("the run", False, success(whole))
        return
    for name, arguments in list(seconds.items())[: 1 if bench.quick else None]:
        if (folder / "run").exists():
            (folder / "run").rename(bench.root / f"before {name}")
        first = bench.start(*_long(bench, "trainer.epochs=6"), "hydra.run.dir=run", cwd=folder, forked=True)
        first.until(lambda: _saved(folder / "run"))
        first.signal(signal.SIGSTOP)  # it must not end before the second has been told
        words = [] if name == "the same command" else [f"pid {first.pid}", socket.gethostname()]
        second = bench.fork(*arguments, cwd=folder)
        first.signal(signal.SIGCONT)
        problem = refusal(second, *words, most=1)
        if name == "the same command" and not problem and f"pid {first.pid}" not in second.err:
            problem = f"does not name pid and host: {second.err!r}"
        problem = problem or success(first.wait()) or same(outcome(folder / "whole"), outcome(folder / "run"))
        yield Trial(f"second by {name}", not problem, problem or leftovers(folder / "run"))
    for number in range(1 if bench.quick else 5):
        run = folder / f"killed {number}"
        options = ["data.backend=stream", "data.workers=2"]
        arguments = [*_long(bench, "trainer.epochs=6"), *options, f'hydra.run.dir="{run}"']
        first = bench.start(*arguments, cwd=folder, forked=True)
        first.until(lambda: _saved(run))  # noqa: B023  it is called at once
        workers = first.children()
        first.kill()
        killed = time.monotonic()
        alive = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        again = bench.start("resume=auto", *arguments, cwd=folder, forked=True)
        delay = time.monotonic() - killed
        problem = success(again.wait())
        problem = problem or same(outcome(folder / "whole"), outcome(run))
        problem = problem or ("" if workers else "no workers were there") or (f"{delay:.1f} s" if delay > 1 else "")
        yield Trial(f"relaunch after SIGKILL {number}", not problem, problem or f"{len(alive)} workers alive")


def clocks(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    shifts = {"a day back": -DAY, "ten years on": 3_653 * DAY, "1970": -int(time.time()) + DAY}
    whole = bench.fork(*bench.tiny, "hydra.run.dir=whole", cwd=folder)
    if whole.status:
        yield Trial("the run", False, success(whole))
        return
    goal = outcome(folder / "whole")
    for name, shift in list(shifts.items())[: 1 if bench.quick else None]:
        run = folder / f"resumed-{shift}"
        first = bench.start(*bench.tiny, f"hydra.run.dir={run.name}", cwd=folder, forked=True)
        first.until(lambda: len(_rows(run)) >= 1)  # noqa: B023  it is called at once
        first.kill()
        first.wait()
        done = bench.cli(f"resume={run.name}", cwd=folder, env=clock(bench, shift=shift))
        problem = success(done) or same(goal, outcome(run)) or _times(run) or leftovers(run)
        yield Trial(f"resumed {name}", not problem, problem)
    for name, by in [] if bench.quick else [("an hour", -3600), ("a day", -DAY), ("a year on", 365 * DAY)]:
        run = folder / f"jump{by}"
        epochs = ["trainer.epochs=40"]  # from before the jump to after it
        env = clock(bench, jump=f"6:{by}")
        done = bench.cli(*_long(bench, *epochs), f"hydra.run.dir={run.name}", cwd=folder, env=env, timeout=120)
        problem = success(done) or _times(run) or leftovers(run)
        if not problem:
            done = bench.cli(f"resume={run.name}", "trainer.epochs=41", cwd=folder, env=clock(bench, shift=by))
            problem = success(done) or _times(run) or ("" if len(_rows(run)) == 41 else f"{len(_rows(run))} rows")
        yield Trial(f"{name} in the middle of it", not problem, problem)


def _rows(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _times(run: Path) -> str:
    """Return the first row with an impossible time or rate, or nothing."""
    for row in _rows(run):
        if not 0 <= row["seconds"] < 600 or (row["samples_per_second"] or 1) <= 0:
            return f"epoch {row['epoch']}: {row['seconds']} s, {row['samples_per_second']} a second"
    return ""


def workers(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    stream = ["data.backend=stream", "data.workers=2"]
    if works("unshare", "-m"):
        for size in ["1m"] if bench.quick else ["1m", "64k"]:
            with Namespace() as space:
                space.sh(f"mount -t tmpfs -o size={size} tmpfs /dev/shm")
                arguments = [
                    *_long(bench, "data.batch_size=100"),
                    *stream,
                    f'hydra.run.dir="{folder}/shm{size}"',
                ]  # nsenter leaves the folder
                before = listing(folder)
                done = bench.cli(*arguments, cwd=folder, prefix=space.prefix)
            problem = success(done) if done.status == 0 else refusal(done, "data.workers=0", status=(2, 4), seconds=30)
            problem = problem or (changes(folder, before) if done.status else "")
            yield Trial(f"/dev/shm of {size}", not problem, problem or f"exit {done.status}")
    else:
        yield Trial("/dev/shm of 1m", False, "unshare -m does not work here", skipped=True)
    for name, number in [("killed", signal.SIGKILL)] if bench.quick else [
        ("killed", signal.SIGKILL), ("hung", signal.SIGSTOP)
    ]:  # fmt: skip
        options = ["trainer.epochs=1000", "data.worker_timeout=10"]
        arguments = [*_long(bench, *options), *stream, f"hydra.run.dir={name}"]
        run = bench.start(*arguments, cwd=folder, forked=True)
        run.until(lambda: len(_rows(folder / name)) >= 1)  # noqa: B023  it is called at once
        problem = _strike(run, number) or ("" if _saved(folder / name) else "no save")
        yield Trial(f"a worker is {name}", not problem, problem)


def _strike(run: Running, number: int) -> str:
    """Send a signal to one worker, and see the run end with the remedy within 30 seconds."""
    found = run.children()
    if not found:
        return "no workers were there"
    os.kill(found[0], number)
    struck = time.monotonic()
    done = run.wait(120)
    seconds = time.monotonic() - struck
    problem = refusal(done, "data.workers=0", status=(2, 4), most=1)
    end = time.monotonic() + 10  # the other worker needs a moment to see that its parent has ended
    while (left := run.children()) and time.monotonic() < end:
        time.sleep(0.1)
    return problem or (f"took {seconds:.0f} s" if seconds > 30 else "") or (f"left {left}" if left else "")


TESTS = (
    Test("G1", "runs and sweeps of the same second", 2, one_second),
    Test("G2", "a second process on a run; again after SIGKILL", 2, one_writer),
    Test("G3", "clocks that are wrong, or jump", 1, clocks),
    Test("G4", "little shared memory, dead and hung workers", 1, workers),
)
