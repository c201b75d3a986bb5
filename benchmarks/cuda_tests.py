"""Runs the tests that need a CUDA card, `pytest -m cuda`, and writes their outcomes to a file.

    python benchmarks/cuda_tests.py     -> benchmarks/results/cuda_tests.json; further arguments go to pytest

Without a card nothing is run or written, while `pytest -m cuda` skips each test.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "cuda_tests.json"


class Outcomes:
    """A pytest plugin that records the outcome of each test."""

    def __init__(self) -> None:
        self.tests: dict[str, dict] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of set-up, call and tear-down, with their total seconds."""
        entry = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        entry["seconds"] = round(entry["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            entry["outcome"] = report.outcome
            entry["reason"] = str(report.longrepr[2] if report.skipped else report.longreprtext.splitlines()[-1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options, passed_on = parser.parse_known_args(arguments)
    if not torch.cuda.is_available():
        print("skipped: these tests need a CUDA card, and here is none")
        return 0
    outcomes = Outcomes()
    command = ["--rootdir", str(REPOSITORY), "-m", "cuda", str(REPOSITORY / "tests"), *passed_on]
    status = pytest.main(command, [outcomes])
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    write(outcomes.tests, cards, options.out)
    return int(status)


def write(tests: dict[str, dict], cards: list[str], out: Path) -> None:
    """Write the outcomes with a description of the machine, and print the number of each."""
    counts = {name: sum(test["outcome"] == name for test in tests.values()) for name in ("passed", "failed", "skipped")}
    record = {
        "cards": cards, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(),
        **counts, "tests": dict(sorted(tests.items())),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{count} {name}" for name, count in counts.items()), f"-> {out}")


if __name__ == "__main__":
    sys.exit(main())
