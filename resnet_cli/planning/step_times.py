"""How many images a second a net trains on this machine, measured on a few steps of random images."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional as F

from resnet_cli.config.run_config import Node
from resnet_cli.session import build
from resnet_cli.training.device import resolve_device, resolve_precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Images of 32x32 pixels, or as many pixels, of a timed step on a CPU, where larger batches take as long for each image.
LARGEST_BATCH, LEAST_BATCH = 64, 4
MOST_STEPS = 5
MOST_SECONDS = 1.5  # after which no further step is timed


def images_per_second(
    nodes: Mapping[str, Node],
    in_size: tuple[int, int, int],
    classes: int,
    *,
    batch_size: int,
    device: str = "auto",
    precision: Any = "auto",
    cpu_bf16: bool = True,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Train a net on a few random batches and return its rate by the fastest of them.

    The state of the global random generator is kept.

    Args:
        nodes: The configs of the net and its optimizer, `model` and `optimizer`.
        in_size: (C, H, W).
        classes: K.
        batch_size: Images of a step.
        device: As `trainer.device`.
        precision: As `trainer.precision`.
        cpu_bf16: As `trainer.cpu_bf16`.
        clock: Returns seconds.

    Raises:
        InputError: The net does not run on images of this size.
    """
    place = resolve_device(device)
    if place.type == "cpu":
        largest = LARGEST_BATCH * 32 * 32 // (in_size[1] * in_size[2])
        batch_size = min(batch_size, LARGEST_BATCH, max(largest, LEAST_BATCH))
    dtype = DTYPES.get(resolve_precision(precision, place, cpu_bf16=cpu_bf16))
    with torch.random.fork_rng(devices=[]):
        net = build.model(nodes["model"], in_size=in_size, num_classes=classes, seed=0).to(place)
        net = net.to(memory_format=torch.channels_last)
        images = torch.randn(batch_size, *in_size, device=place).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(batch_size, device=place) % classes
        optimizer = build.optimizer(nodes["optimizer"], net)

        def step() -> None:
            with nullcontext() if dtype is None else torch.autocast(place.type, dtype):
                loss = F.cross_entropy(net(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()  # waits for the device

        step()  # warms up
        return batch_size / _fastest(step, clock)


def _fastest(step: Callable[[], None], clock: Callable[[], float]) -> float:
    """Return the seconds of the fastest of a few steps."""
    seconds: list[float] = []
    while len(seconds) < MOST_STEPS and sum(seconds) < MOST_SECONDS:
        start = clock()
        step()
        seconds.append(clock() - start)
    return max(min(seconds), 1e-9)
