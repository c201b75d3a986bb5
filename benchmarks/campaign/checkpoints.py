"""A. Crash-safe checkpoints: runs killed anywhere, damaged saves, full disks, folders that cannot be written."""

import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from campaign.harness import Bench, Done, Namespace, Running, Test, Trial, belongs, leftovers, outcome, same, works

WORKERS = {
    "no workers": ["data.backend=stream", "data.workers=0"],
    "2 workers": ["data.backend=stream", "data.workers=2"],
}
KILLS = 3  # of a run, before it may end


def command(bench: Bench, folder: Path, *options: str) -> list[str]:
    """Return the command of the tiny run in a folder; the same command resumes it."""
    return [*bench.tiny_with(*options), "resume=auto", f"hydra.run.dir={folder}"]


def ended_alike(done: Done, run: Path, whole: Mapping[str, str]) -> str:
    """Return how a resumed run differs from one that was never stopped, or nothing."""
    return done.clean(lines=0) or same(whole, outcome(run)) or leftovers(run)


def kills(bench: Bench) -> Iterator[Trial]:
    """Kill runs up to three times each, at times drawn over the length of a whole run."""
    for forked, number in ((True, bench.count(200, 4)), (False, bench.count(20, 0))):
        while number > 0:
            for name, options in WORKERS.items():
                trials = list(chain(bench, f"{name}{'' if forked else ', command'}", options, forked, number))
                number -= len(trials)
                yield from trials


def chain(bench: Bench, name: str, options: list[str], forked: bool, most: int) -> Iterator[Trial]:
    """Kill and resume one run until it ends; every kill counts as a trial with the run's result."""
    whole, seconds = whole_run(bench, *options, forked=forked)
    run = bench.folder("parts") / "run"
    arguments, times = command(bench, run, *options), list[str]()
    for _ in range(min(KILLS, most)):
        after, group = bench.random.uniform(0.25, 1.0) * seconds, bench.random.random() < 0.3
        done = bench.cli(*arguments, kill_after=after, group=group, forked=forked)
        if done.status == 0:
            break
        times.append(f"{after:.2f} s{' (group)' if group else ''}")
        if done.status != -9:
            break
    else:
        done = bench.cli(*arguments, forked=forked)
    problem = ended_alike(done, run, whole)
    for when in times:
        yield Trial(f"{name}, killed after {when}", not problem, problem and f"{problem} (kills: {', '.join(times)})")


def whole_run(bench: Bench, *options: str, forked: bool = True) -> tuple[dict[str, str], float]:
    """Return the outcome of an uninterrupted run, and its seconds."""
    key = (options, forked)
    if key not in bench.kept:
        run = bench.folder("whole") / "run"
        bench.server()
        done = bench.cli(*command(bench, run, *options), forked=forked)
        if done.clean():
            raise RuntimeError(f"the run that is not stopped: {done.clean()}")
        bench.kept[key] = (outcome(run), done.seconds)
    found: tuple[dict[str, str], float] = bench.kept[key]
    return found


def damages(bench: Bench) -> Iterator[Trial]:
    """Kill a run in its third epoch, then damage its newest save in many ways."""
    whole, _ = whole_run(bench)
    stopped = bench.folder("stopped") / "run"
    arguments = command(bench, stopped)
    run = bench.start(*arguments, forked=True)
    run.until(lambda: rows(stopped) == 2)
    run.kill()
    run.wait()
    for name, number in DAMAGES.items():
        for i in range(bench.count(number[0], 1)):
            copy = bench.folder("copy") / "run"
            shutil.copytree(stopped, copy)
            last = copy / "checkpoints/last.pt"
            number[1](last, bench.random)
            done = bench.fork(*command(bench, copy))
            told = [line for line in done.out.splitlines() if "resuming from previous.pt" in line]
            problem = ended_alike(done, copy, whole)
            # A flipped bit may have no effect; then loading the file is right, which the outcome confirms.
            if not problem and not (len(told) == 1 and str(last.name) in told[0]) and name != "a bit flipped":
                problem = f"the damage is not told in a line: {told}"
            yield Trial(f"{name} {i + 1}", not problem, problem)


