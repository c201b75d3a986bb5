"""Shared parts of the measuring programs: interleaved rounds, workers, the machine's record, results files, tables.

Figures are comparable only if they are measured at the same time. Contenders therefore take turns: one round of each,
then the next round beginning with another contender. A ratio is the median over the rounds.
"""

import argparse
import json
import os
import platform
import pty
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
PACKAGES = ("torch", "torchvision", "hydra-core", "numpy", "tqdm", "lightning", "timm")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # CPU features that determine rates

CLOCK = "BENCHMARK_CLOCK"  # environment variable that tells workers which clock to use

Samples = dict[str, list[float]]


class SkippedError(Exception):
    """A contender cannot run on this machine; the message has the reason."""


def parser(about: str, rounds: int) -> argparse.ArgumentParser:
    """Build a parser with the options that all programs share."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="turns of each contender (default %(default)s)")
    made.add_argument("--quick", action="store_true", help="one round of little work: does the program run?")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default %(default)s)")
    made.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: processor seconds of a process and its children, for a machine that others use; with --threads 1",
    )  # fmt: skip
    made.add_argument("--out", type=Path, help="default benchmarks/results/NAME.json; with --quick nothing is written")
    return made


def settle(options: argparse.Namespace) -> None:
    """Apply the options to this process and its child processes, before torch is imported."""
    if options.quick:
        options.rounds = 1
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ[CLOCK] = options.clock
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])


def passed_on(options: argparse.Namespace) -> list[str]:
    """Return the options that a worker needs too."""
    return ["--threads", str(options.threads), "--clock", options.clock]


def now() -> float:
    """Return the seconds on the chosen clock; CPU time includes that of children that have exited."""
    if os.environ.get(CLOCK) != "cpu":
        return time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Measure each contender once per round; round r begins with contender r, so that none is always first."""
    names = list(contenders)
    samples: Samples = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contenders[name]())
    return samples


class Worker:
    """A contender in a separate process that waits between its turns.

    It runs `serve`: it reports that it is ready when warm, and answers each line with one figure.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        ready = self._read()
        if "skipped" in ready:
            self.stop()
            raise SkippedError(ready["skipped"])
        self.about: dict[str, Any] = ready
        self.notes: list[Any] = []  # additional results of each round

    def __call__(self) -> float:
        """Run one round and return its figure."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        self.notes.append(answer.get("note"))
        return float(answer["figure"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SkippedError(f"its process ended with status {self._process.wait()}")

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(prepare: Callable[[], tuple[Callable[[], float | tuple[float, Any]], dict[str, Any]]]) -> None:
    """Serve rounds in a worker: `prepare` returns the function of a round, already warm, and a description of it.

    A round is a figure, or a figure and a note.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep output of libraries out of the answers
    with terminal():
        try:
            run, about = prepare()
        except (SkippedError, ImportError) as error:
            print(json.dumps({"skipped": str(error)}), file=answers, flush=True)
            return
        print(json.dumps(about), file=answers, flush=True)
        for _ in sys.stdin:
            result = run()
            figure, note = result if isinstance(result, tuple) else (result, None)
            print(json.dumps({"figure": figure, "note": note}), file=answers, flush=True)


@contextmanager
def workers(commands: Mapping[str, Sequence[str]], skipped: dict[str, str]) -> Iterator[dict[str, Worker]]:
    """Start workers and warm them up one after another; add reasons for failures to `skipped`."""
    started: dict[str, Worker] = {}
    try:
        for name, command in commands.items():
            try:
                started[name] = Worker(command)
            except SkippedError as reason:
                skipped[name] = str(reason)
        yield started
    finally:
        for worker in started.values():
            worker.stop()


@contextmanager
def terminal() -> Iterator[None]:
    """Make standard error a pseudo-terminal inside this block, so that progress bars are drawn."""
    before = os.dup(2)
    master, slave = pty.openpty()
    os.dup2(slave, 2)
    os.close(slave)
    threading.Thread(target=_drain, args=(master,), daemon=True).start()
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _drain(master: int) -> None:
    with suppress(OSError):  # the other end is closed
        while os.read(master, 1 << 16):
            pass


def machine() -> dict[str, Any]:
    """Return processor, cores, load, system and versions, without which figures are meaningless."""
    name, flags = platform.processor() or platform.machine(), []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        name = fields.get("model name", name)
        flags = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": name, "flags": flags, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(), "versions": versions,
    }  # fmt: skip


def ratios(samples: Samples, name: str, to: str) -> list[float]:
    """Return the ratio of two contenders in each round."""
    return [one / other for one, other in zip(samples[name], samples[to], strict=True)]


def spread(values: Sequence[float], digits: int) -> str:
    """Format values as `median (smallest - largest)`."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} - {max(values):,.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def comparison(samples: Samples, unit: str, digits: int, to: Sequence[str]) -> str:
    """Format a table of contenders: medians with their spread, and ratios to each of `to`."""
    header = ["", unit, *(f"ratio to {other}" for other in to)]
    rows = [
        [name, spread(values, digits), *(spread(ratios(samples, name, other), 2) for other in to)]
        for name, values in samples.items()
    ]
    return table(header, rows)


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of an earlier call's results file; empty if there is none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def finish(name: str, options: argparse.Namespace, tables: Sequence[str], **record: Any) -> None:
    """Print the tables, and write the record with its raw samples to the results file."""
    print("\n\n".join(tables), flush=True)
    if options.quick and options.out is None:
        return
    path = options.out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        "program": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "rounds": options.rounds,
        "threads": options.threads, "clock": options.clock, "machine": machine(), **record,
    }  # fmt: skip
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")
