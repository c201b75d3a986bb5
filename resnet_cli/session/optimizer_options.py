"""Refuse optimizers, and options of torch's, whose types are right but which cannot be used for training here."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import locate
from resnet_cli.errors import InputError, describe_error, is_out_of_memory
from resnet_cli.seeding import random_state_kept
from resnet_cli.training.dynamo import step_optimizer


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


class StepTrial:
    """A step of another optimizer like one of the run, on a few weights of its own.

    It finds optimizers that are for sparse gradients only, and defects of a user's class. The optimizer of the run is
    not touched.

    Args:
        key: Full key of the optimizer.
        target: Its dotted name.
        build: Builds another one over parameter groups.
        groups: The parameter groups of the run, before they are given to its optimizer, which may change them.
    """

    def __init__(
        self, key: str, target: str, build: Callable[[list[dict[str, Any]]], Optimizer], groups: list[dict[str, Any]]
    ) -> None:
        self.key, self.target, self.build = key, target, build
        self.groups = [{**group, "params": _smallest_of_each_rank(group["params"])} for group in groups]

    def require_step(self, device: torch.device) -> None:
        """Raise an `InputError` if a step on dense gradients fails on a device."""
        with random_state_kept(device):
            try:
                optimizer = self.build([_on_device(group, device) for group in self.groups])
            except Exception:  # the optimizer of the run could be built, so weights of other sizes are to blame
                return
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.full_like(parameter, 1e-3)
            try:
                step_optimizer(optimizer)
            except Exception as error:  # of a user's class
                if is_out_of_memory(error):
                    return
                raise InputError(
                    f"{self.key}: {self.target} fails in its first step: {describe_error(error)}"
                ) from error


def _smallest_of_each_rank(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the smallest parameter of each number of dimensions."""
    ordered = sorted(parameters, key=Tensor.numel, reverse=True)
    return list({parameter.ndim: parameter for parameter in ordered}.values())


def _on_device(group: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a parameter group with copies of its parameters on a device."""
    own = {name: copy(value) for name, value in group.items()}
    return {**own, "params": [nn.Parameter(parameter.detach().to(device, copy=True)) for parameter in group["params"]]}


def require_no_nesterov(key: str, node: Node) -> None:
    """Raise an `InputError` for values of SGD that exclude Nesterov momentum, which is on by default here."""
    if node["_target_"] != "torch.optim.SGD" or not node.get("nesterov"):
        return
    momentum, dampening = node.get("momentum", 0), node.get("dampening", 0)
    problems = [f"{key}.momentum=0"] if momentum == 0 else []
    problems += [f"{key}.dampening={dampening}"] if dampening != 0 else []
    if problems:
        raise InputError(*(f"{problem}: needs {key}.nesterov=false" for problem in problems))