def rows(run: Path) -> int:
    """Epochs in the metrics."""
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def truncate(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(1, path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def misshape(path: Path, draw: random.Random) -> None:
    """Save a tensor of another shape with a correct checksum."""
    from resnet_cli.runs import checkpoints

    content = checkpoints.load(path)
    model = content["state"]["model"]
    name = draw.choice([name for name, tensor in model.items() if tensor.ndim and len(tensor) > 1])
    model[name] = model[name][:1]
    del content["format"]
    checkpoints.save(path, content)


def foreign(path: Path, draw: random.Random) -> None:
    """Save a file in the format of another program."""
    import torch

    contents: list[Any] = [torch.ones(3), {"state_dict": {"w": torch.ones(2)}}, [1, 2], {"model": {}, "epoch": 3}]
    if draw.random() < 0.3:
        path.write_text("not a checkpoint\n" * draw.randrange(1, 100))
    else:
        torch.save(draw.choice(contents), path)


DAMAGES: dict[str, tuple[int, Callable[[Path, random.Random], object]]] = {
    "truncated": (20, truncate),
    "a bit flipped": (20, flip),
    "empty": (5, lambda path, draw: path.write_bytes(b"")),
    "zeros": (5, lambda path, draw: path.write_bytes(bytes(path.stat().st_size))),
    "another shape": (5, misshape),
    "a foreign file": (5, foreign),
}


def full_disks(bench: Bench) -> Iterator[Trial]:
    """Run with file systems and file-size limits too small for saves, and with a disk that fills during the run."""
    whole, _ = whole_run(bench, "trainer.epochs=6")
    size = (bench.root / "whole/run/checkpoints/last.pt").stat().st_size
    for i in range(bench.count(6, 1)):
        yield limited(bench, i + 1, round(size * bench.random.uniform(0.1, 0.99)), whole)
    if not works("unshare", "-m"):
        yield Trial("a small file system", False, "unshare -m does not work here", skipped=True)
        return
    with Namespace() as space:
        for share in (1, 1.5, 2.5):
            for name, options in [*WORKERS.items(), ("on the device", [])][: bench.count(3, 1)]:
                yield small_disk(bench, space, f"{share:g} x a save, {name}", round(share * size), options, whole)
        for phase, reached in PHASES.items():
            if not bench.quick or phase == "a save":
                yield filled(bench, space, phase, reached, whole)


def limited(bench: Bench, number: int, most: int, whole: Mapping[str, str]) -> Trial:
    """Run with a limit on file sizes (`ulimit -f`)."""
    run = bench.folder(f"limit{number}") / "run"
    started = bench.start(*command(bench, run, "trainer.epochs=6"), forked=True)
    resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (most, most))
    problem = refused(started.wait(), run) or ended_alike(
        bench.fork(*command(bench, run, "trainer.epochs=6")), run, whole
    )
    return Trial(f"ulimit -f, {most} bytes", not problem, problem)


def small_disk(
    bench: Bench, space: Namespace, name: str, size: int, options: list[str], whole: Mapping[str, str]
) -> Trial:
    disk = bench.folder("disk")
    space.sh(f"mount -t tmpfs -o size={size} tmpfs {disk}")
    arguments = command(bench, disk / "run", "trainer.epochs=6", *options)
    run = space.path(disk) / "run"
    problem = refused(bench.fork(*arguments, prefix=space.prefix), run)
    space.sh(f"mount -o remount,size=64m {disk}")
    problem = problem or ended_alike(bench.fork(*arguments, prefix=space.prefix), run, whole)
    space.sh(f"umount {disk}")
    return Trial(name, not problem, problem)


PHASES: dict[str, Callable[[Path], object]] = {
    "the start": lambda run: True,
    "the first log": lambda run: (run / "train.log").exists(),
    "a save": lambda run: (run / "checkpoints/previous.pt").exists(),
    "the best epoch": lambda run: (run / "checkpoints/best.pt").exists(),
    "the metrics": lambda run: rows(run) >= 2,
}


def filled(
    bench: Bench, space: Namespace, phase: str, reached: Callable[[Path], object], whole: Mapping[str, str]
) -> Trial:
    """Run while another program fills the disk from some moment on."""
    disk = bench.folder("disk")
    space.sh(f"mount -t tmpfs -o size=16m tmpfs {disk}")
    arguments = command(bench, disk / "run", "trainer.epochs=6")
    seen, run = space.path(disk), space.path(disk) / "run"
    fill(seen / "filler") if phase == "the start" else None
    started = bench.start(*arguments, forked=True, prefix=space.prefix)
    started.until(lambda: reached(run))
    while not started.ended:
        fill(seen / "filler")
        time.sleep(0.001)
    problem = refused(started.wait(), run)
    (seen / "filler").unlink()
    problem = problem or ended_alike(bench.fork(*arguments, prefix=space.prefix), run, whole)
    space.sh(f"umount {disk}")
    return Trial(f"filled at {phase}", not problem, problem)


def fill(path: Path) -> None:
    """Fill the file system."""
    with path.open("ab") as file:
        free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        if free:
            try:
                os.posix_fallocate(file.fileno(), file.tell(), free)
            except OSError:  # the run was faster
                return


def refused(done: Done, run: Path) -> str:
    """Return what is wrong with how a run handled a full disk, or nothing."""
    problem = done.clean(4, lines=1)
    if problem:
        return problem
    if not all(part in done.err for part in (str(run.name), "cannot be written", "free")):
        return f"no path, reason and space: {done.err.strip()}"
    extra = [name for name in leftovers(run).removeprefix("left behind: ").split(", ") if name] if run.exists() else []
    if extra:
        return f"left behind: {', '.join(extra)}"
    from resnet_cli.runs import checkpoints

    for name in ("last", "previous", "best"):
        if (run / f"checkpoints/{name}.pt").exists():
            checkpoints.load(run / f"checkpoints/{name}.pt")
    return ""


def bad_folders(bench: Bench) -> Iterator[Trial]:
    """Use run folders that cannot be created: one line within two seconds, before the data are read."""
    place = bench.folder("place")
    (place / "file").write_text("theirs")
    (place / "closed").mkdir(mode=0o555)
    places: list[tuple[str, str, tuple[str, ...]]] = [
        ("a file", f"{place}/file", ()),
        ("below a file", f"{place}/file/run", ()),
        ("a parent that cannot be made", "/proc/nowhere/run", ()),
        ("a name that is too long", f"{place}/{'x' * 300}", ()),
    ]
    other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    as_is = () if os.geteuid() else other
    if as_is and not works(*other):
        yield Trial("no permission", False, "setpriv does not work here", skipped=True)
    else:
        for folder in (bench.root, *bench.root.parents):
            if folder.stat().st_mode & 0o001 == 0:  # the temporary folder of the campaign: nobody may enter it
                folder.chmod(folder.stat().st_mode | 0o055)
        places.append(("no permission", f"{place}/closed/run", as_is))
    read_only = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o ro tmpfs {place}/closed && exec "$@"', "sh")
    if works(*read_only):
        places.append(("a read-only disk", f"{place}/closed/run", read_only))
    else:
        yield Trial("a read-only disk", False, "unshare -m does not work here", skipped=True)
    for name, path, prefix in places:
        options = [option for option in bench.tiny if not option.startswith("data.root=")]
        done = bench.cli(*options, "data.root=/nowhere", f"hydra.run.dir={path}", prefix=prefix)
        problem = done.clean(done.status if done.status in (2, 4) else 4, lines=1)
        if not problem and "/nowhere:" in done.err:
            problem = f"the data were looked for first: {done.err.strip()}"
        if not problem and done.seconds > 2:
            problem = f"{done.seconds:.1f} s"
        if not problem and sorted(path.name for path in place.rglob("*")) != ["closed", "file"]:
            problem = "something was made"
        yield Trial(name, not problem, problem)


def contents(bench: Bench) -> Iterator[Trial]:
    """List the folder of a long run after each of many kills, and after the next start."""
    _, seconds = whole_run(bench)
    run = bench.folder("often") / "run"
    arguments = command(bench, run, "trainer.epochs=1000")
    for i in range(bench.count(50, 3)):
        started = bench.start(*arguments, forked=True)
        before = size(run / "train.log")
        started.until(lambda before=before: size(run / "train.log") > before)  # type: ignore[misc]
        time.sleep(bench.random.uniform(0, 0.3) * seconds)
        started.kill()
        started.wait()
        problem = unexpected(run, started)
        yield Trial(f"kill {i + 1}", not problem, problem)
    started, before = bench.start(*arguments, forked=True), size(run / "train.log")
    started.until(lambda: size(run / "train.log") > before)
    started.signal(15)
    done = started.wait()
    problem = done.clean(143, lines=2) or leftovers(run)
    yield Trial("after the last start", not problem, problem)


def size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def unexpected(run: Path, killed: Running) -> str:
    """Return files that belong neither to a run nor to the killed process; empty if there are none."""
    names = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    extra = [name for name in names if not belongs(name) and not name.endswith((f".{killed.pid}.tmp", ".lock"))]
    saves = [name for name in names if name.startswith("checkpoints/")]
    if extra:
        return f"left by an earlier process: {', '.join(extra)}"
    return f"more than four saves: {', '.join(saves)}" if len(saves) > 4 else ""


TESTS = (
    Test("A1", "SIGKILL at random times, the same command again: identical", 10, kills),
    Test("A2", "the newest save damaged: named, the one before it taken, identical", 6, damages),
    Test("A3", "the disk full: a line, the last save intact, identical afterwards", 5, full_disks),
    Test("A4", "run folders that cannot be written: refused within 2 s", 2, bad_folders),
    Test("A5", "what is in the folder after many kills", 2, contents),
)
