"""Keep torch.compile's compiler, torch._dynamo, out of runs that do not use it, and its state out of other runs.

Its import takes over a second and 170 MB. Methods of `Optimizer` import it when an optimizer is made, loaded, saved or
cleared, and twice in each step, to mark graph breaks for a surrounding compiled loop. No such loop is compiled here:
`compiled_step` compiles the code between those calls. PyTorch has no public switch for this, so this module
relies on two private details: the cache attribute `__dynamo_disable` of `torch._disable_dynamo`, and the decorator
`_use_grad` of `Optimizer.step`. It is tested with torch 2.11.0 and 2.14.1. Where these details change, torch's own
methods run: the start is slower, results are the same, and `tests/training/test_dynamo.py` fails.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch.optim import Optimizer

METHODS = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")  # decorated with `torch._disable_dynamo`
CACHE = "__dynamo_disable"  # attribute in which the decorator caches the function to call; read before the import


@contextmanager
def reset_compiler() -> Iterator[None]:
    """Reset torch.compile on exit: its caches are keyed by code object, which the jobs of a sweep share."""
    try:
        yield
    finally:
        if _has_compiled():
            torch._dynamo.reset()


def _has_compiled() -> bool:
    """Return True if torch.compile has traced anything in this process.

    If it has not, there is nothing to reset, and with CUDA `torch._dynamo.reset` would take seconds to import.
    """
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters)


@contextmanager
def without_dynamo_import() -> Iterator[None]:
    """Prevent the methods of `Optimizer` from importing dynamo inside this block: each is its own cached function."""
    methods = [getattr(getattr(Optimizer, name, None), "__wrapped__", None) for name in METHODS]
    patched = [method for method in methods if method is not None and not hasattr(method, CACHE)]
    for method in patched:
        setattr(method, CACHE, method)
    try:
        yield
    finally:
        for method in patched:
            delattr(method, CACHE)


def step_optimizer(optimizer: Optimizer) -> None:
    """Call `optimizer.step()` with its hooks; for torch's own optimizers, without importing dynamo."""
    for part in parts_of(optimizer):
        is_patched = "step" in vars(part)  # by a scheduler of torch, at any time
        step = None if is_patched else _undecorated(type(part).step)
        if step is None:
            part.step()
        else:
            step(part)


def parts_of(optimizer: Optimizer) -> Sequence[Optimizer]:
    """Return the parts of a `resnet_cli.optimizers.CombinedOptimizer`, or a list of the optimizer itself."""
    return getattr(optimizer, "combined_optimizers", (optimizer,))


@lru_cache(maxsize=32)
def _undecorated(method: Callable[..., Any]) -> Callable[[Optimizer], Any] | None:
    """Return a class's `step` with its hooks but without `_use_grad`; None if it has no such decorator."""
    decorated = getattr(method, "__wrapped__", None)
    plain = getattr(decorated, "__wrapped__", None)
    if plain is None or getattr(getattr(decorated, "__code__", None), "co_name", None) != "_use_grad":
        return None

    def step(self: Optimizer) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return plain(self)

    return Optimizer.profile_hook_step(step)
