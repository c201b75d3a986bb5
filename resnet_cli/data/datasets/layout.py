"""Layout of an image folder: which sub-folders are splits, which are classes, and which are neither."""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from resnet_cli.config.counts import counted
from resnet_cli.data.datasets.problems import raise_problems
from resnet_cli.data.whole_dataset import with_training_split
from resnet_cli.errors import InputError

Layout = Literal["auto", "classes", "splits"]

EXPECTED = "expected train/<class>/* and test/<class>/* (and val/, if there is one), or <class>/*"

# Names of the splits in upper or lower case, the preferred one first. `eval` may be either: the test split, or the
# validation split if another folder is the test split.
USUAL_SPLIT_NAMES: Mapping[str, Sequence[str]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
}
SPLIT_COLUMN_NAMES = ("split", "set", "subset", "partition", "phase", "splits", "dataset", "datasplit")

# Folders that systems, servers and notebooks leave behind; names that start with a dot are ignored as well.
TOOL_FOLDERS = frozenset({
    "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "system volume information",
    "lost+found", "__pycache__",
})  # fmt: skip

# Files with other extensions are skipped. The list includes image formats that Pillow does not read, so that such
# photographs cause an error instead of being skipped.
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs", ".jp2", ".j2k", ".jpc", ".jpx", ".jxl", ".tga", ".ico", ".icns",
    ".pcx", ".sgi", ".rgb", ".rgba", ".dds", ".qoi", ".psd", ".fits", ".heic", ".heif", ".cr2", ".nef", ".arw", ".dng",
    ".raw", ".dcm",
})  # fmt: skip
NOT_IMAGES_BY_NAME = frozenset({"readme", "license", "licence", "copying", "makefile", "checksums", "md5sums"})

YEAR = re.compile(r"(?:19|20)\d\d(?:[-_.]?\d\d){0,2}")  # optionally with month and day

RUN_FILES = frozenset({"run.json", "sweep.json", "multirun.yaml"})
RUN_LOCK = ".lock"  # in the folder of a run from its start on, as `LOCK_NAME` of `resnet_cli.runs.lock`
RUN_DEPTH = 3  # as in multirun/DATE/TIME-NAME/JOB/run.json


@dataclass
class ScanReport:
    """Entries of an image folder that are not samples.

    Args:
        problems: Messages on entries that cannot be used.
        ignored: Paths of files outside class folders, and of entries whose names start with a dot.
        passed_over: Paths of files in class folders that have no image extension.
        notes: Lines on how the folder was read.
    """

    problems: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def holds_other_files(self, folder: Path) -> bool:
        """Return whether files in a folder were skipped."""
        return any(Path(name).is_relative_to(folder) for name in self.passed_over)

    def lines(self) -> list[str]:
        """Return lines for the user on how the folder was read and what is not used.

        Raises:
            InputError: There are problems; the message lists the first five.
        """
        raise_problems(self.problems)
        lines = list(self.notes)
        for paths, text in (
            (self.ignored, "ignored outside class folders"),
            (self.passed_over, "skipped: no image extension"),
        ):
            if paths:
                lines.append(f"{counted(len(paths), 'file')} {text}; the first: {paths[0]}")
        return lines


def list_entries(folder: Path, report: ScanReport) -> list[os.DirEntry[str]]:
    """List a folder sorted by name, ignoring files of tools and reporting names that start with a dot."""
    try:
        with os.scandir(folder) as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None
    report.ignored += [entry.path for entry in entries if entry.name.startswith(".")]
    return [entry for entry in entries if not entry.name.startswith(".") and not _is_tool_folder(entry)]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file or a link to one; False for a link to itself."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_image_by_name(name: str) -> bool:
    """Return whether a file may be an image by its extension; True if it has none."""
    path = Path(name.lower())
    return path.suffix in IMAGE_SUFFIXES if path.suffix else path.name not in NOT_IMAGES_BY_NAME


def find_splits(root: Path, layout: Layout, report: ScanReport) -> dict[str, Path]:
    """Return the folders of `train` and, if present, of `test` and `val`; `root` itself if it holds the classes.

    Args:
        root: The data set's folder.
        layout: `splits`: the sub-folders are splits. `classes`: they are classes, whatever their names. `auto`: they
            are splits if one is named like a training split, else classes.
        report: Report to which lines on the choice are added.

    Raises:
        InputError: There is no training split, or the sub-folders look like parts of a data set.
    """
    folders = {entry.name: Path(entry.path) for entry in list_entries(root, ScanReport()) if is_folder(entry)}
    if layout == "classes":
        _note_inner_splits(root, folders, report)
        return {"train": root}
    chosen = {split: folders[name] for split, name in choose_splits(folders).items()}
    unused = {name: path for name, path in folders.items() if path not in chosen.values()} if chosen else {}
    with_images = [name for name, path in unused.items() if not holds_runs(path) and _holds_images(path)]
    if not with_images:
        chosen = with_training_split(chosen)
    if "train" not in chosen:
        if chosen or layout == "splits":
            found = " and ".join(f"{path.name}/" for path in chosen.values()) or "no folder of a split"
            raise InputError(
                f"{root} has {found} but no train/: {EXPECTED}; data.layout=classes takes every folder as a class"
            )
        _check_parts(root, folders, report)
        return {"train": root}
    if layout == "auto":
        _note_parts(chosen["train"], report)
    if with_images:
        used = ", ".join(f"{path.name}/ ({split})" for split, path in chosen.items())
        report.notes.append(f"{root}: uses {used}; not {', '.join(f'{name}/' for name in with_images)}")
    return chosen


