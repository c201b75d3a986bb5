"""The index of a shard: its samples, the positions of their images, and their labels.

As in the WebDataset format, a sample is a sequence of files with the same stem: `a/001.jpg`, `a/001.cls`. The stem ends
before the first dot of the file's name; the rest is the extension.
"""

import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_cli.config.json_text import parse_json
from resnet_cli.data.datasets.layout import IMAGE_SUFFIXES
from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.remote import RemoteFile
from resnet_cli.data.images.shards import OpenFiles, Shard
from resnet_cli.data.images.tar_index import Member, list_members
from resnet_cli.errors import InputError, MachineError

STEM = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)")  # stem and extension; does not match names that begin with a dot
LABEL_EXTENSIONS = ("cls", "cls.txt", "label", "class", "target", "json")
LABEL_FIELDS = ("label", "cls", "class", "class_name", "label_name", "target", "category", "y")
LONGEST_LABEL = 1 << 20  # bytes of a label file, which is text or JSON
LISTED = 8  # extensions of a sample to list
END_BYTES = 4096  # at the end of each image, for its checksum: the first bytes are equal in many images

Group = dict[str, Member]  # the files of a sample by extension


@dataclass(frozen=True)
class Extensions:
    """The files of a sample to read; the arguments are those of `resnet_cli.data.webdataset`."""

    image: str | None = None
    label: str | None = None
    label_field: str | None = None


class ShardIndex(NamedTuple):
    """The samples of a shard.

    Args:
        shard: The images.
        class_names: Labels that occur, in order of first occurrence.
        labels: Index of each sample's label in `class_names`, int64 [N].
    """

    shard: Shard
    class_names: Sequence[str]
    labels: "np.ndarray[Any, np.dtype[np.int64]]"


def index_shard(path: Path | RemoteFile, extensions: Extensions, cache: ArrayCache) -> ShardIndex:
    """Return the index of a shard, from the cache or by reading its headers and labels.

    A shard on a server is downloaded to a temporary copy.

    Raises:
        InputError: The archive is damaged, or samples cannot be used; one line for each problem.
    """
    facts = path.facts() if isinstance(path, RemoteFile) else _file_facts(path)
    text = json.dumps(["shard", 1, facts, *astuple(extensions)])
    key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    content = cache.load_json(key)
    if content is None:
        content = _read_remote(path, extensions) if isinstance(path, RemoteFile) else _read_index(path, extensions)
        cache.save_json(key, content)
    members = np.array(content["members"], np.int64).reshape(-1, 4)
    shard = Shard(path, facts, content["names"], members)
    return ShardIndex(shard, content["class_names"], np.array(content["labels"], np.int64))


def _file_facts(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}"


def _read_remote(file: RemoteFile, extensions: Extensions) -> dict[str, Any]:
    """Return what `_read_index` returns, from a temporary copy."""
    with tempfile.TemporaryDirectory(prefix="resnet-cli-") as folder:
        copy = Path(folder) / "shard.tar"
        try:
            file.copy_to(copy)
            return _read_index(copy, extensions)
        except InputError as error:
            raise type(error)(*(problem.replace(str(copy), str(file)) for problem in error.problems)) from None
        except OSError as error:
            raise MachineError(
                error.errno, f"{file}: cannot be copied to {folder}: {error.strerror or error}"
            ) from None


def _read_index(path: Path, extensions: Extensions) -> dict[str, Any]:
    file = OpenFiles()
    names: list[str] = []
    members: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    class_names: dict[str, int] = {}
    problems: list[str] = []
    start = 0
    for stem, group in _group_by_stem(path, problems):
        try:
            image = _find_image(group, extensions)
            label = _read_label(path, group, extensions, file)
        except InputError as error:
            problems += [f"{path}: sample {stem!r}: {problem}" for problem in error.problems]
            continue
        end_bytes = min(image.size, END_BYTES)
        checksum = zlib.crc32(file.read(path, image.offset + image.size - end_bytes, end_bytes))
        names.append(image.name)
        members.append((image.offset, image.size, checksum, start))
        start += len(image.name) + 1
        labels.append(class_names.setdefault(label, len(class_names)))
    if not members and not problems:
        problems.append(f"{path}: no samples: no files in it, or none with an extension")
    if problems:
        raise InputError(*problems)
    text = "".join(f"{name}\0" for name in names)
    return {"names": text, "members": members, "labels": labels, "class_names": list(class_names)}


