"""Compare the results of two runs, number by number: metrics of each epoch, test result, weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import Run, finite_number, section
from resnet_cli.runs.weight_files import checkpoint_weights
from resnet_cli.session.comparison import CLOCK_KEYS, first_difference

Outcome = dict[str, Any]


def compare_outcomes(source: RunDir, before: Run, new: RunDir, now: Run) -> Outcome:
    """Compare two runs; what only one of them has, such as a measure of a later version, is not compared.

    Returns:
        `epochs`: the numbers of epochs if they differ, else None. `first_epoch`: the first whose metrics differ, else
        None. `metrics` and `test`: the largest difference of each that differs, with its epoch. `weights`: that of
        each checkpoint, with the tensor. `tensors`: how many were compared. `not_compared`: what could not be.
    """
    metrics, first_epoch = _compare_rows(before.rows, now.rows)
    lengths = [len(before.rows), len(now.rows)]
    weights: dict[str, Any] = {}
    not_compared, tensors = [], 0
    for old, file in ((source.best, new.best), (source.last, new.last)):
        try:
            count, difference = _compare_weights(
                *(checkpoint_weights(checkpoints.load(path), path).tensors for path in (old, file))
            )
        except InputError as error:
            not_compared.append(str(error))
            continue
        tensors += count
        if difference is not None:
            weights[file.name] = difference
    test = _compare_numbers(section(before.record, "test"), section(now.record, "test"))
    return {
        "epochs": lengths if lengths[0] != lengths[1] else None, "first_epoch": first_epoch, "metrics": metrics,
        "test": test, "weights": weights, "tensors": tensors, "not_compared": not_compared,
    }  # fmt: skip


def _compare_rows(
    before: Iterable[Mapping[str, float]], now: Iterable[Mapping[str, float]]
) -> tuple[dict[str, dict[str, float]], int | None]:
    """Return the largest difference of each metric, with its epoch, and the first epoch with any."""
    largest: dict[str, dict[str, float]] = {}
    first = None
    for old, new in zip(before, now, strict=False):
        differences = _compare_numbers(old, new)
        epoch = int(new["epoch"])
        if differences and first is None:
            first = epoch
        for name, difference in differences.items():
            if name not in largest or difference > largest[name]["difference"]:
                largest[name] = {"difference": difference, "epoch": epoch}
    return largest, first


def _compare_numbers(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
    """Return the absolute differences of the numbers that both have, where there are any."""
    found = {}
    for name in before:
        a, b = finite_number(before[name]), finite_number(now.get(name))
        if name not in CLOCK_KEYS and a is not None and b is not None and a != b:
            found[name] = abs(float(a) - float(b))
    return found


def _compare_weights(
    before: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> tuple[int, dict[str, float | str | None] | None]:
    """Return the number of tensors, and the largest difference with the tensor that has it; None if all are equal."""
    if list(before) != list(now):
        return len(now), {"difference": None, "tensor": "other names"}
    worst: dict[str, float | str | None] | None = None
    for name, old in before.items():
        new = now[name]
        if first_difference(old, new) is None:
            continue
        if old.shape != new.shape or old.dtype != new.dtype:
            return len(now), {"difference": None, "tensor": name}
        difference = float((old.double() - new.double()).abs().nan_to_num(torch.inf).max())
        if worst is None or difference > float(worst["difference"] or 0.0):
            worst = {"difference": difference, "tensor": name}
    return len(now), worst


def format_outcome(outcome: Outcome) -> str:
    """Return in words what differs between two runs."""
    words = []
    if outcome["epochs"]:
        words.append(f"{counted(outcome['epochs'][0], 'epoch')} -> {outcome['epochs'][1]}")
    if outcome["first_epoch"] is not None:
        largest = sorted(outcome["metrics"].items(), key=lambda item: "loss" not in item[0])
        shown = ", ".join(f"{name} {found['difference']:.3g} (epoch {found['epoch']})" for name, found in largest)
        words.append(f"metrics from epoch {outcome['first_epoch']} on, by at most {shown}")
    if outcome["test"]:
        words.append("the test " + ", ".join(f"{name} by {value:.3g}" for name, value in outcome["test"].items()))
    for name, found in outcome["weights"].items():
        size = "" if found["difference"] is None else f"by at most {found['difference']:.3g} "
        words.append(f"weights of {name} {size}({found['tensor']})")
    return "; ".join(words)
