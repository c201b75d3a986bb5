"""Refuse options of torch's optimizers whose types are right but which cannot be used for training here."""

from collections.abc import Iterator

import torch
from torch.optim import Optimizer

from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import locate
from resnet_cli.errors import InputError


def require_trainable(optimizer: Node, device: torch.device) -> None:
    """Raise an `InputError` if the optimizer's first step would fail on the device, a line for each key.

    Args:
        optimizer: The node of the group `optimizer`.
        device: Where the weights are.
    """
    problems = []
    for key, target, options in _parts("optimizer", optimizer):
        if not _is_torchs(target):
            continue  # a user's optimizer may give the names another meaning
        if options.get("capturable") is True and device.type != "cuda":
            problems.append(f"{key}.capturable: needs CUDA, and trainer.device is {device.type}; leave it out")
        if options.get("differentiable") is True:
            problems.append(f"{key}.differentiable: is for gradients through the update, not for training")
    if problems:
        raise InputError(*problems)


def _parts(key: str, node: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield the key, the target and the options of an optimizer, and those of its parameter groups."""
    yield key, node["_target_"], node
    for pattern, group in (node.get("groups") or {}).items():
        where, own = f"{key}.groups.{pattern}", group.get("optimizer")
        if own is None:
            yield where, node["_target_"], group
        else:
            yield from _parts(f"{where}.optimizer", own)


def _is_torchs(target: str) -> bool:
    """Return whether a target is one of torch's optimizers, or a class derived from one."""
    found = locate(target)
    bases = found.__mro__ if isinstance(found, type) else ()
    return any(base is not Optimizer and base.__module__.startswith("torch.optim") for base in bases)


def require_no_nesterov(key: str, node: Node) -> None:
    """Raise an `InputError` for values of SGD that exclude Nesterov momentum, which is on by default here."""
    if node["_target_"] != "torch.optim.SGD" or not node.get("nesterov"):
        return
    momentum, dampening = node.get("momentum", 0), node.get("dampening", 0)
    problems = [f"{key}.momentum=0"] if momentum == 0 else []
    problems += [f"{key}.dampening={dampening}"] if dampening != 0 else []
    if problems:
        raise InputError(*(f"{problem}: needs {key}.nesterov=false" for problem in problems))
