"""Arrays of labels as classes: numbers, one-hot rows, or names as text."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data.datasets.array_files import NamedArray
from resnet_cli.data.datasets.label_checks import MAX_CLASSES, refuse_measurements, warn_missing
from resnet_cli.data.datasets.layout import format_names
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError

Array = np.ndarray[Any, Any]

log = logging.getLogger("resnet_cli")


def to_labels(
    arrays: Mapping[str, NamedArray], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the names of the classes, and the labels of each split as int64 [N].

    Args:
        arrays: The labels of `train` and, if present, of `val` and `test`: whole numbers, one-hot rows, or text.
        class_names: Names of the classes 0, 1, ..., or all texts that may occur. None takes the sorted texts or numbers
            of the training labels.

    Raises:
        InputError: Labels do not give one class for each image, or a label occurs only outside of the training split.
    """
    values = {split: _one_per_image(array) for split, array in arrays.items()}
    kinds = {split: found.dtype.kind == "U" for split, found in values.items()}
    if len(set(kinds.values())) > 1:
        raise InputError(f"{' and '.join(map(str, arrays.values()))}: some labels are text and some are numbers")
    if not kinds["train"]:
        for split, found in values.items():
            _refuse_negative(arrays[split], found)
    are_all_known = current_undivided() is not None
    labels = np.concatenate([found for split, found in values.items() if split == "train" or are_all_known])
    known: Array = np.unique(labels)
    refuse_measurements(str(arrays["train"]), known.tolist(), len(labels))
    warn_missing(str(arrays["train"]), known.tolist())
    if class_names is not None:
        names = tuple(map(str, class_names))
        _refuse_repeated(names)
        known = np.array(names) if kinds["train"] else np.arange(len(names))
    else:
        names = tuple(map(str, known.tolist()))
        if not kinds["train"]:
            _log_gaps(arrays["train"], known)
    return names, {
        split: _to_indices(arrays[split], found, known, names, is_given=class_names is not None)
        for split, found in values.items()
    }


