"""Tables of the library `datasets`: encoded images in a column, and labels in another."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cli.config.counts import counted
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.data.datasets.layout import SPLIT_COLUMN_NAMES, USUAL_SPLIT_NAMES
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.source import DIGEST_BYTES, FileSource, ImageSource
from resnet_cli.errors import InputError

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "pixel_values")
LABEL_NAMES = ("label", "labels", "target", "class", "category", "class_name", "label_name", "y")
SAMPLE = 16  # images from which the mean size is estimated


class TableSource:
    """Images stored in a column of a table, encoded, as a struct of `bytes` and `path` or as bytes.

    Args:
        table: A `datasets.Dataset` with only this column, in Arrow format.
        rows: Numbers of the rows to use.
        name: How messages refer to the table.
    """

    def __init__(self, table: Any, rows: Sequence[int], name: str) -> None:
        self.table, self.rows, self.name = table, np.asarray(rows, np.int64), name

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def place(self) -> str:
        """Return the table, for messages."""
        return f"rows of {self.name}"

    def open(self, index: int) -> EncodedImage:
        """Return the content of image `index`."""
        content = read_cell(self.table, int(self.rows[index]))
        content = content.get("bytes") if isinstance(content, Mapping) else content
        if not isinstance(content, bytes):
            raise InputError(f"{self.describe(index)}: no image in it")
        return EncodedImage(content, self.describe(index))

    def describe(self, index: int) -> str:
        """Return the row of image `index`."""
        return f"{self.name}, row {self.rows[index]}"

    def identity(self) -> str:
        """Return the name of the table's column."""
        return f"table {self.table.column_names[0]}"

    def cache_facts(self) -> Iterator[str]:
        """Yield the rows, and the names, sizes, times and inodes of the files that the table is mapped from."""
        yield ",".join(map(str, self.rows))
        for file in self.table.cache_files:
            stat = Path(file["filename"]).stat()
            yield f"{file['filename']}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\0"
        if not self.table.cache_files:  # in memory
            yield from (fact.hex() for fact in self.content_facts())

    def content_facts(self) -> Iterator[bytes]:
        """Yield the sizes and first and last bytes of the images."""
        for index in range(len(self)):
            content = self.open(index).content
            yield f"{len(content)}\0".encode()
            yield content[:DIGEST_BYTES] + content[max(DIGEST_BYTES, len(content) - DIGEST_BYTES) :]

    def mean_bytes(self) -> float:
        """Return the mean size of some of the encoded images in bytes."""
        chosen = range(0, len(self), max(1, len(self) // SAMPLE))
        return sum(len(self.open(index).content) for index in chosen) / max(1, len(chosen))


def read_cell(table: Any, row: int) -> Any:
    """Return the cell in a row of a table with one column."""
    return table[row].column(0)[0].as_py()


def make_source(table: Any, column: str, rows: Sequence[int], name: str, base: Path) -> ImageSource:
    """Return the images of a column, which holds either images or paths of files.

    Args:
        table: A `datasets.Dataset`.
        column: The name of the column.
        rows: Numbers of the rows to use.
        name: How messages refer to the table.
        base: Folder that paths in the table are relative to.
    """
    images = table.select_columns([column]).with_format("arrow")
    first = read_cell(images, int(rows[0])) if len(rows) else None
    path = first.get("path") if isinstance(first, Mapping) and first.get("bytes") is None else first
    if not isinstance(path, str):
        return TableSource(images, rows, name)
    cells = images[:].column(0).to_pylist()
    paths = [str((cell.get("path") if isinstance(cell, Mapping) else cell) or "") for cell in cells]
    missing = next((row for row in rows if not paths[row]), None)
    if missing is not None:
        raise InputError(f"{name}, row {missing}: no image in it")
    found = [Path(paths[row]) for row in rows]
    if not (base / found[0]).exists() and found[0].exists():
        base = Path()  # earlier versions took paths in a single file from the working folder
    return FileSource(base, [str(file.relative_to(base)) if file.is_relative_to(base) else str(file) for file in found])


def find_image_column(features: Mapping[str, Any], given: str | None, name: str) -> str:
    """Return the column of the images: the given one, the only one with images, or one with a usual name.

    Raises:
        InputError: No column or several columns have images, or the given one has none.
    """
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    decoded = [column for column, kind in kinds.items() if kind == "Image"]
    encoded = decoded or [column for column, feature in features.items() if _may_hold_files(feature)]
    if given is not None:
        _require_column(features, "data.image_column", given, name)
        if given not in encoded and not _is_text(features[given]):
            raise InputError(f"data.image_column={given}: {name} has {features[given]} in it, not encoded images")
        return given
    return _choose(encoded, IMAGE_NAMES, "data.image_column", "images", features, name)


def find_label_column(features: Mapping[str, Any], given: str | None, name: str, taken: str) -> str:
    """Return the column of the labels: the given one, the only one of classes, or one with a usual name."""
    if given is not None:
        _require_column(features, "data.label_column", given, name)
        return given
    classes = [column for column, feature in features.items() if hasattr(feature, "names")]
    usual = [column for column in features if column.lower() in LABEL_NAMES and column != taken]
    return _choose(classes or usual, LABEL_NAMES, "data.label_column", "labels", features, name)


def find_split_column(table: Any) -> str | None:
    """Return the column of text that has a usual name of a column of splits, and only usual names of splits in it."""
    usual = {split for names in USUAL_SPLIT_NAMES.values() for split in names}
    columns = [name for name, kind in table.features.items() if name.lower() in SPLIT_COLUMN_NAMES and _is_text(kind)]
    return next((name for name in columns if usual.issuperset(str(cell).lower() for cell in table.unique(name))), None)


def _choose(
    candidates: Sequence[str], usual: Sequence[str], key: str, what: str, features: Mapping[str, Any], name: str
) -> str:
    by_name = {column.lower(): column for column in candidates}
    if len(candidates) == 1:
        return candidates[0]
    chosen = next((by_name[word] for word in usual if word in by_name), None)
    if chosen is not None:
        return chosen
    columns = ", ".join(map(repr, candidates or features))
    state = "several columns may hold" if candidates else "no column is known to hold"
    raise InputError(f"{name}: {state} the {what} ({columns}); set {key}=NAME")


def _require_column(features: Mapping[str, Any], key: str, column: str, name: str) -> None:
    if column not in features:
        columns = ", ".join(map(repr, features))
        raise InputError(f"{key}={column}: {name} has no such column ({columns}){did_you_mean(column, features)}")


def _may_hold_files(feature: Any) -> bool:
    """Return whether a column without a declared type may hold the contents of image files."""
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return str(getattr(feature, "dtype", "")) in ("binary", "large_binary")


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")) in ("string", "large_string")


def read_labels(table: Any, column: str, name: str) -> "np.ndarray[Any, Any] | None":
    """Return the labels of a table as whole numbers or text [N]; None if all are -1 or empty.

    Raises:
        InputError: Some rows have no label, or labels are lists.
    """
    feature = table.features[column]
    cells = table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    missing = [row for row, cell in enumerate(cells) if cell is None or cell in (-1, "")]
    if len(missing) == len(cells):
        return None
    if missing:
        more = f" and {counted(len(missing) - 1, 'more row')}" if len(missing) > 1 else ""
        raise InputError(f"{name}, row {missing[0]}{more}: no label in column {column!r}")
    if not isinstance(cells[0], str | int | float):
        raise InputError(f"data.label_column={column}: {name} has {feature} in it: one class for each image is needed")
    return np.asarray(cells)
