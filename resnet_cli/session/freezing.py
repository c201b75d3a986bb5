"""What a run freezes in which steps: the positions of `trainer.freeze` as numbers of steps."""

from collections import defaultdict

import torch
from torch import Tensor

from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import signature
from resnet_cli.errors import InputError
from resnet_cli.heads import find_head
from resnet_cli.optimizers.groups import match_parameters
from resnet_cli.schedules import RunLength
from resnet_cli.training.freezing import FreezeRule, Freezing, FrozenSpan, freeze_rules


def build_freezing(trainer: Node, model: torch.nn.Module, length: RunLength) -> Freezing | None:
    """Return what a run freezes; None if it freezes nothing.

    Args:
        trainer: The trainer's node.
        model: Its parameters are frozen.
        length: Length of the run, by which positions become steps.

    Raises:
        InputError: a pattern matches nothing or everything, a position is malformed or not in the run, or the trainer
            cannot freeze.
    """
    spans = frozen_spans(trainer, length)
    if not spans:
        return None
    if "freezing" not in signature(trainer["_target_"]).parameters:
        raise InputError(f"trainer.freeze: {trainer['_target_']} takes no `freezing`, as ClassifierTrainer does")
    return Freezing(model, spans)


def require_trained_groups(
    optimizer: Node, model: torch.nn.Module, freezing: Freezing, num_classes: int | None = None
) -> None:
    """Refuse options of the optimizer for parameters that are frozen for the whole run.

    Args:
        optimizer: The node of the group `optimizer`, which has been built.
        model: The model.
        freezing: What the run freezes.
        num_classes: Number of classes, by which the model's head is found; None takes its last layer.

    Raises:
        InputError: `optimizer.head_lr` or a pattern of `optimizer.groups` is only for such parameters.
    """
    never = freezing.never_trained
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for pattern, _, parameter in match_parameters(model, optimizer.get("groups") or {}):
        if pattern is not None:
            parts[f"optimizer.groups: {pattern!r} matches only"].append(parameter)
    head = [parameter for layer in find_head(model, num_classes) for parameter in layer.parameters()]
    if head and optimizer.get("head_lr") is not None:
        parts[f"optimizer.head_lr={optimizer['head_lr']:g} applies only to"] += head
    problems = [
        f"{part} parameters that trainer.freeze freezes for the whole run"
        for part, own in parts.items()
        if never.issuperset(own)
    ]
    if problems:
        raise InputError(*problems)


def frozen_spans(trainer: Node, length: RunLength) -> list[FrozenSpan]:
    """Return the spans of steps of `trainer.freeze`.

    Args:
        trainer: The trainer's node.
        length: Length of the run.

    Raises:
        InputError: a position is malformed or beyond the end of the run, or nothing is frozen in any run.
    """
    spans: list[FrozenSpan] = []
    problems: list[str] = []
    for rule in freeze_rules(trainer.get("freeze")):
        try:
            spans.append(_span(rule, length))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return spans


def _is_rounded(position: object) -> bool:
    """Return True for a position that a short run may round to the step of another one."""
    return isinstance(position, float) or (isinstance(position, str) and "step" not in position)


def _span(rule: FreezeRule, length: RunLength) -> FrozenSpan:
    given = {"at": rule.at, "until": rule.until}
    steps = {
        name: length.parse_positions([position], f"{rule.key}.{name}")[0]
        for name, position in given.items()
        if position is not None
    }
    at, until = steps.get("at", 0), steps.get("until")
    end_step = length.total_steps if until is None else until
    if at > end_step or (at == end_step and not any(map(_is_rounded, given.values()))):
        end = f"until={rule.until!r} (step {until})" if until is not None else f"the run's end at step {at}"
        begin = f"at={rule.at!r} (step {at})" if rule.at is not None else "the run's beginning"
        raise InputError(f"{rule.key}: nothing is frozen from {begin} to {end}; until has to come after at")
    return FrozenSpan(rule.match, at, until)
