"""C. Signals: SIGTERM, Ctrl-C and a second Ctrl-C at every phase of a run, and what is left when all is over."""

import json
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from campaign import ranks
from campaign.checkpoints import WORKERS, command, ended_alike, whole_run
from campaign.harness import Bench, Done, Test, Trial, leftovers, outcome, same, session, works

# The process signals itself or its group at an exact place: at the n-th check for signals by a function (see
# exact_resume.py), or in the middle of the n-th save of the whole state. The time of the last signal is recorded.
SIGNAL = """
import os, sys, time
from resnet_cli.session.signals import StopSignals
from resnet_cli.session.saver import RunSaver
phase, number, signals, group, note = {phase!r}, {number}, {signals!r}, {group}, {note!r}
looks = saves = 0
look, last, fsync = StopSignals.__call__, RunSaver.save_last, os.fsync

def send():
    for i, one in enumerate(signals):
        time.sleep(0.2 if i else 0)
        with open(note, "w") as file:
            file.write(repr(time.monotonic()))
        os.killpg(0, one) if group else os.kill(os.getpid(), one)

def looked(self):
    global looks
    frame, callers = sys._getframe(1), set()
    while frame is not None and len(callers) < 4:
        callers.add(frame.f_code.co_name)
        frame = frame.f_back
    found = phase in callers
    looks += found
    if found and looks == number:
        send()
    return look(self)

def synced(descriptor):
    os.fsync = fsync
    send()
    fsync(descriptor)

def saved(self, state):
    global saves
    saves += 1
    if phase == "save" and saves == number:
        os.fsync = synced
    last(self, state)

StopSignals.__call__, RunSaver.save_last = looked, saved
"""
PHASES = {  # the place, and the step at which the run must have stopped
    "training": ("after_step", 6, 6),
    "validation": ("iterate", 2, 8),
    "a save": ("save", 7, 7),
    "a sweep": ("after_step", 18, 6),  # of 12 steps each: in the second job
}
TO = {"to the process": False, "to the group": True}


def terminated(bench: Bench) -> Iterator[Trial]:
    """SIGTERM in each phase, to the process or all of its group, without and with workers."""
    cells = list(product(["the start", *PHASES], TO, WORKERS))
    for phase, to, workers in cells if not bench.quick else [("validation", "to the group", "2 workers")]:
        problem = stopped(bench, phase, WORKERS[workers], [signal.SIGTERM], group=TO[to], within=10)
        yield Trial(f"{phase}, {to}, {workers}", not problem, problem)


def interrupted(bench: Bench) -> Iterator[Trial]:
    """Ctrl-C, which a terminal sends to the whole group; and a second one 0.2 s later."""
    cells = list(product(["the start", *PHASES], WORKERS))
    for phase, workers in cells if not bench.quick else [("a save", "2 workers")]:
        problem = stopped(bench, phase, WORKERS[workers], [signal.SIGINT], group=True, within=10)
        yield Trial(f"{phase}, {workers}", not problem, problem)
    for workers in WORKERS if not bench.quick else ():
        problem = stopped(bench, "training", WORKERS[workers], [signal.SIGINT] * 2, group=True, within=1)
        yield Trial(f"twice in training, {workers}", not problem, problem)


def stopped(bench: Bench, phase: str, options: list[str], signals: Sequence[int], *, group: bool, within: float) -> str:
    """Stop a run and resume it; return what is wrong with either."""
    whole, _ = whole_run(bench, *options)
    run = bench.folder("parts") / "run"
    if phase == "the start":
        return at_start(bench, command(bench, run, *options), run, whole, signals[0], group=group)
    if phase == "a sweep":
        return in_sweep(bench, options, run, signals, group=group, within=within)
    done, late = signalled(bench, command(bench, run, *options), phase, signals, group=group)
    problem = ended_by(done, signals[0], late, within) or at_step(run, PHASES[phase][2], exact=len(signals) == 1)
    return problem or ended_alike(bench.fork(*command(bench, run, *options)), run, whole)


def at_start(bench: Bench, arguments: list[str], run: Path, whole: dict[str, str], number: int, *, group: bool) -> str:
    """Send a signal to the real command, imports included, at any time before there is a record."""
    started = bench.start(*arguments)
    time.sleep(bench.random.uniform(0.05, 2.5))
    began = (run / "run.json").exists()
    sent = time.monotonic()
    started.signal(number, group=group)
    done = started.wait()
    by_default = done.status == -number  # before the program's first line: the shell says 128 + number then too
    problem = "" if by_default else ended_by(done, number, time.monotonic() - sent, 10)
    if not problem and not began and run.exists():
        problem = f"left behind: {[str(path) for path in run.rglob('*')]}"
    return problem or ended_alike(bench.fork(*arguments), run, whole)


