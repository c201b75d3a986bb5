"""The keys that determine how long a run is: a number of epochs, or a time budget that chooses it when a run begins."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from resnet_cli.config.durations import parse_seconds
from resnet_cli.config.messages import Problem
from resnet_cli.errors import InputError

BUDGET = "trainer.time_budget"
EPOCHS = "trainer.epochs"
CHOSEN = (EPOCHS, "trainer.steps_per_epoch")  # what a budget chooses


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Return the number of steps of a run, whose last epoch may be partial; a partial step counts as one."""
    return math.ceil(round(epochs * steps_per_epoch, 6))  # 9.9 * 50 is a little more than 495


def require_one_length(settings: Mapping[str, Any], given: Collection[str], in_files: Collection[str] = ()) -> None:
    """Check that a time budget and a key that it chooses are not both given. Values in a group's file do not count.

    Args:
        settings: The config.
        given: The keys on the command line.
        in_files: The keys in an experiment's file, which a budget on the command line replaces.

    Raises:
        InputError: both are given; one line for each key.
    """
    trainer = settings["trainer"]
    budget = trainer.get("time_budget")
    values = {key: trainer.get(key.partition(".")[2]) for key in CHOSEN}
    both_in_files = BUDGET in in_files and BUDGET not in given
    problems = [
        Problem(key, "conflicting keys", value, allowed=BUDGET, stored=budget)
        for key, value in values.items()
        if value is not None and (key in given or (both_in_files and key in in_files))
    ]
    if budget is not None and problems:
        raise InputError(*problems)


def is_same_budget(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether two configs, by full key, have the same time budget, however it is written; False without one."""
    seconds = parse_seconds(before.get(BUDGET))
    return seconds is not None and seconds == parse_seconds(after.get(BUDGET))


def keys_without_difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """Return the keys about the length of a run that may differ when it is resumed.

    With the same budget, the run keeps the length that was chosen. Without a budget, the given one replaces it.

    Args:
        stored: The run's config, by full key.
        given: The config to resume it with, by full key.
    """
    if given.get(BUDGET) is None:
        return {BUDGET}
    return {BUDGET, *CHOSEN} if is_same_budget(stored, given) else set()
