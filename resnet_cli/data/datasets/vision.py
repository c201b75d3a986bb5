"""MNIST, Fashion-MNIST, SVHN and Oxford Flowers-102, read by torchvision's dataset classes."""

import gzip
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
from torch import Tensor

from resnet_cli.config.ranges import AtLeast
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.decode import Resize
from resnet_cli.data.images.download import DownloadSource, download_if_allowed, verify_md5
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

T = TypeVar("T")


def mnist(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load MNIST (LeCun et al. 1998): 60,000 + 10,000 grey digits of 28x28, from `root/MNIST/raw`.

    Args:
        root: Folder that contains the data set's folder; `~` is the home folder.
        download: Download the data set if it is missing.
        verify: Compare every file with the archive it was unpacked from, and the archive with its known MD5.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: The data set is missing and could not be downloaded, or a file is not as expected.
    """
    from torchvision.datasets import MNIST

    train, test = _load_mnist("mnist", MNIST, Path(root).expanduser(), download=download, verify=verify)
    return Dataset("mnist", tuple(MNIST.classes), train, test, mean=mean, std=std)


def fashion_mnist(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load Fashion-MNIST (Xiao et al. 2017): clothes in MNIST's format, from `root/FashionMNIST/raw`.

    Arguments and errors are those of `mnist`.
    """
    from torchvision.datasets import FashionMNIST

    train, test = _load_mnist("fashion_mnist", FashionMNIST, Path(root).expanduser(), download=download, verify=verify)
    return Dataset("fashion_mnist", tuple(FashionMNIST.classes), train, test, mean=mean, std=std)


def svhn(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load SVHN, cropped (Netzer et al. 2011): 73,257 + 26,032 house-number digits of 32x32, from `root/*_32x32.mat`.

    Arguments and errors are those of `mnist`, except that `verify` compares each file with its known MD5. Needs scipy.
    """
    from torchvision.datasets import SVHN

    _require_scipy("svhn")
    base = Path(root).expanduser()
    split_list = {split: SVHN.split_list[split] for split in ("train", "test")}
    files = {split: base / name for split, (_, name, _) in split_list.items()}

    def load(target: Path) -> None:
        for split in split_list:
            SVHN(target, split=split, download=True)

    urls, names = [url for url, _, _ in split_list.values()], [name for _, name, _ in split_list.values()]
    _ensure_present(DownloadSource("svhn", urls, names), base, list(files.values()), load, download=download)
    if verify:
        _verify_files({base / name: md5 for _, name, md5 in split_list.values()})
    reader = _without_integrity_check(SVHN)

    def read_split(split: str) -> DatasetSplit:
        found = _read_or_raise(files[split], lambda: reader(base, split=split))
        images_NCHW = torch.from_numpy(found.data)
        return DatasetSplit(images_NCHW.permute(0, 2, 3, 1).contiguous(), torch.from_numpy(found.labels))

    return Dataset("svhn", tuple("0123456789"), read_split("train"), read_split("test"), mean=mean, std=std)


def flowers102(
    *,
    root: str,
    image_size: Annotated[int, AtLeast(1)] = 128,
    resize: Resize = "crop",
    download: bool = True,
    verify: bool = True,
    cache: str | None = "~/.cache/resnet-cli/decoded",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load Oxford Flowers-102 (Nilsback & Zisserman 2008): 1,020 + 6,149 photographs, and 1,020 for validation.

    The folder is `root/flowers-102`. Needs scipy. `root`, `download`, `mean`, `std` and errors are those of `mnist`;
    `image_size`, `resize` and `cache` are those of `image_folder`; `verify` compares the label files with their MD5.
    """
    from torchvision.datasets import Flowers102

    _require_scipy("flowers102")
    base = Path(root).expanduser()
    folder = base / "flowers-102"
    prefix, archives = Flowers102._download_url_prefix, Flowers102._file_dict
    label_files = {folder / name: md5 for name, md5 in (archives["label"], archives["setid"])}

    def load(target: Path) -> None:
        Flowers102(target, download=True)
        (target / "flowers-102" / archives["image"][0]).unlink()

    source = DownloadSource("flowers102", [prefix + name for name, _ in archives.values()], ["flowers-102/"])
    _ensure_present(source, base, [folder / "jpg", *label_files], load, download=download)
    if verify:
        _verify_files(label_files)
    reader = _without_integrity_check(Flowers102)
    cache_folder = None if cache is None else Path(cache).expanduser()

    def read_split(split: str) -> DatasetSplit:
        found = _read_or_raise(folder, lambda: list(reader(base, split=split, loader=lambda path: path)))
        names = [str(Path(path).relative_to(base)) for path, _ in found]
        images = LazyImages(base, names, image_size=image_size, resize=resize, cache=cache_folder)
        return DatasetSplit(images, torch.tensor([label for _, label in found]))

    train, test, val = read_split("train"), read_split("test"), read_split("val")
    return Dataset("flowers102", tuple(Flowers102.classes), train, test, val, mean=mean, std=std)


def _load_mnist(
    name: str, reader: "type[MNIST]", root: Path, *, download: bool, verify: bool
) -> tuple[DatasetSplit, DatasetSplit]:
    """Return the training and the test split of MNIST or of a data set in its format.

    Args:
        name: The data set's name.
        reader: Its torchvision class, which has its archives, their MD5 and its mirrors.
        root: Folder that contains the data set's folder.
        download: Download the data set if it is missing.
        verify: Compare the files with their archives, and those with their MD5.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    folder = root / reader.__name__ / "raw"
    archives = {folder / archive: md5 for archive, md5 in reader.resources}
    files = [archive.with_suffix("") for archive in archives]
    source = DownloadSource(name, [f"{reader.mirrors[0]}*.gz"], [f"{reader.__name__}/raw/"])
    _ensure_present(source, root, files, lambda target: reader(target, download=True), download=download)
    if verify:
        for archive, md5 in archives.items():
            _verify_unpacked(archive, md5)

    def read_split(prefix: str) -> DatasetSplit:
        pixels, labels = folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"
        images_NHW: Tensor = _read_or_raise(pixels, lambda: read_image_file(str(pixels)))
        return DatasetSplit(images_NHW[..., None], _read_or_raise(labels, lambda: read_label_file(str(labels))))

    return read_split("train"), read_split("t10k")


def _ensure_present(
    source: DownloadSource,
    root: Path,
    required: Sequence[Path],
    load: Callable[[Path], object],
    *,
    download: bool,
) -> None:
    """Download the data set by `load` unless all `required` paths exist; raise `InputError` if that is not allowed."""
    if not all(path.exists() for path in required):
        download_if_allowed(source, root, load, allowed=download)


def _verify_files(checksums: Mapping[Path, str]) -> None:
    for path, md5 in checksums.items():
        verify_md5(path, md5)


def _verify_unpacked(archive: Path, md5: str) -> None:
    """Compare an archive with its MD5, and the unpacked file beside it, whose MD5 is not known, with its content."""
    unpacked = archive.with_suffix("")
    advice = f"delete {archive.parent} and use data.download=true, or accept the files with data.verify=false"
    if not archive.is_file():
        raise InputError(f"{unpacked} cannot be verified without {archive.name} beside it: {advice}")
    verify_md5(archive, md5)
    with gzip.open(archive) as expected:
        if expected.read() != unpacked.read_bytes():
            raise InputError(f"{unpacked} is not what {archive.name} unpacks to: it is truncated or modified: {advice}")


def _without_integrity_check(reader: type[T]) -> type[T]:
    """Return a subclass of a torchvision data set that verifies no checksums; `verify` has decided on that before."""
    return type(reader.__name__, (reader,), {"_check_integrity": lambda self: True})


def _require_scipy(name: str) -> None:
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"data={name} needs scipy for its MATLAB files: pip install 'resnet-cli[data]'")


def _read_or_raise(path: Path, read: Callable[[], Any]) -> Any:
    """Return the result of `read`; raise its errors as one-line `InputError`s that name `path`."""
    try:
        return read()
    except Exception as error:  # readers of torchvision and scipy raise exceptions of any type on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read: {reason}") from None
