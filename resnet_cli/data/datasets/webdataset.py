"""Images in shards: tar archives of samples in the WebDataset format, for sets too large for a folder."""

import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import AtLeast, Between, NotEmpty, PathText
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.datasets.problems import raise_problems
from resnet_cli.data.datasets.samples import open_parts
from resnet_cli.data.datasets.shard_index import Extensions, ShardIndex, index_shard
from resnet_cli.data.datasets.shard_paths import ShardPath, find_shards
from resnet_cli.data.datasets.table_labels import label_order
from resnet_cli.data.groups import GroupNames
from resnet_cli.data.images.cache import ArrayCache, find_cache_folder
from resnet_cli.data.images.decode import Mode
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.remote import RemoteFile, UnreachableError
from resnet_cli.data.images.resize import ImageSize, Interpolation, Resize
from resnet_cli.data.images.shards import READERS, ShardSource
from resnet_cli.data.origins import Origins
from resnet_cli.data.selection import NumberedNames, number_rows
from resnet_cli.data.shard_order import ShardOrder
from resnet_cli.data.splits import hold_out_test
from resnet_cli.data.whole_dataset import known_labels, least_classes
from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

SORTED_FRACTION = 0.5  # of the expected number of classes in a shard, below which samples seem to be sorted by class


@validate_arguments
def webdataset(
    *,
    shards: PathText | Sequence[str | Path],
    val_shards: PathText | Sequence[str | Path] | None = None,
    test_shards: PathText | Sequence[str | Path] | None = None,
    image_extension: Annotated[str, NotEmpty()] | None = None,
    label_extension: Annotated[str, NotEmpty()] | None = None,
    label_field: Annotated[str, NotEmpty()] | None = None,
    group: Annotated[str, NotEmpty()] | None = None,
    shuffle_buffer: Annotated[int, AtLeast(1)] = 5_000,
    lanes: Annotated[int, AtLeast(1)] = 8,
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
    """Load images from shards: uncompressed tar archives in which the files of a sample follow one another.

    The headers and labels of each shard are read once to index the positions of the images, and all images are read
    once to check them; both results are cached in `cache`. After that, the order of an epoch is known before anything
    is read (see `resnet_cli.data.shard_order.ShardOrder`): a run can resume at any step without reading the preceding
    samples, and any number of workers yields the same batches. Images are read individually from at most 16 open
    shards; each worker prefetches two batches. Shards may be on a server that supports HTTP range requests: each is
    downloaded once to a temporary copy for its index. After that, 16 threads of each worker request single images, with
    up to 4 MB of read-ahead for each open shard when images are consecutive (in the first pass and with
    `shuffle_buffer=1`), and resume interrupted transfers. Classes are sorted by name, or by value if they are whole
    numbers.

    Args:
        shards: The training shards: a path with braces such as `train-{000..099}.tar` or a pattern such as
            `train-*.tar`, an address such as `https://host/train-{000..099}.tar`, or a list of these.
        val_shards: Shards to validate on; None holds out `val_fraction` of the training images.
        test_shards: Shards to test on; None holds out a fixed, stratified part of the training images.
        image_extension: Extension of the image in each sample, or several separated by semicolons; None takes the only
            file with an image extension.
        label_extension: Extension of the label; None takes `cls`, or else `json`.
        label_field: Field of the label in a JSON file; None takes `label`, `cls`, `class` ...
        group: Regular expression that finds the group of each image in its path in the shard: the first capturing group
            that takes part in the match, or else the whole match. Images of a group stay in one split, including the
            test split if it is held out.
        shuffle_buffer: Number of images in the shuffle buffer, from which the next image is drawn after the order of
            the shards has been shuffled; 1 shuffles only the shards, and the number of all images gives an exact
            permutation. The buffer does not hold images, but with a larger one successive reads are further apart.
        lanes: Number of lanes to which the shards of an epoch are distributed, each with its own buffer; it is halved
            until each lane has two shards. Batches are taken from the lanes in turn, so that each of 2, 4 or 8 workers
            reads its own shards. The order depends on the number of lanes, but not on that of workers. See
            `resnet_cli.data.shard_order.ShardOrder`.
        image_size: Side of the images in pixels, or height and width; None if all images already have the same size.
        resize: `crop` scales the largest centred part of that shape, `squash` scales both sides, `pad` scales the whole
            image and surrounds it with `background`.
        interpolation: Interpolation of scaling: `bilinear` or `bicubic`.
        mode: `RGB`, or `L` for grey. Other images are converted, with a warning that names the first.
        background: Colour under transparent pixels and around padded images: a name such as `white`, `#rrggbb`, or red,
            green and blue to 255.
        range: Lowest and highest value of images of more than 8 bits, which become 0 and 255; None takes the range of
            16 bits, and rejects floating-point images.
        test_fraction: Fraction of the images held out for testing if there are no `test_shards`.
        cache: Folder for the index, and for decoded images if they take less than half of the free space; None indexes
            the shards in every run.
        mean: Mean of each channel on the scale 0 to 1; None computes it, from 10,000 images if there are more.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it likewise.

    Raises:
        InputError: Shards or samples cannot be used; one line for each problem, with the shard and the sample.
    """
    paths = find_shards({"shards": shards, "val_shards": val_shards, "test_shards": test_shards})
    folder = find_cache_folder(cache)
    extensions = Extensions(image_extension, label_extension, label_field)
    indices = _index_shards(paths, extensions, ArrayCache(folder))
    train_labels = {label for index in indices["shards"] for label in index.class_names}
    indices = {name: [_in_forms_of(train_labels, index) for index in found] for name, found in indices.items()}
    class_names = _find_classes(indices)
    open_images = partial(
        LazyImages, mode=mode, image_size=image_size, resize=resize, cache=folder, background=background,
        value_range=range, interpolation=interpolation,
    )  # fmt: skip
    samples = {name: _list_samples(found, class_names) for name, found in indices.items()}
    sources = {name: ShardSource([index.shard for index in indices[name]], rows) for name, (rows, _) in samples.items()}
    labels = {name: found for name, (_, found) in samples.items()}
    groups, names = _find_groups(sources, group), dict[str, NumberedNames]()
    if "test_shards" not in sources:
        train, test = hold_out_test(
            labels["shards"], test_fraction, class_names, source=str(paths["shards"][0]), groups=groups.get("shards")
        )
        parts = {"shards": train, "test_shards": test}
        names = {name: number_rows(chosen, "sample") for name, chosen in parts.items()}
        labels |= {name: labels["shards"][chosen] for name, chosen in parts.items()}
        groups |= {name: groups["shards"][chosen] for name, chosen in parts.items() if groups}
        sources |= {name: sources["shards"].select(chosen) for name, chosen in parts.items()}
    _warn_sorted(indices["shards"], len(class_names), shuffle_buffer)
    images = open_parts(sources, open_images, first="shards")
    splits = {
        name: DatasetSplit(
            images[name], labels[name], None, groups.get(name),
            ShardOrder(source.samples[:, 0].contiguous(), shuffle_buffer, lanes), names.get(name),
        )
        for name, source in sources.items()
    }  # fmt: skip
    return Dataset(
        _name(paths["shards"][0]), class_names, splits["shards"], splits["test_shards"],
        splits.get("val_shards"), mean, std, origins=_describe_shards(paths, test_fraction),
    )  # fmt: skip


def _find_groups(sources: Mapping[str, ShardSource], pattern: str | None) -> dict[str, Tensor]:
    """Return the group of each image, int64 [N], by config key; empty without a pattern."""
    if pattern is None:
        return {}
    groups = GroupNames(pattern)
    return {name: groups.number(source.member_names()) for name, source in sources.items()}


def _name(shard: ShardPath) -> str:
    """Return the name of the folder that a shard is in."""
    return (shard.folder_name if isinstance(shard, RemoteFile) else shard.parent.resolve().name) or "shards"


def _describe_shards(paths: Mapping[str, Sequence[ShardPath]], test_fraction: float) -> Origins:
    """Describe where the parts were found: the number of shards, and the first one."""
    parts = {"shards": "train", "val_shards": "val", "test_shards": "test"}
    names = {}
    for key, found in paths.items():
        first = Path(str(found[0])).name  # for a file on a server, the end of its address
        names[parts[key]] = first if len(found) == 1 else f"{counted(len(found), 'shard')} from {first} on"
    return Origins.of_parts(names, test_fraction)


def _index_shards(
    paths: Mapping[str, Sequence[ShardPath]], extensions: Extensions, cache: ArrayCache
) -> dict[str, list[ShardIndex]]:
    """Return the index of each shard, by config key; raise an `InputError` with the problems of all shards."""
    found: dict[str, list[ShardIndex]] = {name: [] for name in paths}
    problems: list[str] = []
    every = [(name, path) for name, some in paths.items() for path in some]
    pool = ThreadPoolExecutor(READERS)
    try:
        probes = [pool.submit(path.probe) if isinstance(path, RemoteFile) else None for _, path in every]
        pairs = [*zip(every, probes, strict=True)]
        for (name, path), probe in tqdm(pairs, "indexing", leave=False, disable=None, unit="shard"):
            try:
                found[name].append(index_shard(path if probe is None else probe.result(), extensions, cache))
            except UnreachableError as error:
                problems += error.problems
                break  # the others cannot be reached either
            except InputError as error:
                problems += error.problems
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    raise_problems(problems)
    return found


def _in_forms_of(train: set[str], index: ShardIndex) -> ShardIndex:
    """Return the index of a shard with labels in the Unicode form of the training labels."""
    forms = match_unicode_forms(index.class_names, train)
    return index._replace(class_names=[forms.get(name, name) for name in index.class_names])


def _find_classes(indices: Mapping[str, Sequence[ShardIndex]]) -> tuple[str, ...]:
    """Return the sorted names of the classes, which are the labels of the training shards.

    Raises:
        InputError: Other shards have a label that no training shard has.
    """
    labels = {name: {label for index in found for label in index.class_names} for name, found in indices.items()}
    known = known_labels({"train": labels.pop("shards"), **labels})
    raise_problems(
        partial(_describe_unknown_label, index, number, known)
        for name in indices
        for index in indices[name]
        for number, label in enumerate(index.class_names)
        if label not in known
    )
    if len(known) < least_classes():
        raise InputError(f"data.shards: all images are of class {next(iter(known))!r}: 2 are needed")
    return tuple(sorted(known, key=label_order(known)))


def _describe_unknown_label(index: ShardIndex, number: int, known: Collection[str]) -> str:
    """Return a message about the first sample whose label, by its number in the index, no training shard has."""
    label, sample = index.class_names[number], index.shard.name(int((index.labels == number).argmax()))
    where = f"{index.shard.path}: sample {sample!r}"
    return f"{where}: no image of data.shards has its label {label!r}{did_you_mean(label, known)}"


def _list_samples(indices: Sequence[ShardIndex], class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return shard and position of each sample, int64 [N, 2], and its class, int64 [N]."""
    numbers = {name: number for number, name in enumerate(class_names)}
    rows, labels = [], []
    for number, index in enumerate(indices):
        positions = np.arange(len(index.shard))
        rows.append(np.stack([np.full_like(positions, number), positions], 1))
        labels.append(np.array([numbers[name] for name in index.class_names])[index.labels])
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(labels))


def _warn_sorted(indices: Sequence[ShardIndex], classes: int, buffer: int) -> None:
    """Log a warning if shards have so few classes that batches from the buffer would have few classes too."""
    sizes = np.array([len(index.shard) for index in indices])
    if buffer >= sizes.sum():
        return
    expected = classes * (1 - (1 - 1 / classes) ** np.minimum(sizes, buffer).mean())
    present = float(np.mean([len(index.class_names) for index in indices]))
    if present < SORTED_FRACTION * expected:
        log.warning(
            "data.shards: a shard has %.3g of the %d classes on average: samples seem to be sorted, and "
            "data.shuffle_buffer=%d of %d images mixes few shards: a larger one mixes more",
            present, classes, buffer, sizes.sum(),
        )  # fmt: skip
