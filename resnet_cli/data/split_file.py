"""The file `splits.json` of a run, which lists the samples of each split, and split files written by hand.

A run writes names by folder, or numbers and ranges of unnamed samples, which begin with `row` (in shards `sample`) if
test samples were held out from those of a file:

    {"train": {"train/cat": ["001.png", "002.png"]}, "val": {...}, "test": {...}}
    {"train": {"train": ["0-40", 42, 44]}, "val": {"train": [41, 43]}, "test": {"test": ["0-9"]}}
    {"train": {"row": ["0-40", 42, 44]}, "val": {"row": [41, 43]}, "test": {"row": ["45-54"]}}

Lists of names can be read too, `{"train": ["cat/001.png", ...], "val": [...], "test": [...]}`, and lists of entries
that begin with the name: `["cat/001.png", 3, "cat"]`.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.config.json_text import parse_json
from resnet_cli.config.suggestions import nearest_name, similar_file
from resnet_cli.config.values import format_value
from resnet_cli.data.datasets.layout import USUAL_SPLIT_NAMES
from resnet_cli.data.selection import NumberedNames
from resnet_cli.errors import InputError

WIDTH = 120  # characters of a line
MOST_NUMBERS = 10**8  # numbers in a range
PARTS = ("train", "val", "test")


def format_split_file(names: Mapping[str, Sequence[str]], *, are_numbers: bool) -> str:
    """Return the text of a split file.

    Args:
        names: Names of the samples by split.
        are_numbers: Whether the names are parts and numbers of unnamed samples.
    """
    parts = []
    for part, found in names.items():
        folders: dict[str, list[str]] = {}
        for name in sorted(found):
            folder, _, last = name.rpartition("/")
            folders.setdefault(folder, []).append(last)
        form = _ranges if are_numbers else _quotes
        lines = [f"    {_quote(folder)}: [{_wrap(form(entries))}]" for folder, entries in folders.items()]
        parts.append(f'  "{part}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _quotes(entries: Sequence[str]) -> Iterator[str]:
    """Yield texts as JSON."""
    yield from map(_quote, entries)


def _quote(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _ranges(entries: Sequence[str]) -> Iterator[str]:
    """Yield numbers, and ranges of three or more, as JSON."""
    numbers = sorted(map(int, entries))
    start = 0
    for i in range(1, len(numbers) + 1):
        if i < len(numbers) and numbers[i] == numbers[i - 1] + 1:
            continue
        run = numbers[start:i]
        yield from [f'"{run[0]}-{run[-1]}"'] if len(run) > 2 else map(str, run)
        start = i


def _wrap(entries: Iterable[str]) -> str:
    """Join entries by commas, wrapping lines."""
    lines, line = [], ""
    for entry in entries:
        if line and len(line) + len(entry) > WIDTH - 8:
            lines.append(line)
            line = ""
        line += f"{', ' if line else ''}{entry}"
    lines.append(line)
    return line if len(lines) == 1 else "\n      " + ",\n      ".join(lines) + "\n    "


def read_split_file(
    path: Path, own_names: Mapping[str, Sequence[str]], left_out: frozenset[str]
) -> dict[str, list[tuple[str, int]]]:
    """Read which samples belong to which split.

    Args:
        path: The file.
        own_names: Names of the samples by the data set's own splits.
        left_out: Names of samples that the file may name, but that are not used.

    Returns:
        For each split in the file, the data set's own split of each sample and its index there, in the data set's
        order.

    Raises:
        InputError: The file cannot be read, or names unknown samples or a sample in several splits.
    """
    setting = f"data.splits={path}"
    parts = _parts(_load(path, setting), setting)
    names = _Names(own_names, left_out)
    problems: list[str] = []
    split_of: dict[tuple[str, int], str] = {}
    order = {part: number for number, part in enumerate(own_names)}
    for part, entries in parts.items():
        unknown = []
        listed = list(_flat_names(entries, "", are_numbers=names.are_numbers, setting=f"{setting}: {part}"))
        for name in listed:
            sample = names.find(name)
            if sample is None:
                unknown += [] if names.is_left_out(name) else [name]
            elif sample in split_of:
                where = f"in {split_of[sample]} and in {part}" if split_of[sample] != part else f"twice in {part}"
                problems.append(f"{setting}: {name} is {where}")
            else:
                split_of[sample] = part
        problems += [f"{setting}: {part}: {names.describe_unknown(name)}" for name in unknown[:3]]
        problems += [f"{setting}: {part}: {len(unknown)} of {len(listed)} names are unknown"] if unknown[3:] else []
    found: dict[str, list[tuple[str, int]]] = {part: [] for part in parts}
    for sample in sorted(split_of, key=lambda sample: (order[sample[0]], sample[1])):
        found[split_of[sample]].append(sample)
    if not problems:
        problems = [f"{setting}: {part}: no samples" for part in parts if not found[part]]
    if problems:
        more = [f"{setting}: {len(problems)} problems in all"] if len(problems) > 8 else []
        raise InputError(*problems[:8], *more)
    return found


def listed_names(path: Path, part: str, *, are_numbers: bool = False) -> frozenset[str] | None:
    """Return the names that a split file lists for a split; None if it cannot be read, or has not `are_numbers`."""
    try:
        parts = _parts(_load(path, str(path)), str(path))
        return frozenset(_flat_names(parts.get(part, []), "", are_numbers=are_numbers, setting=str(path)))
    except InputError:
        return None


def _load(path: Path, setting: str) -> Mapping[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = similar_file(path) if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"{setting}: {error.strerror or error}{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{setting}: is not JSON: {error}") from None
    except InputError as error:
        raise InputError(f"{setting}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f'{setting}: not a mapping of splits: {{"train": [...], "val": [...], "test": [...]}}')
    return content


def _parts(content: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """Return the splits in a file under the names `train`, `val` and `test`."""
    parts: dict[str, Any] = {}
    problems = []
    for part in PARTS:
        taken = [key for key in content if key.lower() in USUAL_SPLIT_NAMES[part] and _is_part(key, part, content)]
        if len(taken) > 1:
            problems.append(f"{setting}: {' and '.join(taken)} are the same split")
        if taken:
            parts[part] = content[taken[0]]
    every = sorted({name for names in USUAL_SPLIT_NAMES.values() for name in names})
    problems += [
        f"{setting}: {key} is not a split; did you mean {near}?"
        for key in content
        if key.lower() not in every and (near := nearest_name(key, every))
    ]
    if "train" not in parts and not problems:
        problems.append(f"{setting}: has no train (it has {', '.join(map(str, content)) or 'nothing'})")
    if problems:
        raise InputError(*problems)
    return parts


def _is_part(key: str, part: str, content: Mapping[str, Any]) -> bool:
    """Return whether an ambiguous name means this split: `eval` is the test split if no other name is."""
    others = {name.lower() for name in content} - {key.lower()}
    if key.lower() not in USUAL_SPLIT_NAMES["test"] or key.lower() not in USUAL_SPLIT_NAMES["val"]:
        return True
    has_test = not others.isdisjoint(set(USUAL_SPLIT_NAMES["test"]) - set(USUAL_SPLIT_NAMES["val"]))
    return has_test == (part == "val")


def _flat_names(entries: Any, folder: str, *, are_numbers: bool, setting: str) -> Iterator[str]:
    """Yield the names of the samples in a list, or in lists by folder."""
    prefix = f"{folder}/" if folder else ""
    if isinstance(entries, Mapping):
        for name, inner in entries.items():
            yield from _flat_names(inner, prefix + name.strip("/"), are_numbers=are_numbers, setting=setting)
        return
    if not isinstance(entries, list):
        raise InputError(f"{setting}: {format_value(entries)} is not a list of names")
    for entry in entries:
        name = entry[0] if isinstance(entry, list) and entry else entry
        if are_numbers and folder:
            yield from (f"{prefix}{number}" for number in _numbers(name, setting))
        elif isinstance(name, str):
            yield prefix + name.removeprefix("./")
        else:
            form = (
                'write it as {"train": {"train": [0, 1]}}, with the part that the number belongs to'
                if are_numbers
                else "the data set has names"
            )
            raise InputError(f"{setting}: {format_value(name)} is not a name; {form}")


def _numbers(entry: Any, setting: str) -> range:
    """Return the numbers of an entry: a number, or a range as text."""
    first, dash, last = str(entry).partition("-")
    if isinstance(entry, bool) or not first.isdecimal() or not (last.isdecimal() if dash else True):
        raise InputError(f'{setting}: {format_value(entry)} is neither a number nor a range such as "0-9"')
    found = range(int(first), int(last if dash else first) + 1)
    if not 0 < len(found) <= MOST_NUMBERS:
        raise InputError(f"{setting}: {format_value(entry)} is not a range of samples")
    return found


class _Names:
    """Finds samples by name, or by the last components of a path if these are unique.

    Args:
        own_names: Names of the samples by the data set's own splits.
        left_out: Names of samples that are not used.
    """

    def __init__(self, own_names: Mapping[str, Sequence[str]], left_out: frozenset[str]) -> None:
        self.are_numbers = any(isinstance(names, NumberedNames) for names in own_names.values())
        self.samples = {name: (part, i) for part, names in own_names.items() for i, name in enumerate(names)}
        former = {part: names.former for part, names in own_names.items() if isinstance(names, NumberedNames)}
        self._former = {name: (part, i) for part, names in former.items() for i, name in enumerate(names or ())}
        self.left_out = left_out
        self._by_ending: dict[str, list[str]] | None = None

    def find(self, name: str) -> tuple[str, int] | None:
        """Return the data set's own split and the index of a sample; None if it is unknown."""
        for spelling in _spellings(name):
            if spelling in self.samples:
                return self.samples[spelling]
        full = self._full_name(_with_slashes(name))
        return self.samples.get(full) if full else self._former.get(_with_slashes(name))

    def is_left_out(self, name: str) -> bool:
        """Return whether a name is that of an unused sample."""
        return not self.left_out.isdisjoint(_spellings(name)) or self._full_name(_with_slashes(name)) in self.left_out

    def _full_name(self, name: str) -> str | None:
        """Return the only known name that ends with this one, or that this one ends with."""
        if self._by_ending is None:
            self._by_ending = {}
            for full in () if self.are_numbers else (*self.samples, *self.left_out):
                for ending in _path_suffixes(full):
                    self._by_ending.setdefault(ending, []).append(full)
        known = {*self._by_ending.get(name, ())} | {
            e for e in _path_suffixes(name) if e in self.samples or e in self.left_out
        }
        return next(iter(known)) if len(known) == 1 else None

    def describe_unknown(self, name: str) -> str:
        """Return the rest of the message on an unknown name."""
        several = (self._by_ending or {}).get(name, ())
        if several:
            return f"{name} may be {several[0]} or {several[1]}"
        last = name.rpartition("/")[2]
        near = nearest_name(name, [full for full in self.samples if full.endswith(last)] or self._suggestions(name))
        return f"no sample is named {name}{f'; did you mean {near}?' if near else ''}"

    def _suggestions(self, name: str) -> list[str]:
        """Return samples to suggest for a name: those in its folder, or some, since searching all may take minutes."""
        folder = name.rpartition("/")[0]
        inside = [full for full in self.samples if folder and full.startswith(f"{folder}/")]
        return (inside or list(self.samples))[:5000]


def _spellings(name: str) -> tuple[str, ...]:
    """Return spellings of a name: unchanged, with slashes, and with composed or separate letters and marks."""
    text = _with_slashes(name)
    return name, text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def _with_slashes(name: str) -> str:
    """Return a name with slashes, for split files written on Windows."""
    return name.replace("\\", "/").removeprefix("./")


def _path_suffixes(name: str) -> list[str]:
    """Return the proper suffixes of a path: `b/c` and `c` for `a/b/c`."""
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(1, len(parts))]
