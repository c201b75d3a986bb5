"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 photographs, in torchvision's folder layout.

The batches are pickles. They are never given to Python's own unpickler, whatever their checksum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.download import Source, check_md5, fetch, unpack
from resnet_cli.data.images.safe_pickle import load_arrays
from resnet_cli.errors import InputError

UNPACKED_LIMIT = 1 << 29  # bytes; both archives hold 186 MB
PIXELS = 3 * 32 * 32  # numbers in an image


@dataclass(frozen=True)
class Files:
    """A set's files, their MD5 and the entries that are read, as torchvision's data sets have them.

    They stand here because importing torchvision takes seconds and 170 MB: it is left to downloads.
    """

    name: str
    url: str
    archive_md5: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    names: Mapping[str, str]
    names_key: str
    label_key: str

    @property
    def archive(self) -> str:
        """Its name, beside the folder."""
        return self.url.rpartition("/")[2]


CIFAR10 = Files(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    names={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    names_key="label_names",
    label_key="labels",
)
CIFAR100 = Files(
    name="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    names={"meta": "7973b15100ade9c7d40fb424638fde48"},
    names_key="fine_label_names",
    label_key="fine_labels",
)


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
    return _load(CIFAR10, root, download, verify, mean, std)


def cifar100(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 images of 100 classes, in `root/cifar-100-python`; arguments as for `cifar10`."""
    return _load(CIFAR100, root, download, verify, mean, std)


def _load(
    files: Files,
    root: str,
    download: bool,
    verify: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Dataset:
    base = Path(root).expanduser()
    folder = base / files.folder
    checksums = {**files.train, **files.test, **files.names}
    if not all((folder / file).is_file() for file in checksums):
        _provide(files, base, download=download, verify=verify)
    for file, md5 in checksums.items():
        if not (folder / file).is_file():
            raise InputError(f"{folder / file}: missing")
        if verify:
            check_md5(folder / file, md5)
    (names_file,) = files.names
    class_names = _class_names(folder / names_file, files.names_key)
    train, test = (
        _read_batches([folder / file for file in part], files.label_key) for part in (files.train, files.test)
    )
    return Dataset(files.name, class_names, train, test, mean=mean, std=std)


def _provide(files: Files, base: Path, *, download: bool, verify: bool) -> None:
    """Makes the set's folder from the archive beside it, or from a fetched one."""
    archive = base / files.archive
    origin = Source(files.name, [files.url], [files.archive, files.folder + "/"])

    def unpack_into(place: Path, packed: Path) -> None:
        unpack(packed, place, members=f"{files.folder}/[^/]+", limit=UNPACKED_LIMIT)

    def fetch_into(place: Path) -> None:
        from torchvision.datasets.utils import download_url

        download_url(files.url, place, files.archive, files.archive_md5)
        unpack_into(place, place / files.archive)
        (place / files.archive).unlink()

    if archive.is_file():
        if verify:
            check_md5(archive, files.archive_md5)
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


def _read_batches(paths: Sequence[Path], label_key: str) -> DatasetSplit:
    """One file after the other into the place that all will have, so that no second copy is ever there."""
    room = sum(path.stat().st_size for path in paths) // PIXELS  # a pickle holds each byte of its array
    images = torch.empty(room, 32, 32, 3, dtype=torch.uint8)
    labels: list[Tensor] = []
    count = 0
    for path in paths:
        labels.append(_read_batch(path, label_key, images[count:]))
        count += len(labels[-1])
    return DatasetSplit(images[:count], torch.cat(labels))


def _read_batch(path: Path, label_key: str, place: Tensor) -> Tensor:
    """Puts a file's images into the first places; gives their labels."""
    import numpy as np

    batch = load_arrays(path)
    rows, labels = np.asarray(_entry(path, batch, "data")), np.asarray(_entry(path, batch, label_key))
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise InputError(f"{path}: data is {rows.dtype} {rows.shape}, not uint8 (images, {PIXELS})")
    if labels.dtype.kind not in "iu" or labels.shape != rows.shape[:1]:
        raise InputError(f"{path}: {len(rows)} images but {label_key} is {labels.dtype} {labels.shape}")
    if len(rows) > len(place):
        raise InputError(f"{path}: {len(rows)} images, which are more than its bytes")
    place.numpy()[: len(rows)] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return torch.from_numpy(labels.astype(np.int64))
