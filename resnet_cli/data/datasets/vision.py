"""MNIST, Fashion-MNIST, SVHN and Oxford Flowers-102, read by torchvision's own dataset classes."""

import gzip
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from resnet_cli.config.ranges import AtLeast
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.decode import Resize
from resnet_cli.data.images.download import Source, check_md5, fetch
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


def mnist(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey 28x28 digits, in `root/MNIST/raw`.

    Args:
        root: Folder that holds the set's folder; `~` is the home folder.
        download: Fetch the set if it is not there.
        verify: Compare every file with the archive beside it, and the archive with its known MD5.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel, likewise.

    Raises:
        InputError: The set is missing and could not be fetched, or a file is not what it should be.
    """
    from torchvision.datasets import MNIST

    return _load_mnist("mnist", MNIST, root, download, verify, mean, std)


def fashion_mnist(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017): clothes in MNIST's form, in `root/FashionMNIST/raw`; arguments as `mnist`."""
    from torchvision.datasets import FashionMNIST

    return _load_mnist("fashion_mnist", FashionMNIST, root, download, verify, mean, std)


def svhn(
    *,
    root: str,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """SVHN, cropped (Netzer et al. 2011): 73,257 + 26,032 house-number digits of 32x32, `root/*_32x32.mat`.

    Arguments and errors are those of `mnist`, but `verify` compares each file with its known MD5. Needs scipy.
    """
    from torchvision.datasets import SVHN

    _need_scipy("svhn")
    base = Path(root).expanduser()
    files = {split: SVHN.split_list[split] for split in ("train", "test")}

    def load(place: Path) -> None:
        for split in files:
            SVHN(place, split=split, download=True)

    origin = Source("svhn", [url for url, _, _ in files.values()], [file for _, file, _ in files.values()])
    _provide(origin, base, [base / file for _, file, _ in files.values()], download, load)
    if verify:
        for _, file, md5 in files.values():
            check_md5(base / file, md5)

    class Unchecked(SVHN):  # type: ignore[misc]
        def _check_integrity(self) -> bool:
            return True

    def read(split: str) -> DatasetSplit:
        found = _reading(base / files[split][1], lambda: Unchecked(base, split=split))
        images_NCHW = torch.from_numpy(found.data)
        return DatasetSplit(images_NCHW.permute(0, 2, 3, 1).contiguous(), torch.from_numpy(found.labels))

    return Dataset("svhn", tuple("0123456789"), read("train"), read("test"), mean=mean, std=std)


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
    """Oxford Flowers-102 (Nilsback & Zisserman 2008): 1,020 + 6,149 photographs, and 1,020 for validation.

    The folder is `root/flowers-102`. Needs scipy. `root`, `download`, `mean`, `std` and errors are those of `mnist`;
    `image_size`, `resize` and `cache` are those of `image_folder`; `verify` compares the label files with their MD5.
    """
    from torchvision.datasets import Flowers102

    _need_scipy("flowers102")
    base = Path(root).expanduser()
    folder = base / "flowers-102"
    prefix, archives = Flowers102._download_url_prefix, Flowers102._file_dict
    labels = [archives["label"], archives["setid"]]

    def load(place: Path) -> None:
        Flowers102(place, download=True)
        (place / "flowers-102" / archives["image"][0]).unlink()

    origin = Source("flowers102", [prefix + file for file, _ in archives.values()], ["flowers-102/"])
    _provide(origin, base, [folder / "jpg", *(folder / file for file, _ in labels)], download, load)
    if verify:
        for file, md5 in labels:
            check_md5(folder / file, md5)

    class Unchecked(Flowers102):  # type: ignore[misc]
        def _check_integrity(self) -> bool:
            return True

    def read(split: str) -> DatasetSplit:
        found = _reading(folder, lambda: list(Unchecked(base, split=split, loader=lambda path: path)))
        names = [str(Path(path).relative_to(base)) for path, _ in found]
        kept = None if cache is None else Path(cache).expanduser()
        images = LazyImages(base, names, image_size=image_size, resize=resize, cache=kept)
        return DatasetSplit(images, torch.tensor([label for _, label in found]))

    return Dataset(
        "flowers102", tuple(Flowers102.classes), read("train"), read("test"), read("val"), mean=mean, std=std
    )


def _load_mnist(
    name: str,
    source: "type[MNIST]",
    root: str,
    download: bool,
    verify: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Dataset:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    base = Path(root).expanduser()
    folder = base / source.__name__ / "raw"
    archives = {folder / archive: md5 for archive, md5 in source.resources}
    files = [archive.with_suffix("") for archive in archives]
    origin = Source(name, [f"{source.mirrors[0]}*.gz"], [f"{source.__name__}/raw/"])
    _provide(origin, base, files, download, lambda place: source(place, download=True))
    if verify:
        for archive, md5 in archives.items():
            _check_unpacked(archive, md5)

    def read(prefix: str) -> DatasetSplit:
        pixels, labels = folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"
        images_NHW: Tensor = _reading(pixels, lambda: read_image_file(str(pixels)))
        return DatasetSplit(images_NHW[..., None], _reading(labels, lambda: read_label_file(str(labels))))

    return Dataset(name, tuple(source.classes), read("train"), read("t10k"), mean=mean, std=std)


def _check_unpacked(archive: Path, md5: str) -> None:
    """Compares an archive with its MD5 and the file beside it with its content (that file has no known MD5)."""
    unpacked = archive.with_suffix("")
    advice = f"delete {archive.parent} and use data.download=true, or accept the files with data.verify=false"
    if not archive.is_file():
        raise InputError(f"{unpacked} cannot be verified without {archive.name} beside it: {advice}")
    check_md5(archive, md5)
    with gzip.open(archive) as expected:
        if expected.read() != unpacked.read_bytes():
            raise InputError(f"{unpacked} is not what {archive.name} unpacks to: it is cut or changed: {advice}")


def _provide(
    origin: Source, base: Path, needed: Sequence[Path], download: bool, load: Callable[[Path], object]
) -> None:
    if all(path.exists() for path in needed):
        return
    if not download:
        raise origin.missing(base)
    fetch(origin, base, load)


def _need_scipy(name: str) -> None:
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"data={name} needs scipy for its MATLAB files: pip install 'resnet-cli[data]'")


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives; its errors as one line that names `path`."""
    try:
        return read()
    except Exception as error:  # damaged files make torchvision's and scipy's readers raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read: {reason}") from None