def in_sweep(bench: Bench, options: list[str], run: Path, signals: Sequence[int], *, group: bool, within: float) -> str:
    """Stop the second of two jobs; the printed command resumes the sweep."""
    jobs = [*bench.tiny_with(*options), "-m", "seed=0,1"]
    whole = bench.root / "sweep"
    if not whole.exists():
        bench.fork(*jobs, f"hydra.sweep.dir={whole}")
    done, late = signalled(bench, [*jobs, f"hydra.sweep.dir={run}"], "a sweep", signals, group=group)
    problem = ended_by(done, signals[0], late, within)
    if problem:
        return problem
    go_on = [
        line.partition("resume with: resnet-train ")[2] for line in done.out.splitlines() if "resume with: " in line
    ]
    folders = sorted(path.parent.relative_to(run) for path in run.rglob("run.json"))
    if len(go_on) != 1 or len(folders) != 2:
        return f"{len(folders)} jobs, {len(go_on)} ways to go on: {done.out[-300:]}"
    records = {path.parent: json.loads(path.read_text()) for path in run.rglob("run.json")}
    stopped = [path for path, record in records.items() if record["status"] == "interrupted"]
    if len(stopped) != 1:
        return f"the jobs are {', '.join(record['status'] for record in records.values())}"
    problem = at_step(stopped[0], PHASES["a sweep"][2]) or bench.fork(*shlex.split(go_on[0])).clean(lines=0)
    unstopped = {json.loads(path.read_text())["seed"]: path.parent for path in whole.rglob("run.json")}
    for path, record in records.items() if not problem else ():
        problem = problem or same(outcome(unstopped[record["seed"]]), outcome(path)) or leftovers(path)
    return problem


def signalled(
    bench: Bench, arguments: list[str], phase: str, signals: Sequence[int], *, group: bool
) -> tuple[Done, float]:
    """Run with signals from inside; also return the seconds from the last signal to the exit."""
    function, number, _ = PHASES[phase]
    note = bench.root / "note"
    note.unlink(missing_ok=True)
    numbers = [int(one) for one in signals]
    code = SIGNAL.format(phase=function, number=number, signals=numbers, group=group, note=str(note))
    done = bench.fork(*arguments, code=code)
    return done, time.monotonic() - float(note.read_text()) if note.exists() else 0.0


def ended_by(done: Done, number: int, late: float, within: float) -> str:
    """Return what is wrong with how a signal ended a run, or nothing."""
    problem = done.clean(128 + number, lines=2)
    return problem or (f"{late:.1f} s after the signal" if late > within else "")


def at_step(run: Path, step: int, *, exact: bool = True) -> str:
    """Return what is wrong with what a stopped run has saved, or nothing."""
    from resnet_cli.runs import checkpoints

    found = checkpoints.load(run / "checkpoints/last.pt")["state"]["step"]
    if found != step and (exact or found > step):
        return f"saved at step {found}, not {step}"
    return leftovers(run)


def orphans(bench: Bench) -> Iterator[Trial]:
    """Check for living processes and files in /dev/shm ten seconds after each kind of kill."""
    own = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh")
    prefix = own if works(*own) else ()
    options = [*WORKERS["2 workers"], "trainer.epochs=500"]
    shared = Path(f"/proc/{bench.server(prefix).pid}/root/dev/shm")
    before = {path.name for path in shared.iterdir()}
    kinds = {"SIGKILL": [9], "SIGTERM": [15], "SIGINT": [2], "SIGINT twice": [2, 2]}
    killed = []
    for kind, to in list(product(kinds, TO))[: bench.count(8, 2)]:
        run = bench.folder(f"{kind} {to}") / "run"
        started = bench.start(*command(bench, run, *options), forked=True, prefix=prefix)
        ready = started.until(lambda run=run: (run / "checkpoints/last.pt").exists())  # type: ignore[misc]
        for number in kinds[kind]:
            started.signal(number, group=TO[to])
            time.sleep(0.05)
        started.wait(30)
        killed.append((f"{kind} {to}", started.pid, ready))
    time.sleep(10)
    for name, pid, ready in killed:
        left = session(pid)
        problem = f"{len(left)} processes live" if left else "" if ready else "it did not begin"
        yield Trial(name, not problem, problem)
    more = sorted({path.name for path in shared.iterdir()} - before)
    yield Trial("/dev/shm", not more, f"left there: {', '.join(more[:5])}" if more else "")


TESTS = (
    Test("C1", "SIGTERM in every phase: 143 within 10 s, saved at the step, resumed identically", 5, terminated),
    Test("C2", "Ctrl-C in every phase: 130; a second one within 1 s", 2, interrupted),
    Test("C3", "SIGTERM to a launcher of ranks", 2, ranks.stopped),
    Test("C4", "10 s after a kill: no process and nothing in /dev/shm is left", 1, orphans),
)
