"""SVHN and Oxford Flowers-102, whose labels are in MATLAB files."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import PathText
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.cache import find_cache_folder
from resnet_cli.data.images.download import DownloadSource, download_if_allowed, verify_md5
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.resize import ImageSize, Interpolation, Resize
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

T = TypeVar("T")


@validate_arguments
def svhn(
    *,
    root: PathText,
    download: bool = True,
    verify: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load SVHN, cropped (Netzer et al. 2011): 73,257 + 26,032 house-number digits of 32x32.

    `root` contains `*_32x32.mat`, or a folder `svhn` or `SVHN` with these files. Arguments and errors are those of
    `mnist`. Needs scipy.
    """
    from torchvision.datasets import SVHN

    _require_scipy("svhn")
    split_list = {split: SVHN.split_list[split] for split in ("train", "test")}
    base = _first_folder_with(
        expand_home(root, "data.root"), ("", "svhn", "SVHN"), [name for _, name, _ in split_list.values()]
    )
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


@validate_arguments
def flowers102(
    *,
    root: PathText,
    image_size: ImageSize = 128,
    resize: Resize = "crop",
    interpolation: Interpolation = "bilinear",
    download: bool = True,
    verify: bool = True,
    cache: PathText | None = "~/.cache/resnet-cli/decoded",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load Oxford Flowers-102 (Nilsback & Zisserman 2008): 1,020 + 6,149 photographs, and 1,020 for validation.

    `root` contains `jpg/` and the label files, or a folder `flowers-102` with these. Needs scipy. `root`,
    `download`, `mean`, `std` and errors are those of `mnist`; `image_size`, `resize`, `interpolation` and `cache` are
    those of `image_folder`; `verify` compares the label files with their MD5.
    """
    from torchvision.datasets import Flowers102

    _require_scipy("flowers102")
    base, archives = expand_home(root, "data.root"), Flowers102._file_dict
    (labels_name, _), (splits_name, _) = archives["label"], archives["setid"]
    found = _first_folder_with(base, ("flowers-102", ""), ["jpg", labels_name, splits_name])
    label_files = {found / name: md5 for name, md5 in (archives["label"], archives["setid"])}

    def load(target: Path) -> None:
        Flowers102(target, download=True)
        (target / "flowers-102" / archives["image"][0]).unlink()

    urls = [Flowers102._download_url_prefix + name for name, _ in archives.values()]
    source = DownloadSource("flowers102", urls, ["flowers-102/"])
    _ensure_present(source, base, [found / "jpg", *label_files], load, download=download)
    if verify:
        _verify_files(label_files)
    labels = _read_matlab(found / labels_name, "labels")
    cache_folder = find_cache_folder(cache)

    def read_split(split: str) -> DatasetSplit:
        numbers = _read_matlab(found / splits_name, Flowers102._splits_map[split])
        prefix = found.relative_to(base)
        names = [str(prefix / "jpg" / f"image_{number:05d}.jpg") for number in numbers]
        images = LazyImages(
            base, names, image_size=image_size, resize=resize, cache=cache_folder, interpolation=interpolation
        )
        return DatasetSplit(images, torch.tensor([labels[number - 1] - 1 for number in numbers]))

    train, test, val = read_split("train"), read_split("test"), read_split("val")
    return Dataset("flowers102", tuple(Flowers102.classes), train, test, val, mean=mean, std=std)


def _ensure_present(
    source: DownloadSource,
    root: Path,
    required: Sequence[Path],
    load: Callable[[Path], object],
    *,
    download: bool,
) -> None:
    """Download the data set by `load` unless all `required` paths exist; raise `InputError` without `download`."""
    if not all(path.exists() for path in required):
        download_if_allowed(source, root, load, allowed=download)


def _first_folder_with(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path:
    """Return the first of `folders` in `root` that contains all `names`; the first one if none does."""
    candidates = [root / folder for folder in folders]
    return next((path for path in candidates if all((path / name).exists() for name in names)), candidates[0])


def _read_matlab(path: Path, name: str) -> list[int]:
    """Return the integers of an array in a MATLAB file."""
    from scipy.io import loadmat

    values: list[int] = _read_or_raise(path, lambda: loadmat(path)[name].astype(int).flatten().tolist())
    return values


def _verify_files(checksums: Mapping[Path, str]) -> None:
    for path, md5 in checksums.items():
        verify_md5(path, md5)


def _without_integrity_check(reader: type[T]) -> type[T]:
    """Return a subclass of a torchvision data set without checksum verification, which `_verify_files` has done."""
    return type(reader.__name__, (reader,), {"_check_integrity": lambda self: True})


def _require_scipy(name: str) -> None:
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"data={name} needs scipy for its MATLAB files: pip install 'resnet-cli[data]'")


def _read_or_raise(path: Path, read: Callable[[], Any]) -> Any:
    """Return the result of `read`; convert its errors to one-line `InputError`s that name `path`."""
    try:
        return read()
    except Exception as error:  # readers of torchvision and scipy raise exceptions of any type on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read: {reason}") from None
