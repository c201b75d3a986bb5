"""--data KEY=VALUE: a run's config with other images; and names of the folders of evaluations."""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.config.data_keys import HOW_READ, PREPARATION, names_images
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.path_patterns import has_files
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from resnet_cli.data.selection import Samples
    from resnet_cli.session.trained import TrainedRun

Overrides = dict[str, str]  # values as typed, by key without `data.`

# Keys that apply to the run's own images only: for other images they have these values, unless --data sets them.
OWN_SPLIT = {"splits": None, "train_size": None, "folds": None, "fold": 0, "group": None, "label_noise": 0.0}
PLACES = ("root", "file", "shards", "name")  # keys whose values say where images are
# Keys that name further files of the data set that the first key names: those of the run do not belong to another one.
BELONGING = {"shards": ("val_shards", "test_shards"), "file": ("labels_file",)}


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
    trained: "TrainedRun", given: Sequence[tuple[str, str]], *, keeps_split: bool = False
) -> tuple[Overrides, dict[str, Any]]:
    """Return the given keys and values, and the checked node of group `data` with them.

    Another data set prepares its images like that of the run, unless its preparation is given too.

    Args:
        trained: The run, or a checkpoint outside of one.
        given: Keys and values, without `data.`.
        keeps_split: The images are the run's own, and are split as they were.

    Raises:
        InputError: The config with these values is wrong; one line for each problem.
    """
    from resnet_cli.hydra_app.compose import compose_settings

    values = dict(given)
    overrides = [f"data={value}" if key == "data" else f"data.{key}={value}" for key, value in given]
    overrides += ["trust=true"] if trained.trust else []
    if trained.run is None:
        settings = compose_settings(overrides, changed=trained.settings).settings
    else:
        settings = compose_settings([_as_path(str(trained.run.path)), *overrides]).settings
    before, node = trained.settings.get("data"), settings["data"]
    if not isinstance(node, Mapping) or not isinstance(before, Mapping):
        raise InputError("--data: the run's config has no data")
    kept = [key for key in PREPARATION if "data" in values and key in before]
    node = {**node, **{key: before[key] for key in kept if key in node and key not in values}}
    if keeps_split:
        return values, node
    unset: dict[str, Any] = dict(OWN_SPLIT)
    if str(node.get("_target_")).startswith("resnet_cli.data."):
        unset |= {other: None for key in values for other in BELONGING.get(key, ())}
    return values, {**node, **{key: value for key, value in unset.items() if key in node and key not in values}}


def _as_path(run: str) -> str:
    """Return the path in a form that cannot be mistaken for an override."""
    return run if "/" in run or run.startswith("~") else f"./{run}"


def at_present_place(trained: "TrainedRun", given: Sequence[tuple[str, str]]) -> "TrainedRun":
    """Return a run whose own images are read with the given keys and values, such as from where they are now.

    Args:
        trained: The run, or a checkpoint outside of one.
        given: See `compose_other_data`.
    """
    if not given:
        return trained
    return replace(trained, other_data=compose_other_data(trained, given, keeps_split=True)[1])


def require_own_preparation(given: Sequence[tuple[str, str]]) -> None:
    """Raise an `InputError` for keys that prepare images otherwise than in training; one size alone fits the net."""
    keys = [key for key, _ in given if key in PREPARATION and key != "image_size"]
    if keys:
        place = "--data says where the run's images are now"
        raise InputError(f"--data {keys[0]}: images are prepared as in training; {place}")


def as_own_images(trained: "TrainedRun", given: Sequence[tuple[str, str]], split: str | None) -> "TrainedRun | None":
    """Return the run with its own images read with the given keys and values, or None if these name other images.

    Keys that name neither a data set nor a place concern the run's own images. With a split and a place, they are the
    run's own if the split has the same images as in training. If the run's images are gone from where they were, most
    of the split's images are enough if the run divided them by `OWN_SPLIT`, without which training images would be in
    the split.

    Args:
        trained: The run, or a checkpoint outside of one.
        given: See `compose_other_data`.
        split: The split that is evaluated; None if the user chose none.
    """
    places = [key for key, _ in given if names_images(key)]
    if not places:
        return at_present_place(trained, given)
    if split is None or "data" in places:
        return None
    moved = at_present_place(trained, _located(given))
    node, recorded = moved.data_node(), trained.data.get("splits")
    if any(node.get(key, value) != value for key, value in OWN_SPLIT.items()) and not _are_at_place(trained):
        return at_present_place(trained, given) if _has_most_images(moved, split) else None
    kept = [key for place in places for key in BELONGING.get(place, ()) if node.get(key) and key not in places]
    parts = list(recorded) if kept and isinstance(recorded, Mapping) else [split]  # `split` itself may be among `kept`
    return at_present_place(trained, given) if _are_as_in_training(moved, parts) else None


def changes_of_own_images(given: Sequence[tuple[str, str]]) -> Overrides:
    """Return the keys and values that change a run's own images or their splits, not only how they are read."""
    return {key: value for key, value in given if not names_images(key) and key not in HOW_READ}


