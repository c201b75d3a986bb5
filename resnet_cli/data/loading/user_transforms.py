"""User-defined transforms of single images, with random numbers that depend only on (seed, epoch, sample).

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.loading.draws import SampleDraws
from resnet_cli.errors import InputError, describe_error
from resnet_cli.seeding import python_random_state_kept, seed_python

Transform = Callable[[Tensor], Any]

TRIALS = 4  # of each transform in its check, since its behaviour may be random


def apply_transforms(images_BCHW: Tensor, draws: SampleDraws, transforms: Sequence[Transform]) -> Tensor:
    """Apply transforms to each uint8 image in turn.

    The global random states of Python, NumPy and PyTorch are seeded for each image and restored afterwards. A transform
    that draws on a CUDA device draws other numbers there than on a CPU.

    Args:
        images_BCHW: uint8 images.
        draws: Source of the seeds.
        transforms: Each takes and returns a uint8 image [C, H, W].

    Raises:
        InputError: A transform returned something else.
    """
    changed = []
    with _global_streams_kept(images_BCHW.device):
        for image_CHW, seed in zip(images_BCHW.contiguous(), draws.bits("transforms", 1)[:, 0].tolist(), strict=True):
            _seed_global_streams(seed & (2**63 - 1), images_BCHW.device)
            changed.append(_apply_all(transforms, image_CHW))
    return torch.stack(changed)


def _apply_all(transforms: Sequence[Transform], image_CHW: Tensor) -> Tensor:
    for number, transform in enumerate(transforms):
        result = transform(image_CHW)
        problem = _problem(result, image_CHW)
        if problem:
            raise InputError(f"data.augment.transforms[{number}]: {_name(transform)} {problem}")
        image_CHW = result
    return image_CHW


def find_problems(transforms: Sequence[Transform], in_size: tuple[int, int, int]) -> list[str]:
    """Try each transform on an image of size (C, H, W); return a line for each that cannot be used."""
    problems = []
    with _global_streams_kept(torch.device("cpu")):
        for number, transform in enumerate(transforms):
            _seed_global_streams(number, torch.device("cpu"))
            problem = _try(transform, in_size) if callable(transform) else "is not a transform"
            if problem:
                problems.append(f"data.augment.transforms[{number}]: {_name(transform)} {problem}")
    return problems


def _try(transform: Transform, in_size: tuple[int, int, int]) -> str:
    """Return what is wrong with a transform, or an empty string."""
    for _ in range(TRIALS):
        image_CHW = torch.randint(0, 256, in_size, dtype=torch.uint8)
        try:
            result = transform(image_CHW.clone())
        except Exception as error:  # user-defined classes may raise anything
            size = "x".join(map(str, in_size))
            return f"does not take a uint8 image of {size}: {describe_error(error)}"
        if problem := _problem(result, image_CHW):
            return problem
    return ""


def _problem(result: Any, image_CHW: Tensor) -> str:
    """Return what is wrong with the result of a transform, or an empty string."""
    if not isinstance(result, Tensor):
        return f"returns a {type(result).__name__}, not an image: a transform takes and returns a uint8 tensor"
    if result.shape != image_CHW.shape:
        before, after = ("x".join(map(str, shape)) for shape in (image_CHW.shape, result.shape))
        return f"changes the size of the image from {before} to {after}, which must stay"
    if result.dtype != torch.uint8:
        return f"returns {str(result.dtype).removeprefix('torch.')}; it must stay uint8, which is normalised afterwards"
    return ""


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def _seed_global_streams(seed: int, device: torch.device) -> None:
    seed_python(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[_device_index(device)].manual_seed(seed)


@contextmanager
def _global_streams_kept(device: torch.device) -> Iterator[None]:
    devices = [_device_index(device)] if device.type == "cuda" else []
    with python_random_state_kept(), torch.random.fork_rng(devices=devices):
        yield


def _device_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
