"""--data KEY=VALUE: a run's config with other images; and names of the folders of evaluations."""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from resnet_cli.session.trained import TrainedRun

Overrides = dict[str, str]  # values as typed, by key without `data.`

# Keys that apply to the run's own images only: for other images they have these values, unless --data sets them.
OWN_SPLIT = {"splits": None, "train_size": None, "folds": None, "fold": 0, "group": None, "label_noise": 0.0}
PLACES = ("root", "file", "shards", "name")  # keys whose values say where images are


def parse_override(text: str) -> tuple[str, str]:
    """Parse `root=photos`, `data.root=photos` or `data=csv`."""
    key, equals, value = text.partition("=")
    key = key.removeprefix("data.")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        shown = escape_control_characters(text)
        raise argparse.ArgumentTypeError(f"{shown} is not KEY=VALUE, such as root=photos or data=csv")
    return key, value


def add_data_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --data KEY=VALUE, with the first part of its help."""
    parser.add_argument(
        "--data", type=parse_override, action="append", default=[], metavar="KEY=VALUE",
        help=f"{text}, as data.KEY=VALUE of resnet-train; may be given several times",
    )  # fmt: skip


def compose_other_data(
    run: str, given: Sequence[tuple[str, str]], *, trust: bool, keeps_split: bool = False
) -> tuple[Overrides, dict[str, Any]]:
    """Return the given keys and values, and the checked node of group `data` with them.

    Args:
        run: A run folder, or a checkpoint in one.
        given: Keys and values, without `data.`.
        trust: Allow classes that only the run names.
        keeps_split: The images are the run's own, elsewhere, and are split as they were.

    Raises:
        InputError: The config with these values is wrong; one line for each problem.
    """
    from resnet_cli.hydra_app.compose import compose_settings

    overrides = [f"data={value}" if key == "data" else f"data.{key}={value}" for key, value in given]
    settings = compose_settings([_as_path(run), *overrides, *(["trust=true"] if trust else [])]).settings
    node = settings["data"]
    if not isinstance(node, Mapping):
        raise InputError("--data: the run's config has no data")
    if keeps_split:
        return dict(given), dict(node)
    own = {key: value for key, value in OWN_SPLIT.items() if key in node and key not in dict(given)}
    return dict(given), {**node, **own}


def _as_path(run: str) -> str:
    """Return the path in a form that cannot be mistaken for an override."""
    return run if "/" in run or run.startswith("~") else f"./{run}"


def at_present_place(trained: "TrainedRun", run: str, given: Sequence[tuple[str, str]], *, trust: bool) -> "TrainedRun":
    """Return a run whose own images are read with the given keys and values, such as from where they are now.

    Args:
        trained: The run.
        run: Its folder, or a checkpoint in it.
        given: See `compose_other_data`.
        trust: See `compose_other_data`.
    """
    if not given:
        return trained
    _, node = compose_other_data(run, given, trust=trust, keeps_split=True)
    return replace(trained, other_data=node)


def folder_name(split: str, overrides: Overrides) -> str:
    """Return the name of the folder of an evaluation: `all-photos-1a2b3c`; equal paths elsewhere give another one."""
    place = next((overrides[key] for key in (*PLACES, "data") if key in overrides), "")
    slug = _slug(place.rstrip("/").rsplit("/", 1)[-1])
    images = sorted((key, _absolute(value) if key in PLACES else value) for key, value in overrides.items())
    return "-".join(part for part in (split, slug, _digest(images)) if part)


def folder_name_of_average(split: str, average: str, checkpoints: Sequence[Path]) -> str:
    """Return the name of the folder of an average: `test-average-weights-seed0-seed1-1a2b3c`.

    Args:
        split: The split.
        average: What is averaged.
        checkpoints: The checkpoint of each member, whose run folders are named.
    """
    files = [file.resolve() for file in checkpoints]
    names = [file.parents[1].name if file.parent.name == "checkpoints" else file.stem for file in files]
    return f"{split}-average-{average}-{_slug('-'.join(names))}-{_digest([str(file) for file in files])}"


def _absolute(value: str) -> str:
    """Return the absolute path of a file or folder; a value that is neither is returned as it is."""
    path = os.path.expanduser(value)  # noqa: PTH111  unlike Path's, these accept any text
    return os.path.realpath(path) if os.path.exists(path) else value  # noqa: PTH110


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:40]


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()[:6]