def _group_by_stem(path: Path, problems: list[str]) -> Iterator[tuple[str, Group]]:
    """Yield the samples of a shard; problems of groups are added to `problems`."""
    seen: set[str] = set()
    matches = ((match, member) for member in list_members(path) if (match := STEM.fullmatch(member.name)))
    for stem, files in groupby(matches, key=lambda pair: pair[0][1]):
        group: Group = {}
        for match, member in files:
            if match[2].lower() in group:
                problems.append(f"{path}: sample {stem!r}: {member.name} appears twice")
            group[match[2].lower()] = member
        if stem in seen:
            problems.append(f"{path}: sample {stem!r} appears twice, or its files do not follow one another")
            continue
        seen.add(stem)
        if not Path(stem).name.startswith("__"):  # __index__ and the like describe the shard
            yield stem, group


def _find_image(group: Group, extensions: Extensions) -> Member:
    """Return the image of a sample."""
    if extensions.image is not None:
        wanted = [text.strip().lstrip(".").lower() for text in extensions.image.split(";")]
        found = [name for name in wanted if name in group][:1]
    else:
        found = [name for name in group if f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if not found:
        which = f"no image .{extensions.image.lstrip('.')}" if extensions.image else "no image"
        raise InputError(f"{which} among its files {_format(group)}")
    if len(found) > 1:
        remedy = f"choose one with data.image_extension={found[0]}"
        if len(found) > LISTED and all("." in name for name in found):
            remedy = "the name of a sample ends at its first dot: pack the files under names without further dots"
        raise InputError(f"several images ({_format(found)}); {remedy}")
    return group[found[0]]


def _read_label(path: Path, group: Group, extensions: Extensions, file: OpenFiles) -> str:
    """Return the label of a sample: a class name, or a class index as text."""
    given = extensions.label
    wanted = LABEL_EXTENSIONS if given is None else (given.strip().lstrip(".").lower(),)
    if extensions.label_field is not None and given is None:
        wanted = ("json",)
    extension = next((name for name in wanted if name in group), None)
    if extension is None:
        which = "no label (.cls or .json)" if given is None else f"no label .{wanted[0]}"
        raise InputError(f"{which} among its files {_format(group)}")
    member = group[extension]
    if member.size > LONGEST_LABEL:
        raise InputError(f".{extension} has {member.size:,} bytes: not a label")
    try:
        text = file.read(path, member.offset, member.size).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f".{extension} is not text") from None
    label = _find_field(text, extension, extensions.label_field) if extension.endswith("json") else text
    if not label or "\n" in label:
        raise InputError(f".{extension} has {'no label' if not label else 'more than one line'} in it")
    return label


def _find_field(text: str, extension: str, given: str | None) -> str:
    """Return the label in a JSON text: a number, a string, or a field of an object."""
    try:
        value = parse_json(text)
    except InputError as error:
        raise InputError(f".{extension} {error}") from None
    if isinstance(value, dict):
        names = LABEL_FIELDS if given is None else (given,)
        name = next((name for name in names if name in value), None)
        if name is None:
            missing = f"no field {given!r}" if given else "no label"
            raise InputError(f".{extension} has {missing}, but {', '.join(map(repr, value)) or 'nothing'}"
                             f"{'' if given else '; choose one with data.label_field=NAME'}")  # fmt: skip
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f".{extension} has the label {json.dumps(value)[:40]}, not a class index or name")
    return str(value).strip()


def _format(extensions: Sequence[str] | Group) -> str:
    more = f" and {len(extensions) - LISTED} more" if len(extensions) > LISTED else ""
    return ", ".join(f".{name}" for name in [*extensions][:LISTED]) + more
