"""Stop building a network whose weights cannot fit into memory, before time is spent on drawing them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from resnet_cli.config.signatures import locate
from resnet_cli.data.loading.memory import memory_limit
from resnet_cli.errors import ModelTooLargeError

WEIGHTS_FRACTION = 0.5  # of main memory; the gradients need as much again
UNCHECKED_BYTES = 2**29  # of weights, which are taken to fit


def build_within_memory(target: str, build: Callable[[], Any]) -> Any:
    """Return what a function builds, unless its weights are too large for the memory of this machine.

    Weights are counted as they are registered. Once there are many, a class of this package is built without them to
    count all; other classes may have side effects.

    Args:
        target: Dotted name of the network.
        build: Builds it.

    Raises:
        ModelTooLargeError: it is too large.
    """
    total = 0
    own = locate(target)
    is_own = isinstance(own, type) and own.__module__.startswith("resnet_cli.")

    def count(parameter: nn.Parameter) -> None:
        nonlocal total
        if parameter.device.type != "cpu":
            return
        before, total = total, total + parameter.nbytes
        if before <= UNCHECKED_BYTES < total and is_own:
            _require_fit(target, _weights_without_storage(build))
        if total > UNCHECKED_BYTES:
            _require_fit(target, total)

    with _each_parameter(count):
        return build()


def _weights_without_storage(build: Callable[[], Any]) -> int:
    """Return the bytes of a network's weights; of a part of them if it cannot be built on PyTorch's meta device."""
    total = 0

    def count(parameter: nn.Parameter) -> None:
        nonlocal total
        total += parameter.nbytes

    with _each_parameter(count), torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            build()
        except Exception:  # an initialisation may need numbers
            return total
    return total


@contextmanager
def _each_parameter(call: Callable[[nn.Parameter], None]) -> Iterator[None]:
    """Call a function with every parameter that a module registers in this block."""

    def hook(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not is_lazy(parameter):
            call(parameter)

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _require_fit(target: str, size: int) -> None:
    memory = memory_limit()
    if size > WEIGHTS_FRACTION * memory:
        raise ModelTooLargeError(
            f"{target} is too large: its weights take {size / 2**30:,.0f} GiB, gradients need as much again, and "
            f"{memory / 2**30:,.0f} GiB of memory can be used here"
        )
