"""Preprocessing: from image files, Pillow images, arrays and tensors to what a trained net takes.

Files are decoded and resized as for training and evaluation; see `resnet_cli.data.images.read`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.data.images.decode import Decoding
from resnet_cli.data.images.depth import NoRangeError, scale_to_8_bits
from resnet_cli.data.images.encoded import EncodedImage, name_in_errors
from resnet_cli.data.images.read import decode_image_unscaled, decode_unscaled
from resnet_cli.data.loading.batch_loader import Normalize
from resnet_cli.data.loading.geometry import enlarge_center
from resnet_cli.errors import InputError
from resnet_cli.session.build import get_argument

MODES = {1: "L", 3: "RGB"}  # by number of channels; for other numbers images keep their mode
NO_RANGE = ", but the run was trained without data.range and takes only unsigned values of 8 or 16 bits"
# Data sets of arrays, whose `data.range` applies to values of any type; that of image files does not apply to 8 bits.
ARRAYS = ("resnet_cli.data.arrays", "resnet_cli.data.datasets.arrays.arrays")
SCALED_TOGETHER_BYTES = 65_536  # images up to this size are scaled in batches, which would take much memory if larger


class Preprocessing:
    """Converts images of any kind to inputs of a trained net, as its validation images were.

    Args:
        decoding: How image files become uint8 pixels [H, W, C] of the net's size.
        in_size: Size (C, H, W) that the net takes.
        mean: Mean of each channel on the scale 0 to 1.
        std: Standard deviation of each channel on the scale 0 to 1.
        eval_crop: Fraction of the height and width of the central crop, which is enlarged to the size of the image.
        scales_bytes: Whether the range of `decoding` applies to arrays of uint8 and bool too.
    """

    def __init__(
        self,
        decoding: Decoding,
        in_size: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        eval_crop: float = 1.0,
        *,
        scales_bytes: bool = False,
    ) -> None:
        self.decoding, self.in_size, self.eval_crop = decoding, in_size, eval_crop
        self.scales_bytes = scales_bytes
        self.mean, self.std = tuple(mean), tuple(std)
        self._normalize = Normalize(mean, std)
        self._normalize(torch.zeros(1, *self._shape, dtype=torch.uint8))  # threads share what it keeps for a width

    @classmethod
    def of(cls, data_node: Mapping[str, Any], data: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a run.

        Args:
            data_node: Checked settings of group `data` of its config. Defaults of the function that `_target_` names
                apply to the others; without it, those of `Decoding`.
            data: The description of the data in its checkpoint: `in_size`, `mean` and `std`.
        """

        def setting(name: str, default: Any) -> Any:
            value = get_argument(data_node, name) if "_target_" in data_node else data_node.get(name)
            return default if value is None else value

        channels, height, width = data["in_size"]
        value_range = setting("range", setting("value_range", None))
        decoding = Decoding(
            mode=setting("mode", MODES.get(channels, "all")), image_size=(height, width),
            resize=setting("resize", "crop"), background=setting("background", "white"), value_range=value_range,
            interpolation=setting("interpolation", "bilinear"),
        )  # fmt: skip
        return cls(
            decoding, (channels, height, width), data["mean"], data["std"], setting("eval_crop", 1.0),
            scales_bytes=value_range is not None and data_node.get("_target_") in ARRAYS,
        )  # fmt: skip

    @property
    def _shape(self) -> tuple[int, int, int]:
        channels, height, width = self.in_size
        return height, width, channels

    def read(self, image: Any) -> Tensor:
        """Return one image as uint8 [H, W, C] in the size that the net takes.

        Args:
            image: A path, the bytes of a file, a binary file that is open, a Pillow image, or an array or tensor
                [H, W, C], [C, H, W] or [H, W] of uint8, or of the other types that the run was trained on.

        Raises:
            InputError: The image cannot be decoded, or has other channels than the net takes.
        """
        return self.read_all([image])[0]

    def read_all(self, images: Iterable[Any]) -> Tensor:
        """Return images as uint8 [N, H, W, C]; see `read`."""
        pixels = []
        for found in self.read_each(images):
            if isinstance(found, InputError):
                raise found
            pixels.append(found)
        return torch.stack(pixels) if pixels else torch.zeros(0, *self._shape, dtype=torch.uint8)

    def read_each(self, images: Iterable[Any]) -> "list[Tensor | InputError]":
        """Return what `read` returns or raises for each image; small images of equal size are scaled in batches."""
        found: list[Tensor | InputError] = []
        same_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            try:
                pixels = self._decode(image)
            except NoRangeError as error:
                found.append(InputError(f"{error.path}: {error.values} values{NO_RANGE}"))
                continue
            except InputError as error:
                found.append(error)
                continue
            if pixels.numel() <= SCALED_TOGETHER_BYTES:
                same_size.setdefault(pixels.shape, []).append(index)
            else:
                pixels = self.decoding.scaled(pixels)
            found.append(pixels)
        for indices in same_size.values():
            decoded_BHWC = torch.stack([cast(Tensor, found[index]) for index in indices])
            for index, scaled in zip(indices, self.decoding.all_scaled(decoded_BHWC), strict=True):
                found[index] = scaled
        return found

    def _decode(self, image: Any) -> Tensor:
        """Return one image as uint8 [H, W, C] in its original size; see `read`."""
        if isinstance(image, str | Path | EncodedImage):
            return self._checked(decode_unscaled(image, self.decoding)[0], image)
        if isinstance(image, bytes | bytearray):
            return self._decode(EncodedImage(bytes(image), "an image in memory"))
        if hasattr(image, "read"):
            return self._decode(_read_file(image))
        if isinstance(image, Tensor | np.ndarray):
            return self._from_array(image)
        if type(image).__module__.partition(".")[0] == "PIL" or hasattr(image, "getbands"):
            name = getattr(image, "filename", "") or "image"
            return self._checked(decode_image_unscaled(image, self.decoding), name)
        raise InputError(f"a {type(image).__name__} is not an image: pass paths, Pillow images, arrays or tensors")

    def normalize(self, images_BHWC: Tensor) -> Tensor:
        """Normalise uint8 images [B, H, W, C] for the net: float32 [B, C, H, W] in channels-last memory format."""
        if self.eval_crop != 1:
            cropped = enlarge_center(images_BHWC.permute(0, 3, 1, 2), self.eval_crop)
            images_BHWC = cropped.permute(0, 2, 3, 1).contiguous()
        return self._normalize(images_BHWC)

    def _from_array(self, image: "Tensor | np.ndarray[Any, Any]") -> Tensor:
        values = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
        channels = self.in_size[0]
        if values.ndim == 2 and channels == 1:
            values = values[:, :, None]
        elif values.ndim == 3 and values.shape[2] != channels and values.shape[0] == channels:
            values = values.transpose(1, 2, 0)
        if values.ndim != 3 or values.shape[2] != channels or 0 in values.shape:
            shape = "x".join(map(str, values.shape))
            raise InputError(
                f"an array of {shape} is not an image of {counted(channels, 'channel')}, [H, W, {channels}]"
            )
        if values.dtype not in (np.uint8, np.uint16, np.bool_) and self.decoding.value_range is None:
            raise InputError(f"{values.dtype} values{NO_RANGE}")
        if self.scales_bytes and values.dtype in (np.uint8, np.bool_):
            values = values.astype(np.uint16)  # a type to which the range applies
        return torch.from_numpy(np.array(scale_to_8_bits(values, self.decoding.value_range), order="C"))

    def _checked(self, image_HWC: Tensor, name: object) -> Tensor:
        """Return a decoded image after checking its channels: with `mode=all` a file may have any number."""
        if image_HWC.shape[2] != self.in_size[0]:
            raise InputError(f"{name}: {counted(image_HWC.shape[2], 'channel')}, but the net takes {self.in_size[0]}")
        return image_HWC


def _read_file(file: Any) -> EncodedImage:
    """Return the whole content of an open file, wherever its position is, as Pillow reads it.

    Raises:
        InputError: It is closed, cannot be read or was opened as text.
    """
    given = getattr(file, "name", None)
    name = given if isinstance(given, str) else "an image in an open file"
    with name_in_errors(name):
        if not hasattr(file, "seekable") or file.seekable():
            file.seek(0)
        content = file.read()
    if not isinstance(content, bytes | bytearray):
        raise InputError(f"{name}: opened as text; open image files with mode 'rb'")
    return EncodedImage(bytes(content), name)
