"""Data sets of the Hugging Face hub, and folders and Parquet files in its formats, read by the library `datasets`."""

import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import Between, NotEmpty, PathText
from resnet_cli.config.suggestions import did_you_mean, similar_file
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.datasets.array_files import NamedArray
from resnet_cli.data.datasets.array_labels import to_labels
from resnet_cli.data.datasets.hub_table import (
    find_image_column,
    find_label_column,
    find_split_column,
    make_source,
    read_labels,
)
from resnet_cli.data.datasets.layout import choose_splits, format_names
from resnet_cli.data.datasets.samples import Samples, make_dataset
from resnet_cli.data.images.cache import find_cache_folder
from resnet_cli.data.images.decode import Mode
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.resize import ImageSize, Interpolation, Resize
from resnet_cli.data.preferred_revision import preferred_revision
from resnet_cli.data.whole_dataset import with_training_split
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

log = logging.getLogger("resnet_cli")

Tables = Mapping[str, Any]  # a `datasets.Dataset` for each split
SAVED = ("dataset_dict.json", "state.json")  # files that `save_to_disk` writes
FILE_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow"}
COMMIT = re.compile(r"[0-9a-f]{40}")


@validate_arguments
def huggingface(
    *,
    name: Annotated[str, NotEmpty()] | None = None,
    root: PathText | None = None,
    subset: Annotated[str, NotEmpty()] | None = None,
    revision: Annotated[str, NotEmpty()] | None = None,
    image_column: Annotated[str, NotEmpty()] | None = None,
    label_column: Annotated[str, NotEmpty()] | None = None,
    image_size: ImageSize | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bilinear",
    mode: Mode = "RGB",
    background: str | Sequence[int] = "white",
    range: Sequence[float] | None = None,  # noqa: A002
    test_fraction: Annotated[float, Between(0.001, 0.999)] = 0.2,
    cache: PathText | None = "~/.cache/resnet-cli/decoded",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load a data set of the Hugging Face hub, or a folder or file in one of its formats, without running its code.

    The library `datasets` downloads a set once into its own cache, `$HF_HOME`; with `HF_HUB_OFFLINE=1` only that cache
    is used. Splits have their usual names (`train`, `validation`, `test` ...). Without a test split, or if its labels
    are withheld, a fixed, stratified part of the training images becomes the test split.

    Args:
        name: Name on the hub, such as `ylecun/mnist`.
        root: Instead of `name`: a Parquet file, a folder of Parquet files, or a folder that `save_to_disk` wrote.
        subset: The subset (configuration), if the set has several.
        revision: Commit, branch or tag on the hub; None takes the newest, or for a run that is resumed, reproduced or
            evaluated the one that it was trained on.
        image_column: Column of the images; None finds the only one, or `image`, `img` ...
        label_column: Column of the labels: classes, whole numbers or text; None finds the only column of classes, or
            `label`, `target`, `class` ...
        image_size: As in `image_folder`, like the arguments that follow.
        resize: `crop`, `squash` or `pad`.
        interpolation: `bilinear` or `bicubic`.
        mode: `RGB`, `L` for grey, or `all` for the channels of the files.
        background: Colour under transparent pixels and around padded images.
        range: Lowest and highest value of images of more than 8 bits.
        test_fraction: Fraction held out for testing if there is no test split.
        cache: Folder for decoded images.
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Raises:
        InputError: The set does not exist, or its columns, labels or images cannot be used.
    """
    if (name is None) == (root is None):
        raise InputError("data=huggingface: needs either data.name=NAME of the hub or data.root=PATH")
    base = Path() if root is None else expand_home(root, "data.root")
    source = name or str(base)
    tables = _load_from_hub(source, subset, revision) if name else _load_from_disk(base, subset)
    splits = _choose_splits(tables, source)
    features = splits["train"].features
    images = find_image_column(features, image_column, source)
    class_names, labels = _read_labels(splits, find_label_column(features, label_column, source, images), source)
    commit = _find_revision(splits["train"]) if name else None
    if commit is not None:
        _log_revision(source, commit, preferred_revision() or revision)
    options: dict[str, Any] = {
        "mode": mode, "image_size": image_size, "resize": resize, "cache": find_cache_folder(cache),
        "background": background, "value_range": range, "interpolation": interpolation,
    }  # fmt: skip
    samples = {split: Samples([(split, i) for i, _ in enumerate(found)], found) for split, found in labels.items()}
    return make_dataset(
        samples, partial(_open_images, splits, images, base, source, options), class_names=class_names,
        test_fraction=test_fraction, source=source, name=name or base.resolve().stem, mean=mean, std=std,
        revision=commit, found={split: f"split {split!r}" for split in samples},
    )  # fmt: skip


def _open_images(
    splits: Tables, column: str, base: Path, source: str, options: Mapping[str, Any], rows: Sequence[tuple[str, int]]
) -> LazyImages:
    """Return the images of some rows of a split.

    Args:
        splits: The tables.
        column: The column of the images.
        base: The folder or file of the set.
        source: How messages refer to the set.
        options: Arguments of `LazyImages`.
        rows: The split and the number of each row.
    """
    split, numbers = rows[0][0], [row for _, row in rows]
    folder = base if base.is_dir() else base.parent
    return LazyImages(make_source(splits[split], column, numbers, f"{source}, {split}", folder), **options)


def _find_revision(table: Any) -> str | None:
    """Return the hub commit that a table comes from; None if it is not from the hub."""
    # A folder of the cached file, or the name of the set if it was loaded from a snapshot, is named after the commit.
    folders = [part for file in table.cache_files for part in reversed(Path(file["filename"]).parts[:-1])]
    return next((folder for folder in folders if COMMIT.fullmatch(folder)), None)


def _log_revision(source: str, commit: str, wanted: str | None) -> None:
    """Log the hub commit that was read; `wanted` is the version that should be read, if it is known."""
    if wanted is not None and wanted == preferred_revision() == commit:
        log.info("%s: revision %s, as the run was trained on", source, commit)
    elif wanted is not None and COMMIT.fullmatch(wanted) and wanted != commit:
        log.warning("%s: revision %s cannot be read; revision %s is read instead", source, wanted, commit)
    else:
        log.info("%s: revision %s; set data.revision=%s to pin it", source, commit, commit)


def _load_from_hub(name: str, subset: str | None, revision: str | None) -> Tables:
    """Load a data set of the hub, in the preferred version if there is one and it still exists."""
    preferred = preferred_revision()
    if preferred not in (None, revision):
        with suppress(InputError):
            return _load_version(name, subset, preferred)
    return _load_version(name, subset, revision)


def _load_version(name: str, subset: str | None, revision: str | None) -> Tables:
    """Load a data set of the hub, from the library's cache if possible.

    If the library cannot reach the hub, it takes the newest version in its cache, whichever is asked for. Files of the
    right version that are cached are preferred to it.
    """
    library = _import_library()

    def load() -> Any:
        try:
            return library.load_dataset(name, subset, revision=revision)
        except ConnectionError:
            snapshot = _find_snapshot(name, revision)
            if snapshot is None:
                raise
            return library.load_dataset(snapshot, subset)

    setting = f"data.name={name}"
    found = _load(load, setting, "; HF_HUB_OFFLINE=1 uses only its cache")
    if revision is not None and COMMIT.fullmatch(revision) and _is_of_other_revision(found, revision):
        snapshot = _find_snapshot(name, revision)
        with suppress(InputError):
            return found if snapshot is None else _load(lambda: library.load_dataset(snapshot, subset), setting)
    return found


def _is_of_other_revision(tables: Tables, revision: str) -> bool:
    """Return whether tables are known to come from another hub commit."""
    return any(_find_revision(table) not in (None, revision) for table in tables.values())


def _find_snapshot(name: str, revision: str | None) -> str | None:
    """Return the folder into which `hf download` has cached a data set; None if there is none."""
    import huggingface_hub

    with suppress(OSError, ValueError):  # not cached, or not a valid name on the hub
        return str(
            huggingface_hub.snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    return None


def _load_from_disk(path: Path, subset: str | None) -> Tables:
    """Load a Parquet file, a folder of Parquet files, or a folder of `save_to_disk`."""
    if not path.exists():
        raise InputError(f"data.root={path} does not exist{similar_file(path)}")
    library = _import_library()
    setting, absolute = f"data.root={path}", str(path.resolve())
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        return _load(lambda: library.load_from_disk(absolute), setting)
    if path.is_dir():
        return _load(lambda: library.load_dataset(absolute, subset), setting)
    kind = FILE_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{setting}: not a .parquet file, nor a folder of such files or of save_to_disk")
    return _load(lambda: library.load_dataset(kind, data_files=absolute), setting)


def _import_library() -> Any:
    """Import the library `datasets` and silence its messages: errors are raised too."""
    if importlib.util.find_spec("datasets") is None:
        raise InputError("data=huggingface needs the package datasets: pip install 'resnet-cli[huggingface]'")
    import datasets
    import huggingface_hub

    for library in (datasets, huggingface_hub):
        library.utils.logging.set_verbosity(logging.CRITICAL)
    if sys.stderr is None or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _load(load: Callable[[], Any], setting: str, advice: str = "") -> Tables:
    """Return tables by split; errors of the library become `InputError`s of one line."""
    try:
        found = load()
    except MemoryError:
        raise
    except Exception as error:  # the library and the file systems and formats below it raise errors of any type
        cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
        reason = str(cause).strip().split("\n")[0].rstrip(".: ")[:300] or type(cause).__name__
        is_unreachable = isinstance(error, ConnectionError) and advice
        raise InputError(f"{setting} cannot be loaded: {reason}{advice if is_unreachable else ''}") from None
    return found if isinstance(found, Mapping) else {"train": found}


def _choose_splits(tables: Tables, source: str) -> dict[str, Any]:
    """Return the tables of train and, if present, val and test; a single split is the training split.

    Raises:
        InputError: No split has the name of a training split, or it is empty.
    """
    chosen = {"train": next(iter(tables))} if len(tables) == 1 else with_training_split(choose_splits(tables))
    if "train" not in chosen:
        nearest = did_you_mean("train", tables)
        raise InputError(f"{source}: no split is named train or training ({format_names(tables)}){nearest}")
    column = find_split_column(tables[chosen["train"]]) if len(chosen) == 1 else None
    if column is not None:
        log.warning("%s: column %r names splits, but is not used; save a file for each split", source, column)
    unused = [table for table in tables if table not in chosen.values()]
    if unused:
        log.warning("%s: uses %s; not %s", source, ", ".join(chosen.values()), ", ".join(unused))
    return {split: tables[table] for split, table in chosen.items()}


def _read_labels(splits: Tables, column: str, source: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the names of the classes, and the labels of each split that has labels."""
    found = {}
    for split, table in splits.items():
        labels = read_labels(table, column, f"{source}, {split}") if len(table) and column in table.features else None
        if labels is not None:
            found[split] = NamedArray(Path(source), f"{split}, column {column!r}", labels)
        elif split == "train":
            raise InputError(f"{source}, {split}: no labels in column {column!r}")
        else:
            log.warning("%s, %s: no labels in column %r; the split is not used", source, split, column)
    names = getattr(splits["train"].features[column], "names", None)
    for split in found:
        own = getattr(splits[split].features[column], "names", None)
        if own is not None and names is not None and own != names:
            raise InputError(
                f"{source}, {split}: the classes of column {column!r} ({format_names(own)}) are not those of train "
                f"({format_names(names)}): encode the column of all splits together"
            )
    return to_labels(found, names)
