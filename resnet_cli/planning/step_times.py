"""How many images per second a net trains on this machine, measured on random images, and what a budget allows."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from time import perf_counter

import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.config.run_config import Node
from resnet_cli.errors import is_out_of_memory
from resnet_cli.seeding import random_state_kept
from resnet_cli.session import build

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Images of 32x32 pixels, or the same number of pixels, in a timed step on a CPU: larger batches are no faster there.
LARGEST_BATCH, LEAST_BATCH = 64, 4
MOST_CALLS = 5
MOST_SECONDS = 1.5  # spent on gradients, and again on updates, after which no further call is timed
USABLE_SHARE = 0.85  # of the budget, for steps; the rest is for validation, saving and the test
LEAST_RESERVE = 10.0  # seconds of the budget that are kept for starting and planning
PLANNING_RESERVE = 5.0  # of these, for planning; so that plans from cached measurements do not depend on its time
# Of an epoch besides its steps: saving, logging and validation took 0.12 s on the digits and 0.14 s on 450 photographs
# with ResNet-8; the share above is for validation that takes longer.
EPOCH_SECONDS = 0.1


def images_per_second(
    nodes: Mapping[str, Node],
    in_size: tuple[int, int, int],
    classes: int,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    seconds: float = MOST_SECONDS,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Train a net on a few random batches and return its rate by the fastest of them.

    On a CPU, batches are smaller than those of the run; on CUDA they are its micro-batches. The update of the weights
    is timed by itself: it takes the same time for a batch of any size. The states of the global random generators
    are kept.

    Args:
        nodes: The configs of the net and its optimizer, `model` and `optimizer`; for CUDA also that of the `trainer`.
        in_size: (C, H, W).
        classes: K.
        batch_size: Images in a step of the run.
        device: Where it trains.
        precision: fp32, tf32, bf16 or fp16.
        seconds: Time spent on gradients, and again on updates, after which no further call is timed.
        clock: Returns seconds.

    Returns:
        The rate; 0 if a step does not fit into memory.

    Raises:
        InputError: The net does not run on images of this size, or the optimizer fails in a step.
    """
    images_of_step = _images_of_step(batch_size, in_size, device, parts_of_batch(nodes.get("trainer", {}), device))
    dtype = DTYPES.get(precision)
    with random_state_kept(device):
        net = build.model(nodes["model"], in_size=in_size, num_classes=classes, seed=0).to(device)
        memory_format = _memory_format(nodes, device)
        net = net.to(memory_format=memory_format)
        images = torch.randn(images_of_step, *in_size, device=device).contiguous(memory_format=memory_format)
        labels = torch.arange(images_of_step, device=device) % classes
        optimizer = build.optimizer(nodes["optimizer"], net, classes, device)
        parameter = next(net.parameters())

        def compute_gradients() -> None:
            with nullcontext() if dtype is None else torch.autocast(device.type, dtype):
                loss = F.cross_entropy(net(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()  # waits for the device

        def update() -> None:
            optimizer.step()
            parameter.sum().item()

        gradients, updated = _times((compute_gradients, update), seconds, clock)
        return 1 / (gradients / images_of_step + updated / batch_size)


def teacher_images_per_second(
    teacher: nn.Module,
    in_size: tuple[int, int, int],
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Return the images per second for which a teacher predicts classes; 0 if a batch does not fit into memory.

    Args:
        teacher: The network, on the device.
        in_size: (C, H, W) of its images.
        batch_size: Images in a step of the run.
        device: Where it is.
        precision: fp32, tf32, bf16 or fp16.
        clock: Returns seconds.
    """
    images_of_step = _images_of_step(batch_size, in_size, device)
    dtype = DTYPES.get(precision)
    images = torch.zeros(images_of_step, *in_size, device=device).contiguous(memory_format=torch.channels_last)

    def predict() -> None:
        with torch.no_grad(), nullcontext() if dtype is None else torch.autocast(device.type, dtype):
            teacher(images).sum().item()  # waits for the device

    [seconds] = _times((predict,), MOST_SECONDS, clock)
    return images_of_step / seconds


def parts_of_batch(trainer: Node, device: torch.device) -> int:
    """Return how many parts of a batch a GPU computes one after the other, or leaves to others; 1 elsewhere."""
    parts = [trainer.get(key) for key in ("accumulate", "processes")]
    return math.prod(part for part in parts if isinstance(part, int)) if device.type == "cuda" else 1


def _images_of_step(batch_size: int, in_size: tuple[int, int, int], device: torch.device, parts: int = 1) -> int:
    """Return how many images a timed step has; those of a part of the batch if it is split."""
    images = -(-batch_size // parts)
    if device.type == "cpu":
        largest = LARGEST_BATCH * 32 * 32 // (in_size[1] * in_size[2])
        images = min(batch_size, LARGEST_BATCH, max(largest, LEAST_BATCH))
    return max(2, images)  # batch norm may need two; the run says so


def _memory_format(nodes: Mapping[str, Node], device: torch.device) -> torch.memory_format:
    """Return the memory format of the net and its images: on CUDA, that of the run."""
    is_usual = device.type != "cuda" or bool(nodes["trainer"].get("channels_last"))
    return torch.channels_last if is_usual else torch.contiguous_format


def _times(calls: Sequence[Callable[[], None]], most_seconds: float, clock: Callable[[], float]) -> list[float]:
    """Return the seconds that each call takes, after all have been called once; infinite if memory does not suffice."""
    try:
        for call in calls:
            call()  # warms up
        return [_fastest(call, most_seconds, clock) for call in calls]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return [math.inf] * len(calls)


def _fastest(function: Callable[[], None], most_seconds: float, clock: Callable[[], float]) -> float:
    """Return the seconds that the fastest of a few calls takes."""
    seconds: list[float] = []
    while len(seconds) < MOST_CALLS and sum(seconds) < most_seconds:
        start = clock()
        function()
        seconds.append(clock() - start)
    return max(min(seconds), 1e-9)


def passes_in_budget(budget: float, rate: float, images: int) -> float:
    """Return how many passes over the training images fit into a time budget.

    Args:
        budget: What is left of the budget, in seconds.
        rate: Images per second that are trained.
        images: Number of training images.
    """
    seconds = max(0.0, min(USABLE_SHARE * budget, budget - LEAST_RESERVE))
    return seconds * rate / (images + EPOCH_SECONDS * rate)
