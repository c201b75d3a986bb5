"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28x28, in four IDX files, optionally compressed by gzip."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import PathText
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.download import DownloadSource, download_if_allowed, wrong_md5
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

IDX_MAGIC = {3: 0x803, 1: 0x801}  # by number of dimensions: uint8 images [N, H, W] and labels [N]
MAX_BYTES = 1 << 28  # the largest file has 47 MB


@dataclass(frozen=True)
class MnistFiles:
    """The files of a data set in MNIST's format.

    Args:
        name: The data set's name.
        reader: Name of the torchvision class that downloads it, and of its folder in torchvision's layout.
        class_names: Names of the classes, as in torchvision.
        md5: MD5 of each uncompressed file: gzip stores a time and a name, so that archives of equal content differ.
    """

    name: str
    reader: str
    class_names: tuple[str, ...]
    md5: Mapping[str, str]

    def folders(self, root: Path) -> Iterator[Path]:
        """Yield the folders that may hold the files: torchvision's, `root` itself, and others below it."""
        yield root / self.reader / "raw"
        yield root
        for name in (self.reader, self.name, self.name.replace("_", "-"), "raw"):
            yield root / name


MNIST = MnistFiles(
    name="mnist",
    reader="MNIST",
    class_names=(
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
        "9 - nine",
    ),
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)  # fmt: skip
FASHION_MNIST = MnistFiles(
    name="fashion_mnist",
    reader="FashionMNIST",
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)  # fmt: skip


@validate_arguments
def mnist(
    *,
    root: PathText,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load MNIST (LeCun et al. 1998): 60,000 + 10,000 grey digits of 28x28.

    Args:
        root: Folder of the four files, compressed (`*-ubyte.gz`) or not, or a folder that contains it (`MNIST/raw`);
            `~` is the home folder.
        download: Download the data set if it is missing.
        verify: Compare the content of every file with its known MD5.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: The data set is missing and could not be downloaded, or a file is not as expected.
    """
    train, test = _load(MNIST, expand_home(root, "data.root"), download=download, verify=verify)
    return Dataset(MNIST.name, MNIST.class_names, train, test, mean=mean, std=std)


@validate_arguments
def fashion_mnist(
    *,
    root: PathText,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load Fashion-MNIST (Xiao et al. 2017): clothes in MNIST's format, also from `FashionMNIST/raw` in `root`.

    Arguments and errors are those of `mnist`.
    """
    train, test = _load(FASHION_MNIST, expand_home(root, "data.root"), download=download, verify=verify)
    return Dataset(FASHION_MNIST.name, FASHION_MNIST.class_names, train, test, mean=mean, std=std)


def _load(files: MnistFiles, root: Path, *, download: bool, verify: bool) -> tuple[DatasetSplit, DatasetSplit]:
    """Return the training and the test split."""
    folder = next((folder for folder in files.folders(root) if _find_all(folder, files)), None)
    if folder is None:
        folder = root / files.reader / "raw"
        _download(files, root, allowed=download)
    contents = {name: _read(_find(folder, name), files.md5[name] if verify else None) for name in files.md5}

    def make_split(prefix: str) -> DatasetSplit:
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images_NHW = _parse_idx(folder / images, contents[images], 3)
        return DatasetSplit(images_NHW[..., None], _parse_idx(folder / labels, contents[labels], 1).long())

    return make_split("train"), make_split("t10k")


def _download(files: MnistFiles, root: Path, *, allowed: bool) -> None:
    def load(target: Path) -> None:
        import torchvision.datasets

        getattr(torchvision.datasets, files.reader)(target, download=True)

    places = [f"{files.reader}/raw/", ""]
    source = DownloadSource(files.name, [f"{files.reader} (torchvision's mirrors)"], places)
    download_if_allowed(source, root, load, allowed=allowed)


def _find_all(folder: Path, files: MnistFiles) -> bool:
    return all(_find(folder, name).is_file() for name in files.md5)


def _find(folder: Path, name: str) -> Path:
    """Return the path of a file, or of its archive if there is no file; some copies have a dot before `idx`."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    return next((folder / found for found in names if (folder / found).is_file()), folder / name)


def _read(path: Path, md5: str | None) -> bytes:
    """Return the uncompressed content of a file; raise `InputError` if its MD5 is not the given one."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content: bytes = file.read(MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise wrong_md5(path, found, md5)
    return content


def _parse_idx(path: Path, content: bytes, dimensions: int) -> Tensor:
    """Return the array of an IDX file, uint8.

    Args:
        path: The file, for messages.
        content: A magic number, the length of each dimension as big-endian 32-bit integers, and the values.
        dimensions: Number of dimensions that the array must have.
    """
    header = [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1 + dimensions)]
    magic, shape = header[0], header[1:]
    count = torch.Size(shape).numel()
    if magic != IDX_MAGIC[dimensions] or len(content) != 4 * len(header) + count:
        raise InputError(f"{path}: cannot be read: not an IDX file of {dimensions} dimensions, or truncated")
    if not count:
        raise InputError(f"{path}: no images or labels in it")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 * len(header)).view(shape)
