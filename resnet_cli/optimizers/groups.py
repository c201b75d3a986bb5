"""Parameter groups by pattern: options, optimizers and schedules for parts of a network."""

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from resnet_cli.config.groups import OWN_PARTS
from resnet_cli.config.ranges import TORCH_OPTIM, AtLeast, Bounds, Positive, Range
from resnet_cli.config.suggestions import did_you_mean, nearest_names
from resnet_cli.errors import InputError
from resnet_cli.optimizers.combined import CombinedOptimizer
from resnet_cli.optimizers.depth import with_rates_by_depth

Groups = Mapping[str, Mapping[str, Any]]

NOT_NEGATIVE = AtLeast(0)
# Options that cannot differ between groups: the constructor creates state from its own argument.
CONSTRUCTOR_OPTIONS = ("initial_accumulator_value",)


def parameter_groups(
    model: nn.Module,
    *,
    decay_norm_and_bias: bool = True,
    groups: Groups | None = None,
    layer_decay: Annotated[float, Bounds(gt=0, le=1)] | None = None,
    head_lr: Annotated[float, Positive()] | None = None,
    num_classes: int | None = None,
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
            `apply_group_options`). `optimizer` gives them an optimizer of their own (in `build_optimizer`). `schedule`
            gives them a schedule of their own; the group's `schedule` entry is then the pattern.
        layer_decay: Factor on the learning rate for each block from the head backwards (`resnet_cli.optimizers.depth`).
            Parameters of groups with a learning rate, a scale or an optimizer of their own keep theirs.
        head_lr: Learning rate of the head (`resnet_cli.heads`).
        num_classes: Number of classes, by which the head is found; None takes the last layer.

    Raises:
        InputError: a pattern is not a regular expression, or matches no parameter that earlier patterns have left.
    """
    split = [group for _, group in _split_by_pattern(model, groups or {}, decay_norm_and_bias=decay_norm_and_bias)]
    return with_rates_by_depth(split, model, layer_decay, head_lr, num_classes)


def build_optimizer(
    model: nn.Module,
    factory: Callable[..., torch.optim.Optimizer],
    *,
    decay_norm_and_bias: bool = True,
    groups: Groups | None = None,
    layer_decay: float | None = None,
    head_lr: float | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Build `factory(parameter_groups, **options)`, validate the options of the groups and apply their `lr_scale`.

    Args:
        model: Its trainable parameters are optimised.
        factory: An optimizer class.
        decay_norm_and_bias: See `parameter_groups`.
        groups: See `parameter_groups`; the `optimizer` of a group is a function of its parameter groups.
        layer_decay: See `parameter_groups`.
        head_lr: See `parameter_groups`.
        num_classes: See `parameter_groups`.
        **options: Arguments of the factory.

    Returns:
        The optimizer; if groups have optimizers of their own, a `CombinedOptimizer` of `factory`'s and theirs.

    Raises:
        InputError: a pattern is invalid as in `parameter_groups`; a group has an option that its optimizer lacks, or an
            invalid value; no parameter is left for `factory`; an optimizer's step requires a closure.
    """
    groups = groups or {}
    split: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for pattern, group in _split_by_pattern(model, groups, decay_norm_and_bias=decay_norm_and_bias):
        has_own = pattern is not None and groups[pattern].get("optimizer") is not None
        split[pattern if has_own else None].append(group)
    if split and None not in split:
        raise InputError("groups: all parameters have optimizers of their own; leave `optimizer` out of one group")
    by_depth = with_rates_by_depth(split.pop(None, []), model, layer_decay, head_lr, num_classes)
    optimizer = factory(by_depth, **options)
    apply_group_options(optimizer, groups)
    built = [optimizer]
    for pattern, own_groups in split.items():
        assert pattern is not None
        built.append(groups[pattern]["optimizer"](own_groups))
        _require_no_closure(built[-1], f"groups.{pattern}.optimizer.")
    return built[0] if len(built) == 1 else CombinedOptimizer(built)


def apply_group_options(optimizer: torch.optim.Optimizer, groups: Groups) -> None:
    """Validate the options of an optimizer's groups, and multiply each group's learning rate by its `lr_scale`.

    Args:
        optimizer: An optimizer built from `parameter_groups`.
        groups: See `parameter_groups`.

    Raises:
        InputError: an option is not one of the optimizer's or its value is not allowed, or the optimizer's step needs
            a closure.
    """
    _require_no_closure(optimizer, "")
    defaults = {"lr_scale": 1.0, **optimizer.defaults}
    is_known = type(optimizer).__module__.partition(".")[0] in ("torch", "resnet_cli")
    limits = {**TORCH_OPTIM, "lr": NOT_NEGATIVE} if is_known else {}
    problems = [
        problem
        for pattern, overrides in groups.items()
        for key, value in overrides.items()
        if key not in OWN_PARTS
        and (
            problem := _check_option(f"groups.{pattern}.{key}", key, value, defaults, limits)
            if overrides.get("optimizer") is None
            else f"groups.{pattern}.{key}: has no effect beside an optimizer of the group's own; set its own options"
        )
    ]
    if problems:
        raise InputError(*problems)
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)


