"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 photographs, in torchvision's folder layout.

The batches are pickles. They are never given to Python's own unpickler, whatever their checksum.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset, Part
from resnet_cli.data.download import Source, check_md5, fetch, unpack
from resnet_cli.data.safe_pickle import load_arrays
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

UNPACKED_LIMIT = 1 << 29  # bytes; both archives hold 186 MB


def cifar10(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 images of 10 classes, in `root/cifar-10-batches-py`.

    Args:
        root: Folder that holds the set's folder or its archive; `~` is the home folder.
        download: Fetch the set if it is not there.
        verify: Compare every file with its known MD5; off, a re-encoded copy is accepted.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel, likewise.

    Raises:
        InputError: The set is missing and could not be fetched, or a file is not what it should be.
    """
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, "labels", root, download, verify, mean, std)


def cifar100(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 images of 100 classes, in `root/cifar-100-python`; arguments as for `cifar10`."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, "fine_labels", root, download, verify, mean, std)


def _load(
    name: str,
    source: "type[CIFAR10]",
    label_key: str,
    root: str,
    download: bool,
    verify: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Dataset:
    base = Path(root).expanduser()
    folder = base / source.base_folder
    checksums = dict([*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])])
    if not all((folder / file).is_file() for file in checksums):
        _provide(name, source, base, download=download, verify=verify)
    for file, md5 in checksums.items():
        if not (folder / file).is_file():
            raise InputError(f"{folder / file}: missing")
        if verify:
            check_md5(folder / file, md5)
    class_names = _class_names(folder / source.meta["filename"], source.meta["key"])
    train, test = (
        _read_batches([folder / file for file, _ in files], label_key)
        for files in (source.train_list, source.test_list)
    )
    return Dataset(name, class_names, train, test, mean=mean, std=std)


def _provide(name: str, source: "type[CIFAR10]", base: Path, *, download: bool, verify: bool) -> None:
    """Makes the set's folder from the archive beside it, or from a fetched one."""
    from torchvision.datasets.utils import download_url

    archive = base / source.filename
    origin = Source(name, [source.url], [source.filename, source.base_folder + "/"])

    def unpack_into(place: Path, packed: Path) -> None:
        unpack(packed, place, members=f"{source.base_folder}/[^/]+", limit=UNPACKED_LIMIT)

    def fetch_into(place: Path) -> None:
        download_url(source.url, place, source.filename, source.tgz_md5)
        unpack_into(place, place / source.filename)
        (place / source.filename).unlink()

    if archive.is_file():
        if verify:
            check_md5(archive, source.tgz_md5)
        fetch(origin, base, lambda place: unpack_into(place, archive))
    elif download:
        fetch(origin, base, fetch_into)
    else:
        raise origin.missing(base)


def _class_names(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(path, load_arrays(path), key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"{path}: {key} is not a list of class names")
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


def _entry(path: Path, batch: Any, key: str) -> Any:
    if not isinstance(batch, dict) or key not in batch:
        raise InputError(f"{path}: has no entry {key!r}")
    return batch[key]


def _read_batches(paths: Sequence[Path], label_key: str) -> Part:
    parts = [_read_batch(path, label_key) for path in paths]
    return Part(torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))


def _read_batch(path: Path, label_key: str) -> tuple[Tensor, Tensor]:
    import numpy as np

    batch = load_arrays(path)
    rows, labels = np.asarray(_entry(path, batch, "data")), np.asarray(_entry(path, batch, label_key))
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
        raise InputError(f"{path}: data is {rows.dtype} {rows.shape}, not uint8 (images, 3072)")
    if labels.dtype.kind not in "iu" or labels.shape != rows.shape[:1]:
        raise InputError(f"{path}: {len(rows)} images but {label_key} is {labels.dtype} {labels.shape}")
    images = torch.from_numpy(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy())
    return images, torch.from_numpy(labels.astype(np.int64))
