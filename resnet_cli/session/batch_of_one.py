"""Check the sizes of batches and micro-batches before the first step.

Batch norm cannot train on batches of one image where feature maps have a single pixel.
"""

import copy
from collections.abc import Callable, Collection

import torch
from torch import nn

from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import RunConfig
from resnet_cli.data import Loaders
from resnet_cli.distributed.ranks import Ranks, part_of
from resnet_cli.errors import InputError
from resnet_cli.session import build
from resnet_cli.session.shared_start import parts_of_batches
from resnet_cli.training.step import split_batch
from resnet_cli.training.trainer import ClassifierTrainer

BATCH_NORM_ERROR = "Expected more than 1 value per channel"  # of torch.nn.functional.batch_norm


def require_images_in_batches(
    config: RunConfig,
    trainer: ClassifierTrainer,
    loaders: Loaders,
    ranks: Ranks,
    num_batches: int,
    *,
    is_new: bool,
    is_former: bool,
) -> None:
    """Check that batches are not too small to be split, nor too small for the model's batch norm.

    Args:
        config: The config.
        trainer: The trainer, before its first step.
        loaders: The data.
        ranks: The ranks that share a batch.
        num_batches: Batches of an epoch that are trained on.
        is_new: Whether no earlier version has begun the run; else some checks are left out.
        is_former: Whether a version up to 0.2.0 has begun it.

    Raises:
        InputError: they are too small.
    """
    accumulate = build.get_argument(config.trainer, "accumulate") or 1
    if is_new and config.find is None:  # former versions accepted any number, and find=batch_size tries small batches
        require_micro_batches(accumulate, build.batch_size(config.data), ranks.size)
    channels, *full_size = loaders.in_size
    freezing = trainer.state.freezing
    resolution = trainer.stepper.resolution if is_new else None  # a resumed run may be past its smallest images

    def fails(*, in_last_only: bool) -> bool:
        height, width = full_size
        if resolution is not None:
            first, every = (num_batches - 1, num_batches) if in_last_only else (0, 1)
            steps = range(first, resolution.total_steps, every)
            height, width = min(map(resolution.size_at, steps), default=full_size)
        frozen = freezing.never_training if freezing is not None else ()
        return fails_on_one(trainer.model, (channels, height, width), frozen)

    require_no_batch_of_one(
        fails, samples=loaders.train.samples, batch_size=loaders.train.batch_size, num_batches=num_batches,
        accumulate=accumulate, parts=parts_of_batches(config.trainer, ranks), evenly=not is_former,
    )  # fmt: skip


def require_micro_batches(accumulate: int, batch_size: int, processes: int = 1) -> None:
    """Raise an `InputError` if a batch, or the part of it that a process gets, has too few images to be split.

    Args:
        accumulate: Micro-batches that a batch is split into.
        batch_size: Images in a full batch.
        processes: Number of processes that share a batch.
    """
    own = part_of(batch_size, 0, processes)
    images = own.stop - own.start
    if accumulate > images:
        whose = f"data.batch_size={batch_size}" + (f" on {processes} processes gives each" if processes > 1 else " has")
        raise InputError(
            f"trainer.accumulate={accumulate}: {whose} {counted(images, 'image')} in a batch; use at most {images}, or "
            "a larger data.batch_size"
        )


def require_no_batch_of_one(
    fails: Callable[..., bool],
    *,
    samples: int,
    batch_size: int,
    num_batches: int,
    accumulate: int,
    parts: int = 1,
    evenly: bool = True,
) -> None:
    """Check that the model can train on all batches of an epoch, before the first step.

    Args:
        fails: Returns whether the model cannot train on one image, in any batch or, with `in_last_only=True`, in the
            last ones of epochs.
        samples: Training images of an epoch; a multiple of `batch_size` if a short last batch is dropped.
        batch_size: Images in a full batch.
        num_batches: Batches of an epoch that are trained on.
        accumulate: Micro-batches that a batch is split into.
        parts: Number of processes or shards that a batch is divided among before it is split.
        evenly: Whether micro-batches differ by one image at most; see `resnet_cli.training.step.split_batch`.

    Raises:
        InputError: A batch or micro-batch has one image, and the model normalises single values over the batch.
    """
    remainder = samples % batch_size if num_batches * batch_size > samples else 0
    sizes = {min(batch_size, samples), *([remainder] if remainder else [])}
    smallest = {size: _smallest_part(size, accumulate, parts, evenly=evenly) for size in sorted(sizes)}
    bad_sizes = [size for size, images in smallest.items() if images == 1]
    if not bad_sizes or not fails(in_last_only=bad_sizes == [remainder]):
        return
    bad_size = bad_sizes[0]
    reason = "the model has a batch norm over single values, which cannot train on one image"
    if samples == 1:
        raise InputError(f"data: only 1 training image: {reason}; use more images")
    if bad_size == remainder and accumulate == parts == 1:
        raise InputError(
            f"data.batch_size={batch_size}: with {counted(samples, 'training image')}, the last batch of an epoch has "
            f"1 image: {reason}; use data.drop_last=true or another batch size"
        )
    if bad_size == 1:
        raise InputError(f"data.batch_size={batch_size}: {reason}; use a larger one")
    if parts > 1:
        raise InputError(
            f"data.batch_size={batch_size}: of a batch of {bad_size}, one of {parts} parts (trainer.processes, "
            f"trainer.shards) has 1 image: {reason}; use another batch size, or data.drop_last=true"
        )
    raise InputError(
        f"trainer.accumulate={accumulate}: leaves micro-batches of 1 image in a batch of {bad_size}: {reason}; use "
        "another trainer.accumulate or data.batch_size, or data.drop_last=true"
    )


def _smallest_part(size: int, accumulate: int, parts: int, *, evenly: bool) -> int:
    """Return the size of the smallest micro-batch of a batch."""
    own = [part_of(size, number, parts) for number in range(min(parts, size))]
    blanks = [torch.empty(part.stop - part.start) for part in own]
    return min(len(micro) for blank in blanks for micro, *_ in split_batch((blank, blank), accumulate, evenly=evenly))


def fails_on_one(model: nn.Module, in_size: tuple[int, int, int], frozen: Collection[nn.Module] = ()) -> bool:
    """Return True if a model's batch norm cannot train on one image.

    It is tried on the device `meta`, which computes shapes alone.

    Args:
        model: The model, which is not changed.
        in_size: (C, H, W) of the image.
        frozen: Layers that stay in evaluation mode.
    """
    names = [name for name, layer in model.named_modules() if layer in frozen]
    try:
        trial = copy.deepcopy(model).to("meta").train()
        for name in names:
            trial.get_submodule(name).eval()
        trial(torch.empty(1, *in_size, device="meta"))
    except ValueError as error:
        return str(error).startswith(BATCH_NORM_ERROR)
    except Exception:
        return False
    return False
