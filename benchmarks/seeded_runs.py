"""Runs of one experiment from several seeds: train, resume and read them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import REPOSITORY, read_results

STOPPED = (130, 143)  # exit statuses


def train(arguments: list[str], place: Path, seconds: float) -> bool:
    """Train or resume a run. Return False if its time ran out before it finished.

    Raises:
        SystemExit: the run failed, and has printed the reason.
    """
    command = [sys.executable, "-m", "resnet_cli", *arguments, f"hydra.run.dir={place}", "resume=auto"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        status = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if status in STOPPED:
        return False
    if status:
        raise SystemExit(status)
    return True


def is_finished(place: Path) -> bool:
    record = place / "run.json"
    return record.is_file() and json.loads(record.read_text(encoding="utf-8"))["status"] == "finished"


def read(place: Path) -> dict[str, Any]:
    """Return epochs, training seconds and accuracies of a finished run."""
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    test = record["test"]
    return {
        "seed": record["seed"], "epochs": len(rows), "seconds": round(sum(row["seconds"] for row in rows), 3),
        "accuracy": test["accuracy"], "tta_accuracy": test.get("tta_accuracy"), "precision": record.get("precision"),
        "resumed": len(record.get("resumed_from") or []), "test_reads": len(record.get("test_reads") or []),
        "protocol": record.get("protocol"),
    }  # fmt: skip


def kept(out: Path, command: list[str]) -> dict[str, Any]:
    """Return the results file of an earlier call of the same command; empty if there is none.

    Raises:
        SystemExit: the file has results of another command.
    """
    found = read_results(out)
    if found.get("command", command) != command:
        raise SystemExit(f"{out} has the results of {' '.join(found['command'])}: choose another file with --out")
    return found