def to_label_sets(
    arrays: Mapping[str, NamedArray], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the names of the classes, and whether each image of each split has each class, bool [N, K].

    Args:
        arrays: The labels of `train` and, if present, of `val` and `test`: 0 and 1, or booleans, [N, K].
        class_names: Names of the classes; None numbers them from 0.

    Raises:
        InputError: Labels have another form, or the splits have different numbers of classes.
    """
    found: dict[str, Tensor] = {}
    for split, array in arrays.items():
        values = array.values
        if values.ndim != 2 or values.dtype.kind not in "buif":
            raise InputError(f"{array}: with data.labels=multi labels are 0 and 1, [N, K], a column for each class")
        is_right = np.isin(values, (0, 1)).all(1)
        if not is_right.all():
            raise InputError(f"{array}: row {int(np.argmin(is_right))} has values other than 0 and 1")
        found[split] = torch.from_numpy(values == 1)
    classes = found["train"].shape[1]
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    _refuse_repeated(names)
    if len(names) != classes:
        columns = counted(classes, "column")
        raise InputError(f"data.class_names has {counted(len(names), 'name')}, but {arrays['train']} has {columns}")
    for split, labels in found.items():
        if labels.shape[1] != classes:
            raise InputError(
                f"{arrays[split]}: {counted(labels.shape[1], 'column')}, but those of training have {classes}"
            )
    return names, found


def text_array(array: NamedArray) -> list[str]:
    """Return the names in an array of text.

    Raises:
        InputError: The array is not a list of strings.
    """
    if array.values.dtype.kind not in "SU" or array.values.ndim != 1:
        raise InputError(f"{array}: class names must be a list of strings")
    return [str(name) for name in _as_text(array, array.values).tolist()]


def _one_per_image(array: NamedArray) -> Array:
    """Return labels as int64 or text [N]."""
    values = array.values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind in "SU":
        if values.ndim != 1:
            raise InputError(f"{array}: labels must be one string per image")
        return _as_text(array, values)
    if values.ndim == 2:
        return _from_one_hot(array, values)
    if values.ndim != 1:
        raise InputError(f"{array}: labels are [N], [N, 1] or one-hot [N, K]")
    if values.dtype.kind == "f":
        is_whole = np.isfinite(values) & (values == np.round(values))
        if not is_whole.all():
            row = int(np.argmin(is_whole))
            raise InputError(f"{array}: label {row} is {values[row]:g}: labels must be integers or strings")
    if values.dtype.kind in "uf" and len(values) and values.max() >= 2**62:
        raise InputError(f"{array}: label {int(values.argmax())} is {values.max()}: too large for a class")
    return np.asarray(values, np.int64)


def _from_one_hot(array: NamedArray, values: Array) -> Array:
    """Return the classes of one-hot rows."""
    is_one_hot = np.isin(values, (0, 1)).all(1) & (values.sum(1) == 1)
    if not is_one_hot.all():
        row = int(np.argmin(is_one_hot))
        ones = int((values[row] == 1).sum())
        state = f"has {ones} ones" if np.isin(values[row], (0, 1)).all() else "has values other than 0 and 1"
        raise InputError(
            f"{array}: row {row} {state}: one class for each image is needed, as a number or one-hot; "
            "data.labels=multi if images have several"
        )
    return np.asarray(values.argmax(1), np.int64)


def _as_text(array: NamedArray, values: Array) -> Array:
    if values.dtype.kind == "U":
        return values
    try:
        return np.asarray(np.char.decode(values, "utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{array}: strings are not UTF-8: {error.reason}") from None


def _refuse_negative(array: NamedArray, values: Array) -> None:
    if len(values) and values.min() < 0:
        count, first = int((values < 0).sum()), int(np.argmax(values < 0))
        raise InputError(
            f"{array}: {count} label{'s are' if count > 1 else ' is'} negative (the first: label {first} is "
            f"{values[first]}): leave out images without a class"
        )


def _refuse_repeated(names: Sequence[str]) -> None:
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"data.class_names: {twice!r} is listed twice")


def _log_gaps(array: NamedArray, known: Array) -> None:
    """Log a warning if labels are not 0, 1, ..., K - 1: a class may be missing, or labels may start at 1."""
    if not len(known) or known[-1] == len(known) - 1:
        return
    gaps = np.setdiff1d(np.arange(min(int(known[-1]), MAX_CLASSES)), known)
    shown = ", ".join(map(str, gaps[:5])) + (f" and {len(gaps) - 5} more" if len(gaps) > 5 else "")
    log.warning(
        "%s: labels go from %d to %d without %s: %d classes, named by their labels", array, known[0], known[-1], shown,
        len(known),
    )  # fmt: skip


def _to_indices(array: NamedArray, values: Array, known: Array, names: tuple[str, ...], *, is_given: bool) -> Tensor:
    """Return the index of each label in `known`."""
    unknown = np.setdiff1d(values, known)
    if len(unknown) and values.dtype.kind == "U":
        forms = match_unicode_forms(unknown.tolist(), known.tolist())
        values = np.array([forms.get(value, value) for value in values.tolist()])
        unknown = np.setdiff1d(values, known)
    if len(unknown):
        where = f"data.class_names has {len(names)}" if is_given else f"the training labels have {len(names)}"
        more = f" and {counted(len(unknown) - 1, 'more label')}" if len(unknown) > 1 else ""
        label = unknown[0].item()
        is_text = isinstance(label, str)
        nearest = did_you_mean(label, names) if is_text else ""
        classes = format_names(names) if is_text or not is_given else f"0 to {len(names) - 1}"
        raise InputError(f"{array}: {label!r}{more} not among the classes: {where} ({classes}){nearest}")
    order = np.argsort(known)
    return torch.from_numpy(order[np.searchsorted(known[order], values)].astype(np.int64))
