"""Multi-label columns of tables: several names in a cell, or a column of 0 and 1 for each class."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data.datasets.problems import raise_problems
from resnet_cli.data.datasets.table import Table
from resnet_cli.data.whole_dataset import least_classes
from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

DELIMITERS = "|;,"  # of names in a cell, the preferred one first
MOST_OTHERS = 0.05  # of the cells of a column: up to these, it seems to be a column of 0 and 1 with errors
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")  # cells in columns of classes


@dataclass(frozen=True)
class LabelSets:
    """The labels of each row.

    Args:
        texts: Text of each row's labels for messages, equal for rows with equal labels.
        labels: Bool [N, K].
        class_names: Names of the K classes.
    """

    texts: Sequence[str]
    labels: Tensor
    class_names: tuple[str, ...]


def find_class_columns(table: Table, given: Sequence[str] | None, used: Sequence[str]) -> list[str]:
    """Return the columns of 0 and 1: those given in the config, or all that contain only these and are not `used`.

    Raises:
        InputError: There are fewer than two (none, if the data set is read `undivided`), or a given column does not
            exist.
    """
    if given is not None:
        columns = [table.find_column("data.label_column", str(name), ()) or "" for name in given]
    else:
        rest = [name for name in table.columns if name not in used]
        columns = [name for name in rest if all(_plain(cell) in (*YES, *NO) for cell in table.columns[name])]
        for name in rest:
            if name not in columns:
                _warn_unused(table, name)
    if len(columns) < least_classes():
        raise InputError(
            f"data.labels=multi: {table.path} has no column of labels, and not two columns of 0 and 1: name them with "
            f"data.label_column=NAME or data.label_column=[NAME,NAME]{table.describe_unread()}"
        )
    if given is None:
        log.info("%s: the classes are the columns %s", table.path, ", ".join(columns))
    return columns


def _warn_unused(table: Table, column: str) -> None:
    """Log a warning if nearly all cells of a column are 0 or 1: it is not a class because of a few others."""
    cells, others = table.columns[column], list[int]()
    for row, cell in enumerate(cells):
        if _plain(cell) not in (*YES, *NO):
            others.append(row)
        if len(others) > MOST_OTHERS * len(cells):
            return
    if any(_plain(cell) in YES for cell in cells):
        more = f" (and in {counted(len(others) - 1, 'more row')})" if len(others) > 1 else ""
        log.warning(
            "%s: %s is %r, not 0 or 1%s: the column is not used as a class; correct it, or name the classes with "
            "data.label_column=[NAME,NAME]",
            table.where(others[0]), column, table.columns[column][others[0]].strip(), more,
        )  # fmt: skip


def read_label_sets(
    table: Table, column: str | Sequence[str], delimiter: str | None, splits: Sequence[str]
) -> LabelSets:
    """Return the labels of each row.

    Args:
        table: The table.
        column: The column of class names, or one of 0 and 1 for each class.
        delimiter: Delimiter of the names in a cell; None takes the first of `DELIMITERS` that occurs.
        splits: The split of each row; the classes are those of the training split.

    Raises:
        InputError: Rows cannot be used; the message lists the first five with their lines.
    """
    if not isinstance(column, str):
        return _read_class_columns(table, column)
    cells = table.columns[column]
    is_given = delimiter is not None
    if delimiter is None:
        delimiter = next((mark for mark in DELIMITERS if any(mark in cell for cell in cells)), DELIMITERS[0])
    names = [list(dict.fromkeys(name.strip() for name in cell.split(delimiter) if name.strip())) for cell in cells]
    train = {name for row, split in zip(names, splits, strict=True) if split == "train" for name in row}
    forms = match_unicode_forms({name for row in names for name in row}, train)
    names = [[forms.get(name, name) for name in row] for row in names]
    raise_problems(
        partial(describe_unknown_label, table, row, splits[row], name, train)
        for row, found in enumerate(names)
        for name in found
        if name not in train
    )
    if len(train) < least_classes():
        only = f"only the class {next(iter(train))!r}" if train else "no class"
        raise InputError(f"{table.path}: column {column!r} has {only} in its training rows: 2 are needed")
    if all(len(row) < 2 for row in names):
        log.warning(
            "%s: no image has two labels with %r between them; set data.label_delimiter to what is",
            table.path,
            delimiter,
        )
    if not is_given:
        _warn_other_delimiters(table, column, delimiter, train)
    class_names = tuple(sorted(train, key=label_order(train)))
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = torch.zeros(len(names), len(class_names), dtype=torch.bool)
    for row, found in enumerate(names):
        labels[row, [numbers[name] for name in found]] = True
    return LabelSets([delimiter.join(sorted(row)) for row in names], labels, class_names)


def _warn_other_delimiters(table: Table, column: str, delimiter: str, class_names: Collection[str]) -> None:
    """Log a warning about a class that seems to be several names with another delimiter between them."""
    other = next((name for name in sorted(class_names) if any(mark in name for mark in DELIMITERS)), None)
    if other is not None:
        log.warning(
            "%s: column %r: %r is one class, since other cells have %r between class names; set data.label_delimiter "
            "to choose the delimiter", table.path, column, other, delimiter,
        )  # fmt: skip


def _read_class_columns(table: Table, columns: Sequence[str]) -> LabelSets:
    cells = [[_plain(cell) for cell in table.columns[column]] for column in columns]
    raise_problems(
        f"{table.where(row)}: {column} is {table.columns[column][row].strip()!r}, not 0 or 1"
        for row in range(len(table))
        for column, found in zip(columns, cells, strict=True)
        if found[row] not in (*YES, *NO)
    )
    labels = torch.tensor([[cell in YES for cell in found] for found in cells]).T.contiguous()
    texts = ["|".join(name for name, has in zip(columns, row, strict=True) if has) for row in labels.tolist()]
    return LabelSets(texts, labels, tuple(columns))


def describe_unknown_label(table: Table, row: int, split: str, label: str, known: Collection[str]) -> str:
    """Return a message about a label that no training image has, with the most similar one.

    Args:
        table: The table.
        row: The row of the image.
        split: The split of the image.
        label: The label.
        known: The labels of the training images.
    """
    nearest = did_you_mean(label, known)
    return f"{table.where(row)}: no training image has the label {label!r} of this {split} image{nearest}"


def describe_joined_labels(labels: Iterable[str]) -> str:
    """Return advice if labels that are read as one each seem to be several; an empty string if they do not."""
    joined = next((label for label in labels if any(mark in label for mark in DELIMITERS)), None)
    return "" if joined is None else f"data.labels=multi if {joined!r} is several labels"


def label_order(labels: set[str]) -> Callable[[str], tuple[int, str]]:
    """Return a sort key for labels: by value if all are whole numbers, else by text."""
    are_numbers = all(label.isdecimal() and label.isascii() for label in labels)
    return lambda label: (int(label) if are_numbers else 0, label)


def _plain(cell: str) -> str:
    return cell.strip().lower()
