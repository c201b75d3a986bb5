"""Expansion of shard names in a config: `train-{000..099}.tar`, `train-*.tar`, or a list of these."""

import glob
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from resnet_cli.config.path_patterns import ADDRESS, WILDCARD, expand_braces
from resnet_cli.config.suggestions import similar_file
from resnet_cli.data.datasets.problems import raise_problems
from resnet_cli.data.images.remote import RemoteFile
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

MOST_SHARDS = 1_000_000


ShardPath = Path | RemoteFile


def find_shards(named: Mapping[str, str | Path | Sequence[str | Path] | None]) -> dict[str, list[ShardPath]]:
    """Return the shards of each split.

    Args:
        named: Values of config keys such as `shards`; None for keys that are not set.

    Raises:
        InputError: Shards are missing or named twice; one line for each problem.
    """
    found: dict[str, list[ShardPath]] = {}
    problems: list[str] = []
    seen: dict[ShardPath, str] = {}
    for name, value in named.items():
        if value is None:
            continue
        key = f"data.{name}"
        texts = [str(value)] if isinstance(value, str | Path) else list(map(str, value))
        try:
            found[name] = [path for text in texts for path in _expand(text, key)]
        except InputError as error:
            problems += error.problems
            continue
        if not found[name]:
            problems.append(f"{key}: no shards")
        problems += _find_missing([path for path in found[name] if isinstance(path, Path)], key)
        for path in found[name]:
            place = path.resolve() if isinstance(path, Path) else path
            if place in seen:
                problems.append(f"{key}: {path} is listed twice" + (f", also in {seen[place]}" * (seen[place] != key)))
            seen.setdefault(place, key)
    raise_problems(problems)
    return found


def _expand(text: str, key: str) -> Sequence[ShardPath]:
    if ADDRESS.match(text):
        return _expand_address(text, key)
    path = expand_home(text, key)
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises OSError for a name that is too long
        return [path]
    _require_pairs(text, key)
    found: list[Path] = []
    for name in expand_braces(str(path)):
        matches = sorted(glob.glob(name)) if WILDCARD.search(name) and not Path(name).exists() else [name]  # noqa: PTH207
        if not matches:
            raise InputError(f"{key}={text}: no such file{f' as {name}' * (name != text)}")
        found += map(Path, matches)
        if len(found) > MOST_SHARDS:
            raise InputError(f"{key}={text}: more than {MOST_SHARDS:,} shards")
    return found


def _expand_address(text: str, key: str) -> Sequence[RemoteFile]:
    """Return the files on a web server that an address with braces expands to."""
    if text.lower().startswith("pipe:"):
        raise InputError(
            f"{key}={text}: `pipe:` runs a command, which a config is not allowed to do; give files or addresses"
        )
    if not text.lower().startswith(("http://", "https://")):
        raise InputError(f"{key}={text}: shards are read only from folders (including mounted ones) and http(s)://")
    _require_pairs(text, key)
    if "*" in text:
        raise InputError(f"{key}={text}: a server does not list its files: name them in braces, such as {{000..099}}")
    found = [RemoteFile(url) for url in islice(expand_braces(text), MOST_SHARDS + 1)]
    if len(found) > MOST_SHARDS:
        raise InputError(f"{key}={text}: more than {MOST_SHARDS:,} shards")
    return found


def _require_pairs(text: str, key: str) -> None:
    if text.count("{") != text.count("}"):
        raise InputError(f"{key}={text}: a brace is not closed, or not opened")


def _find_missing(paths: Sequence[Path], key: str) -> list[str]:
    """Return a message for each missing shard, or a single one if all of several are missing."""
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths) > 1:
        others = "does the other shard" if len(paths) == 2 else f"do the other {len(paths) - 1:,} shards"
        return [f"{key}: {_describe_missing(missing[0])}, nor {others}"]
    return [f"{key}: {_describe_missing(path)}" for path in missing]


def _describe_missing(path: Path) -> str:
    if path.exists():
        return f"{path} is not a file"
    return f"{path} does not exist{similar_file(path)}"
