"""The fault campaign: faults of machines and mistakes of users, injected into real commands and scored in points.

    python benchmarks/faults.py                            everything; writes benchmarks/results/faults.json and .md
    python benchmarks/faults.py --only A1,C                some letters and tests; writes only with --out FILE
    python benchmarks/faults.py --quick                    a few trials of each test in under a minute

A test gets its full points if all of its trials pass, and a proportional share for fewer, or none where the table says
so. Tests that cannot be run get no points. Results in FILE of tests that are not run again are kept. The exit status is
1 if a trial failed.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from campaign.harness import REPOSITORY, Bench, Servers, Test, Trial

MODULES = {
    "A": "checkpoints", "B": "exact_resume", "C": "stop_signals", "D": "sweeps", "E": "bad_input", "F": "security",
    "G": "environment", "H": "numerics", "I": "people",
}  # fmt: skip
RESULTS = REPOSITORY / "benchmarks" / "results" / "faults.json"
Record = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="A1,C", help="letters and ids")
    parser.add_argument("--quick", action="store_true", help="a handful of trials of each test")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="tests run at the same time")
    parser.add_argument("--minutes", type=float, default=10, help="no new trial of a test begins after so many")
    parser.add_argument("--out", type=Path, help="a .json file; its table goes beside it")
    options = parser.parse_args()
    tests = chosen(options.only)
    out = options.out or (RESULTS if not options.only and not options.quick else None)
    records, servers = list[Record](), Servers()
    with tempfile.TemporaryDirectory(prefix="resnet-cli-faults-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        try:
            each_run = partial(run, quick=options.quick, minutes=options.minutes, servers=servers)
            for each in [pool.submit(each_run, test, Path(folder)) for test in tests]:
                records.append(each.result())
                print(told(records[-1]), flush=True)
        finally:
            servers.close()
    print(f"\n{totals(records)}")
    if out is not None:
        write(out, records)
    return 1 if any(not trial["passed"] for record in records for trial in record["trials"]) else 0


def chosen(only: Sequence[str]) -> list[Test]:
    """Return the tests with these letters and ids; all tests if none are given."""
    letters = [letter for letter in MODULES if not only or any(name.startswith(letter) for name in only)]
    tests = [test for letter in letters for test in import_module(f"campaign.{MODULES[letter]}").TESTS]
    unknown = set(only) - {name for test in tests for name in (test.id, test.id[0])}
    if unknown:
        raise SystemExit(f"error: --only: no test {', '.join(sorted(unknown))}; ids are as in A1, letters A to H")
    return [test for test in tests if not only or test.id in only or test.id[0] in only]


def run(test: Test, folder: Path, *, quick: bool, minutes: float = 10, servers: Servers | None = None) -> Record:
    """Run the trials of a test that fit into its time, and return its record."""
    began, trials = time.monotonic(), list[Trial]()
    if not test.missing:
        try:
            root = folder / test.id
            root.mkdir()
            with Bench(root, folder / "images", test.id, quick=quick, servers=servers) as bench:
                for trial in test.run(bench):
                    trials.append(trial)
                    if time.monotonic() - began > 60 * minutes:
                        return record(test, trials, time.monotonic() - began, cut=True)
        except Exception as error:  # the test itself is broken; the others should still run
            where = traceback.extract_tb(error.__traceback__)[-1]
            trials.append(
                Trial(
                    "the test", False, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
                )
            )
    return record(test, trials, time.monotonic() - began)


def record(test: Test, trials: Sequence[Trial], seconds: float = 0.0, *, cut: bool = False) -> Record:
    """Return a test's outcome as plain data; `cut` is true if its time ran out before all trials had run."""
    made = [trial for trial in trials if not trial.skipped]
    passes = sum(trial.passed for trial in made)
    share = passes / len(made) if made else 0.0
    if test.all_or_nothing and share < 1:
        share = 0.0
    note = test.missing and f"missing: {test.missing}"
    if not note and trials and len(made) < len(trials):
        note = f"{len(trials) - len(made)} skipped: {next(trial.detail for trial in trials if trial.skipped)}"
    if cut:
        note = f"out of time after these trials{'; ' if note else ''}{note}"
    return {
        "id": test.id, "title": test.title, "points": test.points, "got": round(test.points * share, 2),
        "made": len(made), "passes": passes, "note": note, "seconds": round(seconds, 1),
        "trials": [{"name": t.name, "passed": t.passed, "detail": t.detail} for t in made],
    }  # fmt: skip


def told(record: Record) -> str:
    """Format a test for the terminal: its points, and the trials that failed."""
    result = f"{record['passes']:4d}/{record['made']:<4d} {record['got']:5.2f}/{record['points']:g}"
    lines = [f"{record['id']:3} {result}  {record['seconds']:5.0f} s  {record['title']}"]
    lines += [f"      {record['note']}"] if record["note"] else []
    lines += [f"      failed: {t['name']}: {t['detail']}" for t in record["trials"] if not t["passed"]]
    return "\n".join(lines)


def sums(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """Return (points achieved, points possible) by letter, and in total as `all`."""
    letters = [*dict.fromkeys(record["id"][0] for record in records), "all"]
    return {
        letter: (
            round(sum(r["got"] for r in records if letter in (r["id"][0], "all")), 2),
            sum(r["points"] for r in records if letter in (r["id"][0], "all")),
        )
        for letter in letters
    }


def totals(records: Sequence[Record]) -> str:
    """Format the sums, one per line."""
    return "\n".join(f"{letter:3} {got:6.2f} of {points:g}" for letter, (got, points) in sums(records).items())


def write(path: Path, records: Sequence[Record]) -> None:
    """Write the records as JSON, keeping those of other tests in the file, and as a table beside it."""
    before = json.loads(path.read_text(encoding="utf-8"))["tests"] if path.exists() else []
    ids = {record["id"] for record in records}
    merged = sorted([*records, *(r for r in before if r["id"] not in ids)], key=lambda r: str(r["id"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    content: Record = {"machine": machine(), "sums": sums(merged), "tests": merged}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(merged, content["machine"]), encoding="utf-8")


def machine() -> dict[str, Any]:
    """Describe the machine of the trials."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "hydra-core")}}
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(), "processor": processor or platform.processor(), "system": platform.platform(),
        "versions": versions,
    }  # fmt: skip


def table(records: Sequence[Record], machine: dict[str, Any]) -> str:
    """Format the results in Markdown."""
    got, points = sums(records)["all"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# The fault campaign",
        "",
        f"`python benchmarks/faults.py`: **{got:g} of {points:g} points**. {machine['cores']} cores "
        f"({machine['processor']}), {versions}.",
        "",
        "| | test | trials | passed | points | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        title = record["title"] + (f" ({record['note']})" if record["note"] else "")
        score = f"{record['got']:g} of {record['points']:g}"
        lines.append(
            f"| {record['id']} | {title} | {record['made']} | {record['passes']} | {score} | {record['seconds']:.0f} |"
        )
    letters = ((letter, each) for letter, each in sums(records).items() if letter != "all")
    lines += ["", "By letter: " + ", ".join(f"{letter} {a:g} of {b:g}" for letter, (a, b) in letters) + "."]
    failed = [(r["id"], t) for r in records for t in r["trials"] if not t["passed"]]
    if failed:
        lines += ["", "Failed trials:", "", *(f"- {name}, {t['name']}: {t['detail']}" for name, t in failed)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
