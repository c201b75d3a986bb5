"""The code as it was when a run started: `code/` in its folder.

`code.json` says what is there: the repositories with their commits, and a digest of each file. Beside it are the
changes of tracked files as patches, the modules of the user's own classes, and the installed packages. A run that is
resumed with other code gets `resume-1/` and so on inside of it.
"""

import hashlib
import json
import logging
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from resnet_cli.config.trust import own_class_overrides
from resnet_cli.errors import MachineError
from resnet_cli.files import write_atomically
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.repositories import Repository

logger = logging.getLogger("resnet_cli")

MAX_BYTES = 1_000_000  # of all files together
MAX_INDEX_BYTES = 1 << 20  # of a code.json that is read
MODULES = "modules"  # the folder of the user's own modules
INDEX = "code.json"
NOT_KEPT = ("resnet_cli", "__main__")
INSTALLED = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)\.dist-info")

_used: dict[Path, tuple[ModuleSpec | None, bytes]] = {}  # spec and source of each module when a run first used it


@dataclass
class Snapshot:
    """What `code/` of a run is to hold.

    Args:
        repositories: As `code.json` has them.
        files: Content by name.
        left_out: What did not fit or cannot be kept, in words.
    """

    repositories: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> None:
        """Add a file, or name it among what is left out if it does not fit."""
        if sum(map(len, self.files.values())) + len(content) > MAX_BYTES:
            self.left_out.append(f"{name} ({len(content):,} bytes)")
        else:
            self.files[name] = content

    def index(self) -> dict[str, Any]:
        """Return what `code.json` says."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        return {"repositories": self.repositories, "files": digests, "left_out": self.left_out}


def take_snapshot(settings: Mapping[str, Any], repositories: Iterable[Repository]) -> Snapshot:
    """Return the code of a run whose classes are imported.

    Where not all of it fits, the modules of these classes come first, then changes of repositories, then other modules.

    Args:
        settings: Its config.
        repositories: The repositories that it comes from.
    """
    snapshot = Snapshot()
    snapshot.add("requirements.txt", "".join(f"{line}\n" for line in installed_packages()).encode())
    targets = [override.partition("=")[2] for override in own_class_overrides(settings)]
    named, others = _own_modules(targets, snapshot.left_out)
    for name, content in named.items():
        snapshot.add(f"{MODULES}/{name}", content)
    for repository in repositories:
        entry: dict[str, Any] = {
            "of": list(repository.of), "folder": repository.folder, "commit": repository.commit,
            "description": repository.description, "dirty": repository.dirty,
        }  # fmt: skip
        if repository.problem:
            entry["problem"] = repository.problem
            snapshot.left_out.append(f"commit and changes of {repository.folder} ({repository.problem})")
        if repository.patch:
            entry["patch"] = f"{repository.of[0].replace(' ', '_')}.patch"
            snapshot.add(entry["patch"], repository.patch)
        snapshot.left_out += [f"{line} in {repository.folder}" for line in repository.left_out]
        snapshot.repositories.append(entry)
    for name, content in others.items():
        snapshot.add(f"{MODULES}/{name}", content)
    return snapshot


def installed_packages() -> list[str]:
    """Return `name==version` of each installed package, as pip takes them.

    Both are parsed from the names of folders; reading the metadata of 130 packages takes 0.2 s.
    """
    found: dict[str, str] = {}
    for distribution in distributions():
        match = INSTALLED.fullmatch(getattr(getattr(distribution, "_path", None), "name", ""))
        name, version = match.group("name", "version") if match else (distribution.name, distribution.version)
        if name and version:  # leftovers of a broken installation have neither
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first one is imported
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _own_modules(targets: Sequence[str], left_out: list[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the sources of the modules that these classes are in, and of all others from the same folders, by path.

    Installed packages, the standard library and this package are left out: their versions identify them.
    """
    roots: dict[Path, None] = {}
    named: set[str] = set()
    for target in targets:
        if target.partition(".")[0] == "resnet_cli":
            continue
        modules = list(_modules_of(target))
        own = {module: root for module in modules if (root := _root_of(module)) and not _is_installed(root)}
        if not any(map(_root_of, modules)):
            left_out.append(f"the source of {target}")
        roots |= dict.fromkeys(own.values())
        named |= set(own)
    found: dict[bool, dict[str, bytes]] = {True: {}, False: {}}
    for name, module in sorted(sys.modules.items()) if roots else ():
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or name.partition(".")[0] in NOT_KEPT:
            continue
        path = Path(file).absolute()
        root = next((root for root in roots if _is_importable_from(root, name, path)), None)
        if root is None or _is_installed(path):
            continue
        try:
            found[name in named][path.relative_to(root).as_posix()] = _imported_source(module, path)
        except OSError as error:
            left_out.append(f"{path} ({error.strerror or error})")
    return found[True], found[False]


