"""Images with equal pixels, found by hashes: copies within a split, and images shared by two splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.hashes import hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.selection import Samples

MAX_BYTES = 2**30  # of images in memory to hash (about 5 s); images of files are hashed when decoded


def known_hashes(split: DatasetSplit) -> Tensor | None:
    """Return a hash of the pixels of each image, int64 [N]; None if that would need a pass over them.

    Args:
        split: The images. Image files are hashed when they are decoded for another reason.
    """
    images = split.images
    if isinstance(images, LazyImages):
        return images.hashes()
    return hash_images(images) if split.nbytes <= MAX_BYTES else None


def describe_image(split_name: str, split: DatasetSplit, index: int) -> str:
    """Return the file of an image in messages, its name in `splits.json`, or its number if the split has no names."""
    images = split.images
    if isinstance(images, LazyImages):
        return images.source.describe(index)
    return f"{split_name} image {index}" if split.names is None else split.names[index]


def match_hashes(hashes_N: Tensor, others_M: Tensor) -> Tensor:
    """Return the index of the first of `others_M` that equals each of `hashes_N`, or -1: int64 [N]."""
    if not len(others_M):
        return torch.full_like(hashes_N, -1)
    ordered, order = others_M.sort(stable=True)
    places = torch.searchsorted(ordered, hashes_N).clamp(max=len(ordered) - 1)
    return torch.where(ordered[places] == hashes_N, order[places], -1)


@dataclass(frozen=True)
class SharedImages:
    """Images of a split that are also in another split.

    Args:
        count: Number of shared images.
        first: Name of the first one.
        twin: Name of the equal image of the other split.
    """

    count: int
    first: str
    twin: str


class LeakCheck:
    """Finds images of a split that are also in another one, without decoding any files for it.

    Args:
        samples: The samples of `train`, `test` and, if there is one, `val`.
    """

    def __init__(self, samples: Mapping[str, Samples]) -> None:
        self.samples = samples
        self._hashes: dict[int, Tensor] = {}  # hashes of tensors, by `id(split)`

    def find(self, name: str, within: str = "train") -> SharedImages | None:
        """Return the images of a split that are also in another one; None if there are none or `is_known` is false."""
        hashes, others = self._selected_hashes(name), self._selected_hashes(within)
        if hashes is None or others is None:
            return None
        matches = match_hashes(hashes, others)
        found = (matches >= 0).nonzero().flatten()
        if not len(found):
            return None
        first = int(found[0])
        return SharedImages(len(found), self._describe(name, first), self._describe(within, int(matches[first])))

    def is_known(self, name: str, within: str = "train") -> bool:
        """Return whether the pixels of both splits have been hashed."""
        return all(self._split_hashes(self.samples[each].split) is not None for each in (name, within))

    def _selected_hashes(self, name: str) -> Tensor | None:
        samples = self.samples[name]
        hashes = self._split_hashes(samples.split)
        return None if hashes is None else hashes[samples.indices]

    def _split_hashes(self, split: DatasetSplit) -> Tensor | None:
        if isinstance(split.images, LazyImages):
            return split.images.hashes()
        if id(split) not in self._hashes:
            hashes = known_hashes(split)
            if hashes is None:
                return None
            self._hashes[id(split)] = hashes
        return self._hashes[id(split)]

    def _describe(self, name: str, position: int) -> str:
        samples = self.samples[name]
        is_held_out = name == "val" and samples.split is self.samples["train"].split
        return describe_image("train" if is_held_out else name, samples.split, int(samples.indices[position]))
