"""Find the arrays of images and labels of each split in a file, by usual names or by names in the config."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.data.datasets.layout import USUAL_SPLIT_NAMES, format_names
from resnet_cli.data.whole_dataset import current_undivided, with_training_split
from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

ROLES: Mapping[str, frozenset[str]] = {
    "images": frozenset({"images", "image", "imgs", "img", "x", "data", "inputs", "input", "pixels", "features"}),
    "labels": frozenset({"labels", "label", "y", "targets", "target"}),
}
CLASS_NAMES = ("class_names", "classnames", "classes", "label_names", "target_names", "categories", "names")
SHORT_SPLITS: Mapping[str, str] = {"tr": "train", "te": "test", "eval": "eval", "evaluation": "eval"}
POSITIONS: Mapping[str, tuple[str, ...]] = {  # numpy.savez names arrays without a name by their position
    "arr_0": ("images",), "arr_1": ("labels",), "arr_2": ("test", "images"), "arr_3": ("test", "labels")
}  # fmt: skip
SPLITS = ("train", "val", "test")
PLACES = tuple(f"{split}_{role}" for split in SPLITS for role in ("images", "labels"))
ALLOWED = (*PLACES, "class_names")


def find_arrays(path: Path, names: Sequence[str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the names of the arrays to use.

    Args:
        path: The file, for messages.
        names: The names of all arrays in the file.
        given: Names from the config, in the form of the result; None leaves the split out.

    Returns:
        Names of arrays by role: `train_images` and `train_labels`, and those of `test_images`, ..., `class_names` that
        were found.

    Raises:
        InputError: Names are unknown, or images or labels are not found or not unique; one line for each problem.
    """
    problems = [*_unknown_names(path, names, given)]
    found: dict[str, list[str]] = {}
    parts = {name: _parse(name) for name in names}
    has_test = any(split == "test" for split, _ in filter(None, parts.values()))
    for name, part in parts.items():
        if part is not None:
            split = part[0].replace("eval", "val" if has_test else "test")
            found.setdefault(f"{split}_{part[1]}" if part[1] != "class_names" else part[1], []).append(name)
    found = _without_spare(found, given)
    for place, candidates in found.items():
        if len(candidates) > 1 and place not in given:
            problems.append(
                f"{path}: {' and '.join(candidates)} may both be {place}; choose one with "
                f"data.arrays={{{place}: {candidates[0]}}}"
            )
    named = {place: candidates[0] for place, candidates in found.items()} | dict(given)
    chosen = _with_training_arrays({place: name for place, name in named.items() if name is not None})
    if not problems:
        problems += _missing_places(path, names, chosen)
    if problems:
        raise InputError(*problems)
    for split in ("val", "test"):
        _leave_out_halves(path, split, chosen)
    unused = [name for name in names if name not in chosen.values()]
    if unused:
        log.warning("%s: uses %s; not %s", path, ", ".join(chosen.values()), ", ".join(unused[:5]))
    return chosen


def describe_shared(path: Path, chosen: Mapping[str, str], given: Mapping[str, str | None]) -> str:
    """Return a line about images that are those of two splits; an empty string if there are none.

    Args:
        path: The file.
        chosen: The result of `find_arrays`.
        given: Names from the config.
    """
    for first, second in combinations([f"{split}_images" for split in SPLITS if f"{split}_images" in chosen], 2):
        if chosen[first] == chosen[second]:
            spare = next((place for place in (second, first) if place not in {"train_images", *given}), second)
            return (
                f"{path}: {chosen[first]} is both {first} and {second}; set {spare}: null in data.arrays to use it once"
            )
    return ""