def _imported_source(module: ModuleType, path: Path) -> bytes:
    """Return the source of a module when a run of this process first used it; what is reloaded counts as new.

    Raises:
        OSError: The file cannot be read.
    """
    spec, content = _used.get(path, (None, b""))
    if spec is None or spec is not module.__spec__:
        content = path.read_bytes()
        _used[path] = module.__spec__, content
    elif content != path.read_bytes():
        logger.warning(
            "%s has changed since it was imported: this run uses and keeps the former code; restart Python, or reload "
            "%s, for the new one", path, module.__name__,
        )  # fmt: skip
    return content


def _modules_of(target: str) -> Iterator[str]:
    """Yield the name of the imported module that a dotted name begins with, and of the one that defines the object."""
    parts = target.split(".")
    cut = next((cut for cut in range(len(parts) - 1, 0, -1) if ".".join(parts[:cut]) in sys.modules), 0)
    if not cut:
        return
    yield ".".join(parts[:cut])
    found: Any = sys.modules[".".join(parts[:cut])]
    for part in parts[cut:]:
        found = getattr(found, "__dict__", {}).get(part)
    defined_in = getattr(found, "__module__", None)
    if isinstance(defined_in, str) and defined_in in sys.modules and defined_in.partition(".")[0] not in NOT_KEPT:
        yield defined_in


def _root_of(name: str) -> Path | None:
    """Return the folder that a module's top module is imported from; None if it has no source file."""
    file = getattr(sys.modules[name], "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).absolute()
    is_package = path.name == "__init__.py"
    return path.parents[name.count(".") + is_package]


def _is_importable_from(root: Path, name: str, file: Path) -> bool:
    """Return whether the import of `name` from a root leads to this file."""
    if not file.is_relative_to(root):
        return False
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) == name


def _is_installed(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return path.is_relative_to(sysconfig.get_path("stdlib"))


def write_code(run: RunDir, snapshot: Snapshot, *, resumed: bool) -> None:
    """Write a run's code, or when it is resumed what differs from the code so far.

    Args:
        run: The run folder, which exists.
        snapshot: The code.
        resumed: The run had started before.

    Raises:
        MachineError: the folder cannot be written.
    """
    former = read_code(run)
    index = snapshot.index()
    if former and _is_same(former[-1][1], index):
        return
    folder = run.code / f"resume-{_next_number(run.code)}" if resumed else run.code
    files = dict(snapshot.files)
    if resumed:
        known = {name: digest for _, other in former for name, digest in other["files"].items()}
        changed = {name for name, digest in index["files"].items() if known.get(name) != digest}
        modules = {name for name in files if name.startswith(f"{MODULES}/")}
        if changed & modules:
            changed |= modules  # so that all can be imported from one folder
        files = {name: content for name, content in files.items() if name in changed}
        for name in _files_over_limit(files, free=MAX_BYTES - _size(run.code)):
            index["left_out"].append(f"{name} ({len(files.pop(name)):,} bytes)")
    if any(path.is_symlink() for path in (run.code, folder)):
        logger.info("code    %s is a symbolic link; nothing is written there", run.code)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    except OSError as error:
        raise MachineError(error.errno, f"{folder}: cannot be written: {error.strerror or error}") from None
    write_atomically(folder / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
    if index["left_out"]:
        logger.info("code    %s: left out %s", folder, "; ".join(index["left_out"]))
    elif resumed and former:
        logger.info("code    differs from that of the start: see %s", folder)


def _is_same(index: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two `code.json` say the same, wherever the folders of the repositories are."""
    (mine, my_files), (theirs, their_files) = (
        ([{**entry, "folder": None} for entry in one["repositories"] if isinstance(entry, dict)], one["files"])
        for one in (index, other)
    )
    return mine == theirs and my_files == their_files


def read_code(run: RunDir) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders with a run's code and what their `code.json` say, from the start to the last resume."""
    found = []
    for folder in (run.code, *sorted(run.code.glob("resume-*"), key=_number)):
        index = _read_index(folder / INDEX)
        if index is not None:
            found.append((folder, index))
    return found


def _read_index(path: Path) -> dict[str, Any] | None:
    """Return the content of a `code.json`; None if there is none, or this program did not write it."""
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            return None
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_index = isinstance(index, dict) and isinstance(index.get("files"), dict)
    return index if is_index and isinstance(index.get("repositories"), list) else None


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix("resume-")
    return int(digits) if digits.isdecimal() and len(digits) < 9 else 0


def _next_number(code: Path) -> int:
    return 1 + max(map(_number, code.glob("resume-*")), default=0)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _files_over_limit(files: Mapping[str, bytes], free: int) -> list[str]:
    """Return the names of the files that do not fit."""
    names = []
    for name, content in files.items():
        free -= len(content)
        if free < 0:
            names.append(name)
            free += len(content)
    return names
