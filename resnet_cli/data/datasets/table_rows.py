"""Conversion of table rows to samples: files, classes, splits, weights and groups; errors name the line."""

import logging
import math
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.suggestions import did_you_mean, similar_file
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data.datasets.label_checks import refuse_measurements, warn_missing
from resnet_cli.data.datasets.layout import IMAGE_SUFFIXES, USUAL_SPLIT_NAMES, format_names
from resnet_cli.data.datasets.problems import MAX_PROBLEMS, raise_problems
from resnet_cli.data.datasets.samples import Samples
from resnet_cli.data.datasets.table import Table
from resnet_cli.data.datasets.table_labels import (
    describe_joined_labels,
    describe_unknown_label,
    label_order,
    read_label_sets,
)
from resnet_cli.data.whole_dataset import least_classes
from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

ADDED_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")  # to names without an extension
MAX_COUNTED = 1000  # paths that are tried to find the folder that they are relative to


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None for columns that it does not have.

    `label` is the name of one column, or with several labels a list of columns of 0 and 1, one for each class. With
    `label_sets`, the cells of a single column contain class names separated by `delimiter`.
    """

    path: str
    label: str | Sequence[str]
    split: str | None = None
    weight: str | None = None
    group: str | None = None
    label_sets: bool = False
    delimiter: str | None = None

    @property
    def filled(self) -> list[str]:
        """The columns that must not have empty cells; label sets may be empty."""
        labels = [] if self.label_sets or not isinstance(self.label, str) else [self.label]
        return [c for c in (self.path, *labels, self.split, self.weight, self.group) if c is not None]


def read_samples(table: Table, columns: Columns, base: Path) -> tuple[dict[str, Samples], tuple[str, ...]]:
    """Return the samples of each split in the order of the rows, and the names of the classes.

    Args:
        table: The table.
        columns: The columns to use.
        base: Folder that the paths are relative to.

    Raises:
        InputError: Rows cannot be used; the message lists the first five with their lines.
    """
    raise_problems(_find_empty(table, columns), *_advice_on_empty(table, columns))
    names = _find_files(table, columns.path, base)
    splits = _read_splits(table, columns.split)
    if columns.label_sets:
        label_sets = read_label_sets(table, columns.label, columns.delimiter, splits)
        raise_problems(_find_repeated(table, names, label_sets.texts, splits))
        class_names, labels = label_sets.class_names, label_sets.labels
    else:
        assert isinstance(columns.label, str), "one column of classes"
        cells = [cell.strip() for cell in table.columns[columns.label]]
        raise_problems(_find_repeated(table, names, cells, splits))
        trained = [cell for cell, split in zip(cells, splits, strict=True) if split == "train"]
        forms = match_unicode_forms(set(cells), set(trained))
        cells = [forms.get(cell, cell) for cell in cells]
        where = f"{table.path}: column {columns.label!r}"
        refuse_measurements(where, set(trained), len(trained))
        warn_missing(where, set(trained))
        class_names = _find_classes(table, cells, splits)
        numbers = {name: number for number, name in enumerate(class_names)}
        labels = torch.tensor([numbers[label] for label in cells])
    samples = Samples(
        names,
        labels,
        None if columns.weight is None else read_weights(table, columns.weight),
        None if columns.group is None else _number_groups(table.columns[columns.group]),
    )
    rows = {split: torch.tensor([i for i, found in enumerate(splits) if found == split]) for split in USUAL_SPLIT_NAMES}
    return {split: samples.select(indices) for split, indices in rows.items() if len(indices)}, class_names


def _find_empty(table: Table, columns: Columns) -> Iterator[str]:
    """Yield a message for each empty cell of a column that must be filled."""
    for row in range(len(table)):
        for column in columns.filled:
            if not table.columns[column][row].strip():
                yield f"{table.where(row)}: no {column}"


def _advice_on_empty(table: Table, columns: Columns) -> Iterator[str]:
    """Yield a line on empty labels if other labels seem to be several: images may then have none."""
    if not columns.label_sets and isinstance(columns.label, str):
        line = describe_joined_labels(table.columns[columns.label])
        if line:
            yield f"{table.path}: {line}: images may then have none"


def _find_files(table: Table, column: str, base: Path) -> list[str]:
    """Return the path of each row's file relative to `base`.

    Raises:
        InputError: Paths lead out of `base`, or files do not exist.
    """
    bases = (base.absolute(), base.resolve())
    found: list[str] = []
    problems: list[str] = []
    count = outside = 0
    for row, cell in enumerate(table.columns[column]):
        names = _relative_candidates(cell, bases)
        name = _find_file(names, base)
        if name is not None:
            found.append(name)
            continue
        count += 1
        outside += not names and not Path(cell.strip()).is_absolute()
        if count <= MAX_PROBLEMS:
            reason = _describe_missing(names[0], base) if names else _describe_outside(cell.strip(), base)
            problems.append(f"{table.where(row)}: {reason}")
    if len(table) == count == outside > MAX_PROBLEMS:
        raise InputError(f"{problems[0]} (and in {counted(count - 1, 'more row')})")
    if len(table) == count > MAX_PROBLEMS:
        advice = "set data.root to the folder that the paths are relative to"
        raise InputError(f"{problems[0]}; the files of the other {counted(count - 1, 'row')} are missing too; {advice}")
    raise_problems([*problems, *[""] * (count - len(problems))])
    return found


def count_files(cells: Sequence[str], base: Path) -> int:
    """Return how many of a table's paths, from a sample of about `MAX_COUNTED`, exist in a folder."""
    bases = (base.absolute(), base.resolve())
    counted = cells[:: max(1, len(cells) // MAX_COUNTED)]
    return sum(_find_file(_relative_candidates(cell, bases), base) is not None for cell in counted)


def _find_file(names: Sequence[str], base: Path) -> str | None:
    """Return the first of some paths that is a file, or else the only one with an extension added; None without one.

    Extensions in upper case are added only if no file has one in lower case: on some systems both are the same file.
    """
    found = next((name for name in names if _is_file(base / name)), None)
    if found is not None or not names or Path(names[0]).suffix.lower() in IMAGE_SUFFIXES:
        return found
    for suffixes in (ADDED_SUFFIXES, [suffix.upper() for suffix in ADDED_SUFFIXES]):
        files = [name for name in {f"{name}{suffix}" for name in names for suffix in suffixes} if _is_file(base / name)]
        if files:
            return files[0] if len(files) == 1 else None
    return None


def _relative_candidates(cell: str, bases: Sequence[Path]) -> list[str]:
    """Return candidates for a path relative to a folder, which is given as `bases`, in the order of `_spellings`."""
    return [name for text in _spellings(cell) if (name := _relative(text, bases)) is not None]


def _spellings(cell: str) -> Iterator[str]:
    """Yield spellings of a path: unchanged, stripped of spaces, with other systems' separators and Unicode forms."""
    text = cell.strip()
    yield text
    yield cell
    yield text.replace("\\", "/")
    yield unicodedata.normalize("NFC", text)  # composed letters
    yield unicodedata.normalize("NFD", text)  # letters with their marks apart, as macOS stores names


def _relative(text: str, bases: Sequence[Path]) -> str | None:
    """Return a path relative to the first of the folders that contains it; None if none does."""
    path = Path(os.path.normpath(text))
    if path.is_absolute():
        return next((os.path.relpath(path, base) for base in bases if path.is_relative_to(base)), None)
    return None if path.parts[:1] == (os.pardir,) else str(path)


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # too long, or with a zero byte
        return path.is_file()
    return False


def _describe_outside(path: str, base: Path) -> str:
    advice = "; write the paths without .., relative to a folder above it, and set data.root to that folder"
    return f"{path} is outside data.root={base}{'' if Path(path).is_absolute() else advice}"


def _describe_missing(name: str, base: Path) -> str:
    """Return a message that a file is missing, with the nearest name in its folder."""
    path = base / name
    with suppress(OSError, ValueError):  # as in `_is_file`
        if path.is_dir():
            return f"{path} is a folder"
    return f"{path} does not exist{similar_file(path)}"


def _read_splits(table: Table, column: str | None) -> list[str]:
    """Return `train`, `val` or `test` for each row; `train` for all if the table has no such column."""
    if column is None:
        return ["train"] * len(table)
    cells = [cell.strip().lower() for cell in table.columns[column]]
    test_names = set(USUAL_SPLIT_NAMES["test"])
    both = test_names & set(USUAL_SPLIT_NAMES["val"])  # `eval` means val if other rows are named test
    has_test = not both.issuperset(test_names.intersection(cells))
    meanings = {name: split for split, names in USUAL_SPLIT_NAMES.items() for name in names}
    meanings |= dict.fromkeys(both, "val" if has_test else "test")
    raise_problems(
        partial(_describe_unknown_split, table, row, column, meanings)
        for row, cell in enumerate(cells)
        if cell not in meanings
    )
    splits = [meanings[cell] for cell in cells]
    if "train" not in splits:
        raise InputError(f"{table.path}: column {column!r} has no row of the training split")
    return splits


def _describe_unknown_split(table: Table, row: int, column: str, names: Collection[str]) -> str:
    cell = table.columns[column][row].strip()
    nearest = did_you_mean(cell, names)
    return f"{table.where(row)}: {column}={cell}: not the name of a split (train, val, test){nearest}"


def _find_repeated(table: Table, names: Sequence[str], labels: Sequence[str], splits: Sequence[str]) -> Iterator[str]:
    """Yield a message for each file that an earlier row names too."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        earlier = first.setdefault(name, row)
        if earlier == row:
            continue
        difference = ""
        if labels[row] != labels[earlier]:
            difference = f" with the label {labels[earlier]!r}, not {labels[row]!r}"
        elif splits[row] != splits[earlier]:
            difference = f" in the {splits[earlier]} split, not {splits[row]}"
        yield f"{table.where(row)}: {name} is already listed in {table.unit} {table.lines[earlier]}{difference}"


def _find_classes(table: Table, labels: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    """Return the sorted names of the classes, which are those of the training split.

    Raises:
        InputError: Rows of another split have a label that no row of the training split has.
    """
    by_split: dict[str, set[str]] = {split: set() for split in USUAL_SPLIT_NAMES}
    for label, split in zip(labels, splits, strict=True):
        by_split[split].add(label)
    train = by_split["train"]
    raise_problems(
        partial(describe_unknown_label, table, row, splits[row], label, train)
        for row, label in enumerate(labels)
        if label not in train
    )
    if len(train) < least_classes():
        raise InputError(f"{table.path}: all training images are of class {next(iter(train))!r}: 2 are needed")
    for split in ("test", "val"):
        missing = train - by_split[split]
        if by_split[split] and missing:
            log.warning("%s: the %s split has no image of %s", table.path, split, format_names(sorted(missing)))
    return tuple(sorted(train, key=label_order(train)))


def read_weights(table: Table, column: str) -> Tensor:
    """Return the weights, float64 [N]; raise an `InputError` unless each is finite and 0 or more."""
    weights: list[float] = []
    problems: list[str] = []
    for row, cell in enumerate(table.columns[column]):
        try:
            weight = float(cell)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            problems.append(f"{table.where(row)}: {column} is {cell.strip()!r}, not a number from 0")
        weights.append(weight)
    raise_problems(problems)
    return torch.tensor(weights, dtype=torch.float64)


def _number_groups(cells: Sequence[str]) -> Tensor:
    """Return the number of each row's group, counted by first occurrence, int64 [N]."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(cell.strip(), len(numbers)) for cell in cells])