def match_parameters(model: nn.Module, patterns: Iterable[str]) -> Iterator[tuple[str | None, str, nn.Parameter]]:
    """Yield the trainable parameters in order: the first pattern that is found in the name or None, name, parameter.

    Raises:
        InputError: a pattern is not a regular expression.
    """
    compiled = {pattern: _compile_pattern(pattern) for pattern in patterns}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield next((pattern for pattern in compiled if compiled[pattern].search(name)), None), name, parameter


def _split_by_pattern(
    model: nn.Module, groups: Groups, *, decay_norm_and_bias: bool
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield (pattern, parameter group) pairs; the pattern is None for parameters that match none."""
    split: dict[tuple[str | None, bool], list[Tensor]] = defaultdict(list)
    for pattern, name, parameter in match_parameters(model, groups):
        decays = decay_norm_and_bias or (parameter.ndim > 1 and not name.endswith("bias"))
        split[pattern, decays].append(parameter)

    used = {pattern for pattern, _ in split}
    unused = [pattern for pattern in groups if pattern not in used]
    if unused:
        raise InputError(*(_describe_unmatched(pattern, model) for pattern in unused))
    for pattern in (None, *groups):
        options = dict(groups[pattern]) if pattern is not None else {}
        own = {key: options.pop(key, None) for key in OWN_PARTS}
        if own["schedule"] is not None:
            options["schedule"] = pattern
        for decays in (True, False):
            if (pattern, decays) in split:
                name = ("other" if groups else "all") if pattern is None else pattern
                group = {**options, "params": split[pattern, decays], "name": name}
                yield pattern, group if decays else {**group, "name": f"{name}, no decay", "weight_decay": 0.0}


def _require_no_closure(optimizer: torch.optim.Optimizer, path: str) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        name = type(optimizer).__name__
        raise InputError(f"{path}_target_: {name} requires a closure that runs the model in each step; choose another")


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError) as error:  # a{99999999999}
        raise InputError(f"groups: {pattern!r} is not a regular expression: {error}") from error


def _describe_unmatched(pattern: str, model: nn.Module) -> str:
    """Return the error message for a pattern that matches no remaining parameter."""
    names = [name for name, _ in model.named_parameters()]
    if any(map(_compile_pattern(pattern).search, names)):
        return f"groups: {pattern!r} matches only parameters that are frozen or that an earlier pattern took"
    near = nearest_names(pattern.replace("\\", ""), names, count=3, cutoff=0.0)
    return f"groups: {pattern!r} matches no parameter; the nearest are {', '.join(near)}"


def _check_option(
    where: str, key: str, value: Any, defaults: Mapping[str, Any], limits: Mapping[str, Range]
) -> str | None:
    """Return what is wrong with a group's option, judged by the type of the optimizer's default; None if valid."""
    if key not in defaults:
        allowed = [*(name for name in defaults if name not in CONSTRUCTOR_OPTIONS), *OWN_PARTS]
        if key == "match":  # as in trainer.freeze
            return f"{where}: no such option; the pattern is the key, as in {{{value}: {{lr: 0.1}}}}"
        return f"{where}: no such option{did_you_mean(key, allowed)} (allowed: {', '.join(allowed)})"
    if key in CONSTRUCTOR_OPTIONS:
        return f"{where}: has no effect on a group; set optimizer.{key}"
    expected, limit = defaults[key], limits.get(key, NOT_NEGATIVE)
    if isinstance(expected, bool):
        return None if isinstance(value, bool) else f"{where}={value!r}: it takes true or false"
    if isinstance(expected, int | float):
        return None if _is_number(value, limit) else f"{where}={value!r}: it takes a number {limit}"
    if isinstance(expected, tuple | list):
        is_valid = isinstance(value, tuple | list) and len(value) == len(expected)
        if not (is_valid and all(_is_number(item, limit) for item in value)):
            return f"{where}={value!r}: it takes a list of {len(expected)} numbers {limit}"
    return None


def _is_number(value: Any, limit: Range) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value in limit  # type: ignore[operator]
