"""Optimizers of torch.optim apart from torch's compiler, whose import takes over a second and 170 MB.

They import `torch._dynamo` when they are made, read, filled or cleared, and call it twice in each step, to say where
compiled graphs of a surrounding loop must end. No such loop is compiled here: `compiled_step` compiles what lies
between these calls. Where torch's insides are not as they are known here, nothing is changed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

TIED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")  # methods that a graph must not go through
CACHE = "__dynamo_disable"  # where torch keeps, on the method, what it calls instead; looked at before the import


@contextmanager
def without_dynamo_import() -> Iterator[None]:
    """Inside this block those methods do not import the compiler."""
    methods = [getattr(getattr(Optimizer, name, None), "__wrapped__", None) for name in TIED]
    own = [method for method in methods if method is not None and not hasattr(method, CACHE)]
    for method in own:
        setattr(method, CACHE, method)
    try:
        yield
    finally:
        for method in own:
            delattr(method, CACHE)


def eager_step(optimizer: Optimizer) -> Callable[[], Any]:
    """`optimizer.step`, hooks included; of torch's own optimizers without the calls of the compiler."""
    marked = getattr(type(optimizer).step, "__wrapped__", None)
    plain = getattr(marked, "__wrapped__", None)
    marks = getattr(getattr(marked, "__code__", None), "co_name", None) == "_use_grad"
    if plain is None or not marks:
        return optimizer.step
    differentiable = optimizer.defaults["differentiable"]

    def step(self: Optimizer) -> Any:
        with torch.set_grad_enabled(differentiable):
            return plain(self)

    with_hooks = Optimizer.profile_hook_step(step)

    def take() -> Any:
        patched = vars(optimizer).get("step")  # torch's schedulers put one there, at any time
        return with_hooks(optimizer) if patched is None else patched()

    return take


def clear_gradients(optimizer: Optimizer) -> None:
    """`optimizer.zero_grad(set_to_none=True)`, in a third of the time where that is torch's own."""
    if getattr(optimizer.zero_grad, "__func__", None) is not Optimizer.zero_grad:
        optimizer.zero_grad(set_to_none=True)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