def choose_splits(names: Collection[str]) -> dict[str, str]:
    """Return the name of each split, such as a folder's: the first of its usual names that no other split has."""
    chosen: dict[str, str] = {}
    for split, usual_names in USUAL_SPLIT_NAMES.items():
        candidates = [name for usual in usual_names for name in names if name.lower() == usual]
        free = [name for name in candidates if name not in chosen.values()]
        if free:
            chosen[split] = free[0]
    return chosen


def _check_parts(root: Path, folders: Mapping[str, Path], report: ScanReport) -> None:
    """Raise `InputError` if all folders hold the same sub-folders, as do folds, years or splits with unusual names.

    Folders without images are ignored. If some of the folders contain images directly, a line is added to the report.
    """
    inner, others = _inner_folders(folders)
    found = _describe_parts(root, inner)
    splits = _inner_splits(inner)
    if splits and not others:
        raise InputError(
            f"{root}: {format_names(inner)} hold {splits}, but splits inside of classes are not read: move them to "
            "train/<class>/ and test/<class>/; data.layout=classes takes all images of a folder, and splits them anew"
        )
    if found and not others:
        raise InputError(
            f"{found}, as parts of a data set do and classes do not: name them train/, val/ and test/, or use "
            "data.layout=classes if they are classes"
        )
    if found:
        report.notes.append(f"{found}, as parts of a data set do; they are taken for classes")
    if not found and not others:
        _note_years(root, inner, report)


def _inner_folders(folders: Mapping[str, Path]) -> tuple[dict[str, set[str]], int]:
    """Return the sub-folders of each folder with images in these alone, and the number of folders that have their own.

    Folders without images are left out.
    """
    inner: dict[str, set[str]] = {}
    others = 0
    for path in folders.values():
        if holds_runs(path) or not _holds_images(path):
            continue
        entries = list_entries(path, ScanReport())
        if any(is_file(entry) and is_image_by_name(entry.name) for entry in entries):
            others += 1
        else:
            inner[path.name] = {entry.name for entry in entries if is_folder(entry)}
    return inner, others


def _inner_splits(inner: Mapping[str, set[str]]) -> str:
    """Return `train/ and test/` if all folders hold these sub-folders; an empty string if they hold no splits."""
    chosen = choose_splits(sorted(set.intersection(*inner.values()))) if len(inner) > 1 else {}
    return " and ".join(f"{name}/" for name in chosen.values()) if "train" in chosen and len(chosen) > 1 else ""


def _note_inner_splits(root: Path, folders: Mapping[str, Path], report: ScanReport) -> None:
    """Add a line if the folders, which are taken for classes, hold splits: these are joined."""
    inner, _ = _inner_folders(folders)
    splits = _inner_splits(inner)
    if splits:
        report.notes.append(
            f"{root}: {format_names(inner)} hold {splits}, whose images are joined and split anew: to keep these "
            "splits, move them to train/<class>/ and test/<class>/"
        )


def _note_years(root: Path, inner: Mapping[str, set[str]], report: ScanReport) -> None:
    """Add a line if the folders are named after years or dates, and all hold one sub-folder of the same name."""
    shared = set.intersection(*inner.values()) if len(inner) > 1 else set()
    if shared and all(YEAR.fullmatch(name) for name in inner):
        report.notes.append(
            f"{root}: {format_names(inner)} are named by their dates, and each holds {format_names(sorted(shared))}; "
            "they are taken for classes: data.layout=classes if they are, or move them into the folders of classes"
        )


def _note_parts(train: Path, report: ScanReport) -> None:
    """Add a line if the folders of the training split hold the same sub-folders."""
    inner = {
        entry.name: {inner.name for inner in list_entries(Path(entry.path), ScanReport()) if is_folder(inner)}
        for entry in list_entries(train, ScanReport())
        if is_folder(entry)
    }
    found = _describe_parts(train, inner)
    if found:
        report.notes.append(f"{found}, as parts of a data set do; they are taken for classes")


def _describe_parts(root: Path, inner: Mapping[str, set[str]]) -> str | None:
    """Describe folders that hold the same two or more sub-folders; None if they do not.

    Args:
        root: The parent folder.
        inner: Names of the sub-folders of each folder.
    """
    shared = set.intersection(*inner.values()) if len(inner) > 1 else set()
    if len(shared) < 2:
        return None
    return f"{root}: {format_names(inner)} hold the same sub-folders ({format_names(sorted(shared))})"


def holds_runs(folder: Path, depth: int = RUN_DEPTH) -> bool:
    """Return whether a folder holds runs or sweeps of this program, at most `depth` levels down."""
    try:
        with os.scandir(folder) as iterator:
            entries = list(iterator)
    except OSError:
        return False
    if any(entry.name in RUN_FILES for entry in entries):
        return True
    return depth > 0 and any(
        entry.is_dir(follow_symlinks=False) and holds_runs(Path(entry.path), depth - 1) for entry in entries
    )


def holds_no_files(folder: Path) -> bool:
    """Return whether a folder holds sub-folders or the lock of a run, and neither it nor they hold other files.

    Dot files do not count. Links to folders may lead to files.
    """
    found = list(os.walk(folder))
    files = [name for _, _, names in found for name in names]
    links = any(Path(path, name).is_symlink() for path, folders, _ in found for name in folders)
    return (len(found) > 1 or RUN_LOCK in files) and not links and all(name.startswith(".") for name in files)


def _holds_images(folder: Path) -> bool:
    return any(is_image_by_name(name) for _, _, names in os.walk(folder) for name in names if not name.startswith("."))


def _is_tool_folder(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower() in TOOL_FOLDERS and is_folder(entry)


def format_names(names: Iterable[str]) -> str:
    """Format at most five names, quoted, for a message."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:5]) + (f" and {len(quoted) - 5} more" if len(quoted) > 5 else "")
