"""Runs the tests that need a CUDA card, `pytest -m cuda`, and writes their outcomes to a file.

    python benchmarks/cuda_tests.py     -> benchmarks/results/cuda_tests.json; further arguments go to pytest
    python benchmarks/cuda_tests.py --add -n 4 -k "compile or record"    keeps the outcomes of an earlier call, too

The file is written after each test, in case the machine's time runs out, and tests that compile come last. Without a
card nothing is run or written, while `pytest -m cuda` skips each test.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "cuda_tests.json"


class Outcomes:
    """A pytest plugin that records the outcome of each test.

    Args:
        save: Called with all outcomes after each test.
    """

    def __init__(self, save: Callable[[dict[str, dict]], object] = lambda tests: None) -> None:
        self.tests: dict[str, dict] = {}
        self.save = save

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Run the tests that compile last: each takes as long as all others together."""
        items.sort(key=compiles)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of set-up, call and tear-down, with their total seconds."""
        entry = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        entry["seconds"] = round(entry["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            entry["outcome"] = report.outcome
            entry["reason"] = str(report.longrepr[2] if report.skipped else report.longreprtext.splitlines()[-1])
        if report.when == "teardown":
            self.save(self.tests)


def compiles(item: pytest.Item) -> bool:
    """Return whether a test compiles or records steps, by its name."""
    return any(word in item.nodeid for word in ("compile", "record"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--add", action="store_true", help="keep the outcomes of earlier calls on the same machine")
    options, passed_on = parser.parse_known_args(arguments)
    if not torch.cuda.is_available():
        print("skipped: these tests need a CUDA card, and here is none")
        return 0
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    before = earlier(cards, options.out) if options.add else {}
    outcomes = Outcomes(lambda tests: write({**before, **tests}, cards, options.out))
    command = ["--rootdir", str(REPOSITORY), "-vv", "-m", "cuda", str(REPOSITORY / "tests"), *passed_on]
    status = pytest.main(command, [outcomes])
    counts = write({**before, **outcomes.tests}, cards, options.out)
    print(", ".join(f"{count} {name}" for name, count in counts.items()), f"-> {options.out}")
    return int(status)


def machine(cards: list[str]) -> dict:
    """Return a description of the machine."""
    return {
        "cards": cards, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()
    }  # fmt: skip


def earlier(cards: list[str], out: Path) -> dict[str, dict]:
    """Return the outcomes in a file that was written on this machine; none if there is no such file."""
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    is_same = all(record.get(key) == value for key, value in machine(cards).items())
    return record.get("tests", {}) if is_same else {}


def write(tests: dict[str, dict], cards: list[str], out: Path) -> dict[str, int]:
    """Write the outcomes with a description of the machine, and return the number of each."""
    counts = {name: sum(test["outcome"] == name for test in tests.values()) for name in ("passed", "failed", "skipped")}
    record = {**machine(cards), **counts, "tests": dict(sorted(tests.items()))}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    part.replace(out)  # the machine's time may run out at any moment
    return counts


if __name__ == "__main__":
    sys.exit(main())
