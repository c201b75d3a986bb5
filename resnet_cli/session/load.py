"""Find the weights that a path names, and load them into a model (`init_from=RUN|FILE`)."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from resnet_cli.config.messages import naming
from resnet_cli.config.stored import plain_data
from resnet_cli.config.suggestions import similar_file
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.models.transfer import Transfer, nearest_mismatch, transfer
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.runs.reading import section
from resnet_cli.runs.weight_files import SUFFIXES, WeightFile, is_weight_file, read_weights, state_tensors
from resnet_cli.seeding import random_state_kept
from resnet_cli.session.evaluated_model import build_evaluated_model
from resnet_cli.session.trusted_kinds import check_node

logger = logging.getLogger("resnet_cli")

LEAST_FRACTION = 0.5  # of the parameters; with fewer, the weights are those of another net
NOTICEABLE = 0.02  # difference of a mean or standard deviation, on the scale 0 to 1
MOST_LISTED = 4  # layers of each kind in the line for the user
MOST_RECORDED = 100  # names in the record
AVERAGE = "average"  # the container of weights that are the averages in a checkpoint
MAX_IMAGE_VALUES = 1 << 26  # channels * height * width that a checkpoint may declare


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run starts with, and where they come from.

    Args:
        name: The run or file, as the user names it; None if the run starts from scratch.
        line: What was loaded, what is new and what was left, for the user.
        record: The same for `run.json`.
    """

    name: str | None = None
    line: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


def load_weights(
    model: nn.Module, source: WeightFile, *, in_channels: int, class_names: Sequence[str], key: str = "init_from"
) -> tuple[str, dict[str, Any]]:
    """Load weights into a model, as far as they fit.

    Args:
        model: Receives the weights; keeps its own where none fit, such as in a head for other classes.
        source: The weights.
        in_channels: Channels of the images.
        class_names: Names of the classes.
        key: The config key that names the weights, for messages.

    Returns:
        What was loaded, what is new and what was left: a line for the user, and the same for the record of the run.

    Raises:
        InputError: less than half of the model's parameters are among them.
    """
    names = source.class_names
    other_classes = names is not None and len(names) == len(class_names) and list(names) != list(class_names)
    found = transfer(
        model, source.tensors, in_channels=in_channels, num_classes=len(class_names), other_classes=other_classes
    )
    if found.fraction < LEAST_FRACTION:
        fits = f"none of its {len(source.tensors)} tensors fits this one"
        if found.fraction > 0:
            fits = f"only {100 * found.fraction:.0f} % of the parameters are in it"
        near = nearest_mismatch(model, source.tensors, found)
        raise InputError(f"{key}: {source.path} holds weights of another model: {fits}; {near}")
    model.load_state_dict(found.tensors, strict=False)
    return _describe(model, source, found)


def _describe(model: nn.Module, source: WeightFile, found: Transfer) -> tuple[str, dict[str, Any]]:
    """Return what was loaded, as a line for the user and as data for the record."""
    own = dict(model.named_parameters())
    loaded = sum(parameter.numel() for name, parameter in own.items() if name in found.tensors)
    total = sum(parameter.numel() for parameter in own.values())
    place = f"{source.path} ({source.container})" if source.container else str(source.path)
    parts = [f"{loaded:,} of {total:,} parameters from {place}"]
    parts += [f"adapted: {_format_reasons(found.adapted)}"] if found.adapted else []
    parts += [f"new: {_format_reasons(found.new)}"] if found.new else []
    parts += [f"not used: {_format_reasons(dict.fromkeys(found.left, ''))}"] if found.left else []
    with source.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "file": str(source.path), "sha256": sha256, "parameters": loaded, "adapted": dict(found.adapted),
        "new": dict(found.new), "left": list(found.left)[:MOST_RECORDED],
        **({"container": source.container} if source.container else {}),
    }  # fmt: skip
    return "; ".join(parts), record


def _format_reasons(reasons: Mapping[str, str]) -> str:
    """List names with their reasons: parameters of one layer and reason together, and at most `MOST_LISTED` entries."""
    layers: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons.items():
        layer, _, parameter = name.rpartition(".")
        layers.setdefault((layer, reason), []).append(parameter)
    texts = [
        f"{layer}{'.' * bool(layer)}{'|'.join(names)}{f' ({reason})' * bool(reason)}"
        for (layer, reason), names in layers.items()
    ]
    more = f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else ""
    return ", ".join(texts[:MOST_LISTED]) + more


def load_initial_weights(
    model: nn.Module,
    begun: Mapping[str, Any],
    init_from: str | None,
    place: str | None,
    normalisation: tuple[Sequence[float], Sequence[float]],
    *,
    trust: bool,
    named: Mapping[str, str],
    **sizes: Any,
) -> InitialWeights:
    """Load the weights that a run starts from.

    Args:
        model: Receives the weights.
        begun: The record of the run if it was stopped before its first checkpoint, or of the run that it reproduces. It
            starts from the same weights again: those in the record, and not from averages if that run did not.
        init_from: The run or file that the user names, if any.
        place: Its present path, if the name does not lead there from the working folder.
        normalisation: Mean and standard deviation of each channel by which images are normalised.
        trust: Build whatever model the config of a checkpoint names.
        named: Further classes that are allowed, by key; see `open_trained`.
        **sizes: Channels and classes; see `load_weights`.

    Raises:
        InputError: no such run or file, or it does not fit.
    """
    if init_from is None:
        start = begun.get("start")
        if not isinstance(start, str) or start == "scratch" or re.match(r"epoch \d", start):
            return InitialWeights()
        init_from = start
    source, remark = _with_averages(read_initial_weights(place or init_from), begun, trust=trust, named=named)
    line, record = load_weights(model, source, **sizes)
    line += remark
    own = source.normalisation
    if own is not None and _normalisations_differ(own, normalisation):
        mean, std = (f"[{','.join(f'{value:.4g}' for value in values)}]" for values in own)
        line += f"; its images were normalised by data.mean={mean} data.std={std}, unlike the images of this run"
    return InitialWeights(init_from, line, record)


