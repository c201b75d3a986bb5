"""Paths of shards from how a config names them: `train-{000..099}.tar`, `train-*.tar`, or a list of such texts."""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resnet_cli.config.suggestions import nearest_name
from resnet_cli.data.datasets.table import raise_problems
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

MOST_SHARDS = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:")  # a scheme; one letter is a drive of Windows


def find_shards(named: Mapping[str, str | Sequence[str] | None]) -> dict[str, list[Path]]:
    """Return the shards of each split.

    Args:
        named: How the config names them, by config key such as `shards`; None for those that are not set.

    Raises:
        InputError: Shards are missing or named twice; one line for each problem.
    """
    found: dict[str, list[Path]] = {}
    problems: list[str] = []
    seen: dict[Path, str] = {}
    for name, value in named.items():
        if value is None:
            continue
        key = f"data.{name}"
        texts = [value] if isinstance(value, str) else list(value)
        try:
            found[name] = [path for text in texts for path in _expand(text, key)]
        except InputError as error:
            problems += error.problems
            continue
        if not found[name]:
            problems.append(f"{key}: no shards")
        problems += _find_missing(found[name], key)
        for path in found[name]:
            place = path.resolve()
            if place in seen:
                problems.append(f"{key}: {path} is there twice" + (f", in {seen[place]} too" * (seen[place] != key)))
            seen.setdefault(place, key)
    raise_problems(problems)
    return found


def expand_braces(text: str) -> Iterator[str]:
    """Yield the texts that a text with braces stands for, as in a shell: `a{08..10}`, `a{x,y}`."""
    match = BRACES.search(text)
    if match is None:
        yield text
        return
    numbers = RANGE.fullmatch(match[1])
    for choice in _count(*numbers.groups()) if numbers else match[1].split(","):
        yield from expand_braces(text[: match.start()] + choice + text[match.end() :])


def _count(first: str, last: str) -> Iterator[str]:
    """Yield numbers from `first` to `last`, up or down, as wide as the wider one if one begins with 0."""
    start, stop = int(first), int(last)
    is_padded = any(len(text) > 1 and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    step = 1 if start <= stop else -1
    return (f"{number:0{width}d}" for number in range(start, stop + step, step))


def _expand(text: str, key: str) -> list[Path]:
    if ADDRESS.match(text):
        raise InputError(
            f"{key}={text}: an address: shards are read from a folder of this machine, or one mounted there"
        )
    path = expand_home(text, key)
    if path.exists():
        return [path]
    if text.count("{") != text.count("}"):
        raise InputError(f"{key}={text}: a brace is not closed, or not opened")
    found: list[Path] = []
    for name in expand_braces(str(path)):
        matches = sorted(glob.glob(name)) if re.search(r"[*?[]", name) and not Path(name).exists() else [name]  # noqa: PTH207
        if not matches:
            raise InputError(f"{key}={text}: no such file{f' as {name}' * (name != text)}")
        found += map(Path, matches)
        if len(found) > MOST_SHARDS:
            raise InputError(f"{key}={text}: more than {MOST_SHARDS:,} shards")
    return found


def _find_missing(paths: Sequence[Path], key: str) -> list[str]:
    """Return a message on each missing shard; one for all if there is none of several."""
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths) > 1:
        return [f"{key}: {_describe_missing(missing[0])}, nor do the other {len(paths) - 1} shards"]
    return [f"{key}: {_describe_missing(path)}" for path in missing]


def _describe_missing(path: Path) -> str:
    if path.exists():
        return f"{path} is not a file"
    try:
        nearest = nearest_name(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        nearest = ""
    return f"{path} does not exist" + (f"; did you mean {path.with_name(nearest)}?" if nearest else "")