def _without_spare(found: dict[str, list[str]], given: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Leave out the splits that the config sets to null.

    If the data set is read `undivided`, also those whose images the config gives to another split, to read them once.
    Otherwise runs of earlier versions have used them twice, and new ones are refused; see `describe_shared`.
    """
    spare = {place.rpartition("_")[0] for place, name in given.items() if name is None}
    if current_undivided() is not None:
        taken = {name for place, name in given.items() if place.endswith("_images")}
        spare |= {
            place.removesuffix("_images")
            for place, names in found.items()
            if place.endswith("_images") and place not in given and taken.issuperset(names)
        }
    starts = tuple(f"{split}_" for split in spare)
    return {place: names for place, names in found.items() if place in given or not place.startswith(starts)}


def _with_training_arrays(chosen: dict[str, str]) -> dict[str, str]:
    """Return the names with those of the first split as training arrays, as `with_training_split` does."""
    whole = [split for split in SPLITS if {f"{split}_images", f"{split}_labels"} <= chosen.keys()]
    splits = with_training_split({split: split for split in whole})
    if "train_images" in chosen or "train" not in splits:
        return chosen
    others = {place: name for place, name in chosen.items() if place not in PLACES}
    roles = [(split, former, role) for split, former in splits.items() for role in ("images", "labels")]
    return {f"{split}_{role}": chosen[f"{former}_{role}"] for split, former, role in roles} | others


def _unknown_names(path: Path, names: Sequence[str], given: Mapping[str, str | None]) -> list[str]:
    """Return a line for each key or value of `data.arrays` that does not exist."""
    problems = []
    for place, name in given.items():
        if place not in ALLOWED:
            usual = _parse(place)
            meant = "_".join(usual) if usual else ""
            nearest = f"; did you mean {meant}?" if meant in ALLOWED else did_you_mean(place, ALLOWED)
            problems.append(f"data.arrays.{place}: unknown; one of {', '.join(ALLOWED)}{nearest}")
        elif name is not None and name not in names:
            nearest = did_you_mean(name, names)
            problems.append(f"data.arrays.{place}={name}: {path} has no such array ({format_names(names)}){nearest}")
    return problems


def _missing_places(path: Path, names: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    usual = {"train_images": "x_train, train_images or images", "train_labels": "y_train, train_labels or labels"}
    return [
        f"{path}: no array is named {text} ({format_names(names)}); set data.arrays={{{place}: NAME}}"
        for place, text in usual.items()
        if place not in chosen
    ]


def _leave_out_halves(path: Path, split: str, chosen: dict[str, str]) -> None:
    """Leave out a split that has only images or only labels, with a warning."""
    places = [f"{split}_images", f"{split}_labels"]
    there = [place for place in places if place in chosen]
    if len(there) == 1:
        missing = next(place for place in places if place not in chosen)
        log.warning("%s: %s has no %s and is not used", path, chosen.pop(there[0]), missing)


def _parse(name: str) -> tuple[str, str] | None:
    """Return the split and role that an array's name indicates; None if it is not a usual name."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    words = "_".join(filter(None, re.split(r"[\W_]+", words)))
    if words in CLASS_NAMES:
        return "train", "class_names"
    for position, meaning in POSITIONS.items():
        words = re.sub(rf"(^|_){position}$", r"\1" + "_".join(meaning), words)
    split, role = "", ""
    for token in _split_tokens(words):
        if (meant := _split_of(token)) and not split:
            split = meant
        elif (meant := next((role for role, usual in ROLES.items() if token in usual), "")) and not role:
            role = meant
        elif token != "set":  # train_set_x
            return None
    return (split or "train", role) if role else None


def _split_tokens(words: str) -> list[str]:
    """Return the words of a name; `xtrain` and `trainimages` are two."""
    splits, roles = _any_of(SHORT_SPLITS, *USUAL_SPLIT_NAMES.values()), _any_of(*ROLES.values())
    tokens: list[str] = []
    for word in words.split("_"):
        both = re.fullmatch(rf"({splits})({roles})", word) or re.fullmatch(rf"({roles})({splits})", word)
        tokens += both.groups() if both else [word]
    return tokens


def _any_of(*names: Iterable[str]) -> str:
    """Return a pattern that matches any of some names, the longest first."""
    return "|".join(sorted(chain(*names), key=len, reverse=True))


def _split_of(token: str) -> str:
    if token in SHORT_SPLITS:
        return SHORT_SPLITS[token]
    return next((split for split, usual in USUAL_SPLIT_NAMES.items() if token in usual), "")