def _with_averages(
    source: WeightFile, begun: Mapping[str, Any], *, trust: bool, named: Mapping[str, str]
) -> tuple[WeightFile, str]:
    """Return the weights that the run of a checkpoint evaluates, which are its averages if it has any.

    Averages have no names in a checkpoint, so its model is built to find them. If that is not possible, the result is
    the run's own weights, and a remark for the user; likewise if `begun` is the record of a run that began with these,
    as in former versions.
    """
    content = source.averaging
    if content is None:
        return source, ""
    if begun.get("start") not in (None, "scratch") and section(begun, "weights").get("container") != AVERAGE:
        return source, "; its own weights, as this run began with, not the averages that its run evaluates"
    try:
        node = plain_data(content["config"], str(source.path)).get("model") or {}
        check_node("model", node, trust=trust, named=named)
        in_size, num_classes = data_sizes(content, source.path)
        with random_state_kept():
            model = build_evaluated_model(content, source.path, node, in_size=in_size, num_classes=num_classes)
    except InputError as error:
        return source, f"; its own weights, not the averages that its run evaluates: {error.problems[0]}"
    return replace(source, tensors=state_tensors(model.state_dict()), container=AVERAGE), ""


def require_same_weights(weights: InitialWeights, run: RunDir, *, force: bool) -> None:
    """Check that a run that was stopped before its first checkpoint starts from the same weights again.

    Args:
        weights: The weights that were loaded now.
        run: The run folder.
        force: Accept others.

    Raises:
        InputError: the file has changed.
    """
    before = run.read_record().get("weights")
    known = before.get("sha256") if isinstance(before, dict) else None
    if weights.record and isinstance(known, str) and known != weights.record["sha256"] and not force:
        raise InputError(
            f"{weights.record['file']}: not the weights that the run started from: their SHA-256 begins with "
            f"{known[:12]}, that of this file with {weights.record['sha256'][:12]}; resume_force=true accepts them"
        )


def _normalisations_differ(one: tuple[Sequence[float], ...], other: tuple[Sequence[float], ...]) -> bool:
    """Return whether two normalisations with equally many channels differ by more than parts of one data set would."""
    pairs = [pair for a, b in zip(one, other, strict=True) if len(a) == len(b) for pair in zip(a, b, strict=True)]
    return any(abs(a - b) > NOTICEABLE for a, b in pairs)


def read_initial_weights(path: str) -> WeightFile:
    """Read the weights of `init_from`.

    Args:
        path: The run or file, where it is today.

    Raises:
        InputError: There is no such run or file, or it holds no weights.
    """
    with naming("init_from", path):
        return read_weights(resolve_weights(path))


def resolve_weights(path: str, *, warns: bool = True) -> Path:
    """Return the file that `init_from` names: itself, or the checkpoint of a run folder by `best_or_last`.

    Raises:
        InputError: There is no such file or checkpoint, or the ending is not that of a file of weights.
    """
    with naming("init_from", path):
        return _find_weights(path, warns=warns)


def _find_weights(path: str, *, warns: bool) -> Path:
    file = expand_home(path)
    if not is_weight_file(path):
        if file.is_file():
            raise InputError(f"{path}: files of weights end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        return resolve_checkpoint(path, warns=warns)
    if not file.is_file():
        raise InputError(f"{path}: no such file{similar_file(file)}")
    return file


def resolve_checkpoint(path: str, *, warns: bool = True) -> Path:
    """Return the checkpoint that a path names: the file itself, or that of a run folder by `best_or_last`."""
    file = expand_home(path)
    if file.suffix == ".pt" and file.is_file():  # also one that was copied out of its run folder
        return file
    run = find_run(path)
    if file.is_dir():
        return best_or_last(run, warns=warns)
    return file


def best_or_last(run: RunDir, *, warns: bool = True) -> Path:
    """Return the best checkpoint of a run, or its last one if it has none yet.

    A run that selected a best epoch had the file. If it is missing, a warning names the file that is used instead.

    Args:
        run: The run.
        warns: False for a check whose caller reads the checkpoint later.
    """
    if run.best.exists():
        return run.best
    best = run.read_record().get("best") if warns else None
    if isinstance(best, Mapping) and run.last.exists():
        epoch = format_value(best.get("epoch"))
        logger.warning("%s is missing: %s is used instead; the best epoch was %s", run.best, run.last.name, epoch)
    return run.last


def data_sizes(payload: Mapping[str, Any], file: Path) -> tuple[tuple[int, int, int], int]:
    """Return the size of the images (C, H, W) and the number of classes in a checkpoint's description of its data.

    Raises:
        InputError: they are not sizes, or are larger than any image.
    """
    size, names = payload["data"].get("in_size"), payload["data"].get("class_names")
    is_size = isinstance(size, list) and len(size) == 3 and all(type(n) is int and n > 0 for n in size)
    if not is_size or size[0] * size[1] * size[2] > MAX_IMAGE_VALUES:
        raise InputError(f"{file}: data.in_size: {format_value(size)} is not an image size")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: data.class_names: {format_value(names)} are not a list of names")
    channels, height, width = size
    return (channels, height, width), len(names)
