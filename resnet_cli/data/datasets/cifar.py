"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 photographs, in torchvision's folder layout.

The files are pickles; `load_arrays` reads them without executing code, whatever their checksum.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import PathText
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.download import DownloadSource, download_if_allowed, download_into, unpack, verify_md5
from resnet_cli.data.images.safe_pickle import load_arrays
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

MAX_UNPACKED_BYTES = 1 << 29  # both archives unpack to 186 MB
VALUES_PER_IMAGE = 3 * 32 * 32


@dataclass(frozen=True)
class CifarFiles:
    """The files of a data set and their MD5 checksums, as in torchvision's `CIFAR10` and `CIFAR100`.

    They are repeated here because importing torchvision takes seconds and 170 MB, and only a download needs it.

    Args:
        name: The data set's name.
        url: URL of the archive.
        archive_md5: MD5 of the archive.
        folder: Folder of the unpacked files, in the root folder and in the archive.
        train: Files of the training split and their MD5.
        test: Files of the test split and their MD5.
        names: The file of the class names and its MD5.
        names_key: Entry of that file that lists the class names.
        label_key: Entry of the other files that lists the labels.
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
    def md5(self) -> dict[str, str]:
        """MD5 of every file in the folder, by its name."""
        return {**self.train, **self.test, **self.names}

    @property
    def archive(self) -> str:
        """File name of the archive, which may lie in the root folder."""
        return self.url.rpartition("/")[2]


CIFAR10 = CifarFiles(
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
CIFAR100 = CifarFiles(
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


@validate_arguments
def cifar10(
    *,
    root: PathText,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load CIFAR-10: 50,000 + 10,000 images of 10 classes, from `root/cifar-10-batches-py`.

    Args:
        root: Folder that holds the files, contains the data set's folder or its archive, or the archive itself; `~` is
            the home folder.
        download: Download the data set if it is missing.
        verify: Compare every file with its known MD5; False accepts a re-encoded copy.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: The data set is missing and could not be downloaded, or a file is not as expected.
    """
    train, test, class_names = _load_cifar(CIFAR10, expand_home(root, "data.root"), download=download, verify=verify)
    return Dataset("cifar10", class_names, train, test, mean=mean, std=std)


@validate_arguments
def cifar100(
    *,
    root: PathText,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load CIFAR-100: 50,000 + 10,000 images of 100 classes, from `root/cifar-100-python`.

    Arguments and errors are those of `cifar10`.
    """
    train, test, class_names = _load_cifar(CIFAR100, expand_home(root, "data.root"), download=download, verify=verify)
    return Dataset("cifar100", class_names, train, test, mean=mean, std=std)


def _load_cifar(
    files: CifarFiles, root: Path, *, download: bool, verify: bool
) -> tuple[DatasetSplit, DatasetSplit, tuple[str, ...]]:
    """Return the training split, the test split and the class names."""
    for folder in (root / files.folder, root):
        if all((folder / name).is_file() for name in files.md5):
            return _read_folder(files, folder, verify=verify)
    archive = root if root.is_file() else root / files.archive
    if archive.is_file():
        return _read_archive(files, archive, verify=verify)
    source = DownloadSource(files.name, [files.url], [files.archive, files.folder + "/"])

    def download_and_extract(target: Path) -> None:
        from torchvision.datasets.utils import download_url

        download_url(files.url, target, files.archive, files.archive_md5)
        _extract(files, target / files.archive, target)
        (target / files.archive).unlink()

    download_if_allowed(source, root, download_and_extract, allowed=download)
    return _read_folder(files, root / files.folder, verify=verify)


def _read_archive(
    files: CifarFiles, archive: Path, *, verify: bool
) -> tuple[DatasetSplit, DatasetSplit, tuple[str, ...]]:
    """Unpack an archive into its folder, or into a temporary one if that is not writable, and read it."""
    root = archive.parent
    if not os.access(root, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="resnet-cli-") as folder:
            _extract(files, archive, Path(folder))
            if verify:
                _verify(files, Path(folder) / files.folder, archive)
            return _read_folder(files, Path(folder) / files.folder, verify=False)
    source = DownloadSource(files.name, [str(archive)], [files.folder + "/"])

    def extract(target: Path) -> None:
        _extract(files, archive, target)
        if verify:
            _verify(files, target / files.folder, archive)  # before anything is moved beside the archive

    download_into(source, root, extract, log_download=False)
    return _read_folder(files, root / files.folder, verify=verify)


def _extract(files: CifarFiles, archive: Path, target: Path) -> None:
    unpack(archive, target, members=f"{files.folder}/[^/]+", limit=MAX_UNPACKED_BYTES)


def _verify(files: CifarFiles, folder: Path, archive: Path | None = None) -> None:
    """Compare the files in a folder with their MD5; errors name `archive` if the files come from one."""
    for name, md5 in files.md5.items():
        try:
            if (folder / name).is_file():
                verify_md5(folder / name, md5)
        except InputError as error:
            if archive is None:
                raise
            problem = str(error).replace(f"{folder / name}: its MD5 is", f"{archive}: its {name} has the MD5", 1)
            raise InputError(problem) from None


def _read_folder(
    files: CifarFiles, folder: Path, *, verify: bool
) -> tuple[DatasetSplit, DatasetSplit, tuple[str, ...]]:
    for name in files.md5:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing")
    if verify:
        _verify(files, folder)
    (names_file,) = files.names
    class_names = _read_class_names(folder / names_file, files.names_key)
    train = _read_split([folder / name for name in files.train], files.label_key)
    test = _read_split([folder / name for name in files.test], files.label_key)
    return train, test, class_names


def _read_class_names(path: Path, key: str) -> tuple[str, ...]:
    names = _get_entry(path, load_arrays(path), key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"{path}: {key} is not a list of class names")
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


def _get_entry(path: Path, content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{path}: has no entry {key!r}")
    return content[key]


def _read_split(paths: Sequence[Path], label_key: str) -> DatasetSplit:
    """Read files one by one into a preallocated tensor, so that the images are never in memory twice."""
    # A pickle is at least as large as the array in it, so the file sizes bound the number of images.
    capacity = sum(path.stat().st_size for path in paths) // VALUES_PER_IMAGE
    images = torch.empty(capacity, 32, 32, 3, dtype=torch.uint8)
    labels: list[Tensor] = []
    count = 0
    for path in paths:
        labels.append(_read_file(path, label_key, images[count:]))
        count += len(labels[-1])
    return DatasetSplit(images[:count], torch.cat(labels))


def _read_file(path: Path, label_key: str, target_NHWC: Tensor) -> Tensor:
    """Write the images of a file to the first rows of `target_NHWC` and return their labels, int64 [B]."""
    import numpy as np

    content = load_arrays(path)
    rows, labels = np.asarray(_get_entry(path, content, "data")), np.asarray(_get_entry(path, content, label_key))
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != VALUES_PER_IMAGE:
        raise InputError(f"{path}: data is {rows.dtype} {rows.shape}, not uint8 (images, {VALUES_PER_IMAGE})")
    if labels.dtype.kind not in "iu" or labels.shape != rows.shape[:1]:
        raise InputError(f"{path}: {counted(len(rows), 'image')} but {label_key} is {labels.dtype} {labels.shape}")
    if len(rows) > len(target_NHWC):
        raise InputError(f"{path}: {counted(len(rows), 'image')}, more than a file of its size can contain")
    target_NHWC.numpy()[: len(rows)] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return torch.from_numpy(labels.astype(np.int64))