def describe_other_data(
    trained: "TrainedRun", given: Sequence[tuple[str, str]], split: str | None, node: Mapping[str, Any]
) -> list[str]:
    """Return notes on other images that may be the run's own, or are read by keys of the run.

    Args:
        trained: The run, or a checkpoint outside of one.
        given: See `compose_other_data`; they name other images.
        split: The split that is evaluated; None for all images.
        node: The node of group `data` of the images.
    """
    keys, recorded = {key for key, _ in given}, trained.data.get("splits")
    notes: list[str] = []
    if "file" in keys and not {"root", "data"} & keys and node.get("root") is not None:
        notes.append(f"paths are relative to data.root={node['root']}, as in the run; another folder: --data root=DIR")
    if not isinstance(recorded, Mapping) or "data" in keys:  # former versions stored no fingerprints
        return notes
    if split is None:
        with suppress(InputError):
            if _are_at_place(trained) and not _is_own_place(trained, node):
                return notes  # without reading them, which may take as long as the evaluation
            located = at_present_place(trained, _located(given))
            seen = recorded["train"]["count"] if _are_as_in_training(located, ["train"]) else 0
            own = f"these are the run's own images, and it was trained on {seen} of them; "
            notes += [f"{own}--split test evaluates its test images"] if seen else []
    elif split != "train" and not _are_at_place(trained):
        notes.append(
            f"these are not the run's {split} images as they were in training; if they are its own images, some of "
            "which have changed, training images may be among them"
        )
    return notes


def require_shards(given: Sequence[tuple[str, str]], split: str | None) -> None:
    """Raise an `InputError` if all images are wanted, and only some of the keys of shards name other ones."""
    keys = {key for key, _ in given}
    for key in BELONGING["shards"]:
        if key in keys and "shards" not in keys and split is None:
            part = key.removesuffix("_shards")
            raise InputError(f"--data {key}: name other shards with --data shards=PATH, or add --split {part}")


def _located(given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the keys and values that say where images are and how they are read, which do not change the images."""
    return [(key, value) for key, value in given if names_images(key) or key in HOW_READ]


def _are_as_in_training(trained: "TrainedRun", parts: Sequence[str]) -> bool:
    """Return whether splits of a run's present data have the images and labels that they had in training."""
    from resnet_cli.runs.logs import quiet
    from resnet_cli.session import build
    from resnet_cli.session.data_revision import recorded_revision
    from resnet_cli.session.trusted_kinds import check_node

    node, recorded = trained.data_node(), trained.data.get("splits")
    if not isinstance(recorded, Mapping):
        return False
    with suppress(InputError), quiet():
        check_node("data", node, trust=trained.trust, named=trained.named)
        with recorded_revision(node, trained.settings, trained.record):
            samples = build.partition(node).samples
        return all(part in samples and _is_as_recorded(recorded.get(part), samples[part]) for part in parts)
    return False


def _has_most_images(trained: "TrainedRun", part: str) -> bool:
    """Return whether the place of a run's present data has at least half of the images that a split had in training.

    They are found by their names. Of images without known names, the present split must have as many as in training.
    """
    from resnet_cli.data.selection import has_file_names, unique_splits, with_names
    from resnet_cli.data.split_file import listed_names
    from resnet_cli.runs.logs import quiet
    from resnet_cli.session import build
    from resnet_cli.session.trusted_kinds import check_node

    node, recorded = trained.data_node(), trained.data.get("splits")
    listed = None if trained.run is None else listed_names(trained.run.splits, part)
    with suppress(InputError), quiet():
        check_node("data", node, trust=trained.trust, named=trained.named)
        splits = unique_splits(with_names(build.dataset(node)))
        if listed and all(map(has_file_names, splits)):
            present = {name for split in splits for name in split.names or ()}
            return 2 * len(listed & present) >= len(listed)
        before = recorded.get(part) if isinstance(recorded, Mapping) else None  # former versions stored none
        samples = build.partition(node).samples
        return not isinstance(before, Mapping) or (part in samples and before["count"] == len(samples[part].indices))
    return False


def _is_as_recorded(recorded: Any, samples: "Samples") -> bool:
    """Return whether samples have a recorded fingerprint; files are only read if there are as many."""
    from resnet_cli.data.fingerprint import fingerprint_split, without_weights

    has_count = isinstance(recorded, Mapping) and recorded.get("count") == len(samples.indices)
    return has_count and without_weights(recorded) == without_weights(fingerprint_split(*samples))


def _are_at_place(trained: "TrainedRun") -> bool:
    """Return whether a run's images are where they were in training, or at the same place by the run."""
    from resnet_cli.session.paths import require_recorded_data

    if trained.run is None:
        texts = [value for key, value in trained.data_node().items() if key in PLACES and isinstance(value, str)]
        return all(has_files(Path(text).expanduser()) for text in texts)
    with suppress(InputError):
        require_recorded_data(trained.settings, trained.run, "")
        return True
    return False


def _is_own_place(trained: "TrainedRun", node: Mapping[str, Any]) -> bool:
    """Return whether a node of group `data` names the place of the run's images."""
    own = trained.data_node()
    return all(_absolute(str(node.get(key))) == _absolute(str(own.get(key))) for key in PLACES)


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
