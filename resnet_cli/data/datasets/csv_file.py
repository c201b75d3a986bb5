"""Images listed in a table: a row with path, label and optionally split, weight and group of each image."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import Between, NotEmpty, PathText
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.datasets.layout import SPLIT_COLUMN_NAMES, USUAL_SPLIT_NAMES
from resnet_cli.data.datasets.root import Root, find_root
from resnet_cli.data.datasets.samples import make_dataset
from resnet_cli.data.datasets.table import Table, read_table
from resnet_cli.data.datasets.table_labels import describe_joined_labels, find_class_columns
from resnet_cli.data.datasets.table_rows import Columns, count_files, read_samples, read_weights
from resnet_cli.data.images.cache import find_cache_folder
from resnet_cli.data.images.decode import Mode
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.resize import ImageSize, Interpolation, Resize
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

log = logging.getLogger("resnet_cli")

# Usual names of the columns, the preferred one first; case, spaces and underscores are ignored.
PATH_NAMES = (
    "path", "filepath", "filename", "file", "image", "imagepath", "imagename", "imagefile", "img", "imgpath", "imgname",
    "relativepath", "relpath",
)  # fmt: skip
LABEL_NAMES = (
    "label", "class", "target", "labels", "classes", "targets", "category", "classname", "labelname", "classlabel",
    "classid", "labelid", "y",
)  # fmt: skip
ORIGIN_NAME = "dataset"  # a column of splits, or of the data set that each image comes from
WEIGHT_NAMES = ("weight", "weights", "sampleweight")


@validate_arguments
def csv(
    *,
    file: PathText,
    root: PathText | None = None,
    path_column: Annotated[str, NotEmpty()] | None = None,
    label_column: Annotated[str, NotEmpty()] | Sequence[str] | None = None,
    labels: Literal["single", "multi"] = "single",
    label_delimiter: str | None = None,
    split_column: Annotated[str, NotEmpty()] | None = None,
    weight_column: Annotated[str, NotEmpty()] | None = None,
    group: Annotated[str, NotEmpty()] | None = None,
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
    """Load images listed in a table: a CSV, TSV or Parquet file.

    The first line names the columns. Classes are sorted by name, or by value if they are whole numbers; samples are in
    the order of the rows. Without a column of splits, or without rows of the test split, a fixed, stratified part of
    the training images becomes the test split.

    Args:
        file: The table; `~` is the home folder. Cells of a text file are separated by commas, semicolons, tabs or bars.
        root: Folder that the paths are relative to, or an archive of it (`.zip`, `.tar`, `.tar.gz` ...), which is
            unpacked once into `cache`; None is the folder of the table.
        path_column: Column of the image files' paths, which may lack an extension such as `.jpg`; None finds a usual
            name such as `path`, `filename` or `image`.
        label_column: Column of the class names; None finds `label`, `class`, `target`, `category` ... With
            `labels=multi` it may be a list of columns of 0 and 1, one for each class, which None finds too.
        labels: `multi` if an image may have any number of labels.
        label_delimiter: Delimiter of several class names in a cell; None finds `|`, `;` or a comma.
        split_column: Column of the splits (`train`, `val`, `test` or their other usual names); None finds `split`,
            `set`, `subset` ...; of those without `split` in their name, one in which any row names a split.
        weight_column: Column of the relative sampling frequency of images; None finds `weight`.
        group: Column of a group, such as the patient: images of a group stay in one split.
        image_size: Side of the images in pixels, or height and width; None if all files already have the same size.
        resize: `crop` scales the largest centred part of that shape, `squash` scales both sides, `pad` scales the whole
            image and surrounds it with `background`.
        interpolation: Interpolation of scaling: `bilinear` or `bicubic`.
        mode: `RGB`, or `L` for grey: other images are converted, with a warning that names the first. `all` keeps the
            channels of the files; TIFF files may have any number.
        background: Colour under transparent pixels and around padded images: a name such as `white`, `#rrggbb`, or red,
            green and blue to 255.
        range: Lowest and highest value of images of more than 8 bits, which become 0 and 255; None takes the range of
            16 bits, and rejects floating-point images.
        test_fraction: Fraction of the images held out for testing if there is no test split.
        cache: Folder for decoded images; None decodes them in every run.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: The table cannot be used; one line for each problem, with the line of the table.
    """
    path = expand_home(file, "data.file")
    table = read_table(path, "data.file")
    is_multi = labels == "multi"
    if label_delimiter == "":
        raise InputError("data.label_delimiter is empty; give the delimiter, or null")
    if not is_multi and (label_delimiter is not None or not isinstance(label_column, str | None)):
        name = "label_column" if label_delimiter is None else "label_delimiter"
        raise InputError(f"data.{name}: requires data.labels=multi")
    columns = _find_columns(
        table,
        is_multi=is_multi,
        path=path_column,
        label=label_column,
        split=split_column,
        weight=weight_column,
        group=group,
    )
    columns = replace(columns, delimiter=label_delimiter)
    place = Root(path.parent, path.name)
    if root is not None:
        place = find_root(root, cache, count_files=partial(count_files, table.columns[columns.path]))
    with place.naming_archive():
        samples, class_names = read_samples(table, columns, place.folder)
    open_images = partial(
        LazyImages, place.folder, mode=mode, image_size=image_size, resize=resize, cache=find_cache_folder(cache),
        background=background, value_range=range, interpolation=interpolation,
    )  # fmt: skip
    return make_dataset(
        samples, open_images, class_names=class_names, test_fraction=test_fraction, source=str(path), name=path.name,
        mean=mean, std=std, found=_describe_rows(columns, list(samples)),
        hint="" if is_multi else describe_joined_labels(class_names),
    )  # fmt: skip


def _describe_rows(columns: Columns, splits: Sequence[str]) -> dict[str, str]:
    """Describe where the parts were found: rows with a value in the column of splits, or all rows."""
    if columns.split is None:
        return {"train": "all rows"}
    return {split: f"{split} rows of column {columns.split!r}" for split in splits}


def _find_columns(table: Table, *, is_multi: bool, **given: Any) -> Columns:
    """Return the columns of a table, and log those that were found by other names than the preferred ones."""
    usual = {"path": PATH_NAMES, "label": LABEL_NAMES, "split": SPLIT_COLUMN_NAMES, "weight": WEIGHT_NAMES, "group": ()}
    found: dict[str, Any] = {}
    problems: list[object] = []
    if current_undivided() is not None:  # which needs no splits and no weights
        given |= {name: None for name in ("split", "weight") if given[name] not in table.columns}
    for name, names in usual.items():
        is_required = name == "path" or (name == "label" and not is_multi)
        find = table.require_column if is_required else table.find_column
        if name == "label" and not isinstance(given[name], str | None):
            continue
        try:
            found[name] = find("data.group" if name == "group" else f"data.{name}_column", given[name], names)
        except InputError as error:
            problems += error.details
    if is_multi and not found.get("label"):
        try:
            found["label"] = find_class_columns(table, given["label"], [name for name in found.values() if name])
        except InputError as error:
            problems += error.details
    if problems:
        raise InputError(*problems)
    columns = _without_wrong_guesses(table, Columns(**found, label_sets=is_multi), given)
    used = {name: getattr(columns, name) for name in found}
    guessed = {
        name: column for name, column in used.items() if isinstance(column, str) and not given[name] and column != name
    }
    if guessed:
        log.info("%s: %s", table.path, ", ".join(f"{name} is {column!r}" for name, column in guessed.items()))
    return columns


def _without_wrong_guesses(table: Table, columns: Columns, given: Mapping[str, str | None]) -> Columns:
    """Leave out columns of splits and weights that were found by their names but have other values, with a warning.

    If the data set is read `undivided`, the column of splits is left out, and a given column of weights if it is wrong.
    """
    if current_undivided() is not None:
        columns = replace(columns, split=None)  # the rows of all splits are evaluated together
    elif columns.split is not None and not given["split"]:
        columns = replace(columns, split=_find_named_splits(table, (columns.path, columns.label, columns.group)))
    weight = columns.weight
    if weight is not None and (not given["weight"] or current_undivided() is not None):
        try:
            read_weights(table, weight)
        except InputError as error:
            log.warning("%s; the column is not used for weights", error.problems[0])
            columns = replace(columns, weight=None)
    return columns


def _find_named_splits(table: Table, used: Sequence[object]) -> str | None:
    """Return the first column with a usual name that names a split in any row; None if there is none.

    A column whose name has `split` in it is returned whatever its cells are, so that they are refused: rows for testing
    would be trained on.

    Args:
        table: The table.
        used: Columns with another meaning. A warning is logged on the others that have a usual name alone.
    """
    names = {name for usual in USUAL_SPLIT_NAMES.values() for name in usual}
    for usual in SPLIT_COLUMN_NAMES:
        column = table.find_column("data.split_column", None, (usual,))
        if column is None:
            continue
        if "split" in usual or not names.isdisjoint(cell.strip().lower() for cell in table.columns[column]):
            return column
        if column not in used:
            log.warning("%s: column %r has no names of splits (train, val, test) and is not used", table.path, column)
        if usual == ORIGIN_NAME:
            return None  # runs on such tables have split the rows although there may be a column `datasplit`
    return None
