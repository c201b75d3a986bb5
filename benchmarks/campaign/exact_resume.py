"""B. Exact resume: killed at chosen steps, under every precision, and with a config that has changed."""

import shutil
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from campaign import ranks
from campaign.checkpoints import command, ended_alike
from campaign.harness import Bench, Test, Trial, outcome, write_images

WORKERS = {
    "on the device": ["data.backend=device"],
    "no workers": ["data.backend=stream", "data.workers=0"],
    "2 workers": ["data.backend=stream", "data.workers=2"],  # they persist between epochs
}
PRECISIONS = {
    "fp32": ["trainer.precision=fp32"],
    "bf16": ["trainer.precision=bf16"],
    "compile": ["trainer.precision=fp32", "trainer.compile=model"],
}
OPTIMIZERS = {"sgd": ["optimizer=sgd"], "adamw": ["optimizer=adamw"]}
STEPS = 4  # of an epoch of the tiny run
# The place where a process is killed by SIGKILL: the n-th check for signals by a function. `after_step` checks once
# after each step, before it is saved, and `iterate` once after each batch of validation and test.
KILL = """
import os, signal, sys
from resnet_cli.session.signals import StopSignals
looks, original = 0, StopSignals.__call__

def look(self):
    global looks
    frame, callers = sys._getframe(1), set()
    while frame is not None and len(callers) < 4:
        callers.add(frame.f_code.co_name)
        frame = frame.f_back
    looks += "{function}" in callers
    if looks == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self)

StopSignals.__call__ = look
"""
PLACES = {
    "at the end of an epoch": ("after_step", STEPS + 1),
    "inside an epoch": ("after_step", STEPS + 3),
    "behind the last step": ("iterate", 3),
}


def exact(bench: Bench) -> Iterator[Trial]:
    """Try each place, number of workers, precision and optimizer; compiled runs only without workers."""
    cells = list(product(PRECISIONS, OPTIMIZERS, WORKERS))
    cells = [cell for cell in cells if cell[0] != "compile" or cell[2] == "no workers"]
    if bench.quick:
        cells = [("bf16", "adamw", "2 workers")]
    elif shutil.which("g++") is None:
        yield Trial("compile", False, "torch.compile needs a C++ compiler", skipped=True)
        cells = [cell for cell in cells if cell[0] != "compile"]
    for cell in cells:
        precision, optimizer, workers = cell
        options = [*PRECISIONS[precision], *OPTIMIZERS[optimizer], *WORKERS[workers]]
        whole = bench.folder("whole") / "run"
        problem = bench.fork(*command(bench, whole, *options), timeout=200).clean(lines=0)
        before = {} if problem else outcome(whole)
        for place in PLACES:
            yield resumed(bench, f"{', '.join(cell)}, {place}", place, options, options, before)


def resumed(
    bench: Bench, name: str, place: str, options: list[str], changed: list[str], whole: Mapping[str, str]
) -> Trial:
    """Kill a run at a place and resume it, perhaps with other options; the outcome must equal `whole`."""
    run = bench.folder("parts") / "run"
    problem = stopped(bench, run, place, options)
    if not problem:
        problem = ended_alike(bench.fork(*command(bench, run, *changed), timeout=200), run, whole)
    return Trial(name, not problem, problem)


def stopped(bench: Bench, run: Path, place: str, options: list[str]) -> str:
    """Kill a run at a place; return what went wrong, or an empty text."""
    function, number = PLACES[place]
    code = KILL.format(function=function, number=number)
    done = bench.fork(*command(bench, run, *options), code=code, timeout=200)
    return "" if done.status == -9 else f"not killed {place}: exit {done.status}: {done.err.strip()[-300:]}"


CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "from no workers to 2": (WORKERS["no workers"], WORKERS["2 workers"]),
    "from 2 workers to none": (WORKERS["2 workers"], WORKERS["no workers"]),
    "from 2 workers to 1": (WORKERS["2 workers"], ["data.backend=stream", "data.workers=1"]),
    "from workers to the device": (WORKERS["2 workers"], WORKERS["on the device"]),
    "from the device to workers": (WORKERS["on the device"], WORKERS["2 workers"]),
    "saves every 3 steps": (["trainer.checkpoint_every=1"], ["trainer.checkpoint_every=3"]),
    "saves every epoch": (["trainer.checkpoint_every=1"], ["trainer.checkpoint_every=null"]),
    "decoded images kept": (["data.cache=null"], ["data.cache=kept"]),
}


def harmless(bench: Bench) -> Iterator[Trial]:
    """Change options that must not affect a resumed run. There is no option for prefetching or logging."""
    whole = bench.folder("whole") / "run"
    problem = bench.fork(*command(bench, whole)).clean(lines=0)
    before = {} if problem else outcome(whole)
    for name, (options, changed) in list(CHANGES.items())[: bench.count(len(CHANGES), 1)]:
        yield resumed(bench, name, "inside an epoch", options, changed, before)


REFUSED = {
    "other classes": ("", []),
    "another model": ("model.", ["model=resnet20"]),
    "another width": ("model.width", ["model.width=2"]),
    "another optimizer": ("optimizer.", ["optimizer=adamw"]),
    "another learning rate": ("optimizer.lr", ["optimizer.lr=0.01"]),
    "another seed": ("seed", ["seed=1"]),
    "another batch size": ("data.batch_size", ["data.batch_size=16"]),
    "another data set": ("data.", ["data=synthetic", "data.image_size=12", "data.classes=4"]),
    "another schedule": ("schedule.", ["schedule=cosine"]),
    "fewer epochs": ("trainer.epochs", ["trainer.epochs=2"]),
}


def refused(bench: Bench) -> Iterator[Trial]:
    """Resume with the config of another run: the difference is reported and nothing is written."""
    run = bench.folder("run") / "run"
    problem = stopped(bench, run, "inside an epoch", [])
    fewer = bench.folder("three") / "images"
    write_images(fewer, classes=3)
    for name, (key, options) in list(REFUSED.items())[: bench.count(len(REFUSED), 2)]:
        before = files(run)
        options = options or [f"data.root={fewer}"]
        given = command(bench, run, *options)
        if options[0].startswith("data=") and len(options) > 1:
            known = ("data.root", "data.cache")  # of image folders alone
            given = [
                option for option in given if option.partition("=")[0] not in known and option != "data=image_folder"
            ]
        done = bench.fork(*given)
        found = problem or done.clean(2, lines=40)
        lines = [line.removeprefix("error: ") for line in done.err.splitlines()]
        if not found and not any(
            line.startswith(key) and (" -> " in line if key else "class" in line) for line in lines
        ):
            found = f"not named: {done.err.strip()[-300:]}"
        if not found and files(run) != before:
            found = "files were touched"
        yield Trial(name, not found, found)


def files(run: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder."""
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"}


TESTS = (
    Test("B1", "killed at three places, by workers, precision and optimizer: bit-identical", 7, exact),
    Test("B2", "resumed with other workers, backend, saves: bit-identical", 2, harmless),
    Test("B3", "resumed with a config of another run: refused, the difference named", 2, refused),
    Test("B4", "ranks killed, resumed on as many, fewer, more", 4, ranks.killed),
)
