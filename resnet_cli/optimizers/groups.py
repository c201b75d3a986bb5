"""Parameter groups by pattern: options for parts of a network."""

import inspect
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.config.suggestions import did_you_mean, nearest_names
from resnet_cli.errors import InputError


def parameter_groups(
    model: nn.Module, *, decay_norm_and_bias: bool = True, groups: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters of a model into an optimizer's parameter groups, in the order of their names.

    A group has `params`, a `name` and only the options that differ from the optimizer's defaults, so that an optimizer
    with two sets of defaults (`Muon`) knows which options are set. Frozen parameters are left out.

    Args:
        model: Its `named_parameters` decide names and order.
        decay_norm_and_bias: False sets the weight decay of biases and of every parameter of at most one dimension
            (scales and shifts of normalisation layers) to 0, also where a pattern sets another.
        groups: Regular expression, searched in the qualified names -> options of the parameters that match; the first
            matching pattern wins. `lr` replaces the optimizer's learning rate, `lr_scale` multiplies it (in
            `apply_group_options`).

    Raises:
        InputError: a pattern is not a regular expression, or no parameter is left for it.
    """
    groups = groups or {}
    patterns = {pattern: _compile_pattern(pattern) for pattern in groups}
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    split: dict[tuple[str | None, bool], list[Tensor]] = defaultdict(list)
    for name, parameter in named:
        pattern = next((pattern for pattern, compiled in patterns.items() if compiled.search(name)), None)
        decays = decay_norm_and_bias or (parameter.ndim > 1 and not name.endswith("bias"))
        split[pattern, decays].append(parameter)

    used = {pattern for pattern, _ in split}
    unused = [pattern for pattern in groups if pattern not in used]
    if unused:
        raise InputError(*(_describe_unmatched(pattern, patterns[pattern], model) for pattern in unused))
    result: list[dict[str, Any]] = []
    for pattern in (None, *groups):
        for decays in (True, False):
            if (pattern, decays) in split:
                name = ("other" if groups else "all") if pattern is None else pattern
                options = dict(groups[pattern]) if pattern is not None else {}
                group = {**options, "params": split[pattern, decays], "name": name}
                result.append(group if decays else {**group, "name": f"{name}, no decay", "weight_decay": 0.0})
    return result


def build_optimizer(
    model: nn.Module,
    factory: Callable[..., torch.optim.Optimizer],
    *,
    decay_norm_and_bias: bool = True,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Build `factory(parameter_groups, **options)`, validate the options of the groups and apply their `lr_scale`.

    Args:
        model: Its trainable parameters are optimised.
        factory: An optimizer class.
        decay_norm_and_bias: See `parameter_groups`.
        groups: See `parameter_groups`.
        **options: Arguments of the factory.

    Raises:
        InputError: a pattern is invalid as in `parameter_groups`; a group has an option that the optimizer lacks, or an
            invalid value; the optimizer's step requires a closure.
    """
    optimizer = factory(parameter_groups(model, decay_norm_and_bias=decay_norm_and_bias, groups=groups), **options)
    apply_group_options(optimizer, groups or {})
    return optimizer


def apply_group_options(optimizer: torch.optim.Optimizer, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Validate the options of an optimizer's groups, and multiply each group's learning rate by its `lr_scale`.

    Args:
        optimizer: Built over `parameter_groups`.
        groups: See `parameter_groups`.

    Raises:
        InputError: an option is not one of the optimizer's or its value is not allowed, or the optimizer's step needs
            a closure.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(
            f"_target_: {type(optimizer).__name__} requires a closure that runs the model in each step; choose another"
        )
    defaults = {"lr_scale": 1.0, **optimizer.defaults}
    problems = [
        problem
        for pattern, overrides in groups.items()
        for key, value in overrides.items()
        if (problem := _check_option(f"groups.{pattern}.{key}", key, value, defaults))
    ]
    if problems:
        raise InputError(*problems)
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"groups: {pattern!r} is not a regular expression: {error}") from error


def _describe_unmatched(pattern: str, compiled: re.Pattern[str], model: nn.Module) -> str:
    """Return the problem of a pattern for which no parameter is left."""
    names = [name for name, _ in model.named_parameters()]
    if any(map(compiled.search, names)):
        return f"groups: {pattern!r} matches only parameters that are frozen or that an earlier pattern took"
    near = nearest_names(pattern.replace("\\", ""), names, count=3, cutoff=0.0)
    return f"groups: {pattern!r} matches no parameter; the nearest are {', '.join(near)}"


def _check_option(where: str, key: str, value: Any, defaults: Mapping[str, Any]) -> str | None:
    """Return the problem of a group's option, None if it is valid by the type of the optimizer's default."""
    if key not in defaults:
        return f"{where}: no such option{did_you_mean(key, defaults)} (allowed: {', '.join(defaults)})"
    expected = defaults[key]
    if isinstance(expected, bool):
        return None if isinstance(value, bool) else f"{where}={value!r}: allowed are true and false"
    if not isinstance(expected, int | float):
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_valid = is_number and math.isfinite(value) and value >= 0
    return None if is_valid else f"{where}={value!r}: allowed is a number of 0 or more"
