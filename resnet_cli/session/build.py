"""Build objects from config nodes. Below this module there are only plain keyword arguments.

Each function takes a node (`_target_` and its arguments as plain data, checked by `resnet_cli.config.validation`)
and what only the caller knows: sizes of the data, the device, the seed.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn

from resnet_cli.config.conversion import build_argument
from resnet_cli.config.counts import counted
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import Signature, locate, signature
from resnet_cli.data import Dataset, Loaders, make_loaders
from resnet_cli.data.former_data import former_data_accepted
from resnet_cli.data.group_checks import require_usable_groups
from resnet_cli.data.partition import Partition, SplitOptions
from resnet_cli.data.partition import partition as split_dataset
from resnet_cli.errors import InputError, describe_error, place_of
from resnet_cli.loggers import Logger, require_packages
from resnet_cli.optimizers import build_optimizer
from resnet_cli.schedules import GroupedSchedule
from resnet_cli.seeding import seed_everywhere
from resnet_cli.session.model_memory import build_within_memory
from resnet_cli.session.optimizer_options import StepTrial, require_no_nesterov
from resnet_cli.session.refusals import explain_refusal, require_kind, with_full_key
from resnet_cli.training.evaluation import LossFunction
from resnet_cli.training.freezing import Freezing
from resnet_cli.training.lookahead import lookahead_options
from resnet_cli.training.step import require_scores
from resnet_cli.training.teacher import Teacher
from resnet_cli.training.trainer import ClassifierTrainer


def instantiate(key: str, node: Node, provided: Mapping[str, Any]) -> Any:
    """Call a node's target with the node's arguments and those of `provided` that it has parameters for.

    Nodes among the arguments are instantiated first. A target that takes any keyword receives `num_classes`, the usual
    name, unless the node sets the number of classes under another name.

    Args:
        key: Full key of the node in the config, for error messages.
        node: `_target_` and arguments.
        provided: Values from the caller, under every name that a target may use.

    Raises:
        InputError: the target refused a value.
    """
    target = node["_target_"]
    known = signature(target)
    build_node = partial(instantiate, provided=provided)
    arguments = {
        name: build_argument(f"{key}.{name}", value, _annotation(known, name), build_node)
        for name, value in node.items()
        if name != "_target_"
    }
    arguments |= {name: value for name, value in provided.items() if name in known.parameters and name not in arguments}
    if known.open and "num_classes" in provided and not {"num_classes", "out_classes"} & set(arguments):
        arguments["num_classes"] = provided["num_classes"]
    try:
        if key == "model":
            return build_within_memory(target, partial(locate(target), **arguments))
        return locate(target)(**arguments)
    except InputError as error:
        own = set(known.parameters) - set(provided)
        raise InputError(*(with_full_key(key, problem, own) for problem in error.problems)) from error
    except ValueError as error:
        raise InputError(with_full_key(key, " ".join(str(error).split()) + place_of(error), set())) from error
    except (RuntimeError, TypeError, MemoryError) as error:
        reason = explain_refusal(error, target, known)
        if reason is None:
            raise
        raise InputError(f"{key}: {reason}") from error


def _annotation(known: Signature, name: str) -> Any:
    """Return the annotation of a parameter; `Any` if it is one of those that an open signature does not name."""
    return known.parameters[name].annotation if name in known.parameters else Any


def get_argument(node: Node, name: str) -> Any:
    """Return the node's argument `name`, or its target's default; None if the target has no such parameter."""
    if name in node:
        return node[name]
    parameter = signature(node["_target_"]).parameters.get(name)
    return parameter.default if parameter else None


def dataset(node: Node) -> Dataset:
    """Build the data set alone, before it is split.

    Raises:
        InputError: the target returns something else.
    """
    own, _ = CONFIG_GROUPS["data"].split_keys(node)
    built: Dataset = instantiate("data", own, {})
    require_kind("data", node, built, Dataset, "a resnet_cli.data.Dataset")
    return built


def batch_size(node: Node) -> int:
    """Return the number of training images in a batch."""
    known = CONFIG_GROUPS["data"].reader_parameters(signature(node["_target_"]).parameters)
    return int(node.get("batch_size", known["batch_size"].default))


def partition(node: Node, built: Dataset | None = None) -> Partition:
    """Build the data set, or take the one given, and split it as a run does; its images are not read."""
    _, options = CONFIG_GROUPS["data"].split_keys(node)
    chosen = {field.name: options[field.name] for field in fields(SplitOptions) if field.name in options}
    return split_dataset(dataset(node) if built is None else built, SplitOptions(**chosen))


def loaders(
    node: Node, *, device: torch.device, seed: int, augment_seed: int | None = None, is_new: bool = False
) -> Loaders:
    """Build the data set, split it, and return its loaders; `augment_seed` None is `seed`, `is_new` is for new runs."""
    _, options = CONFIG_GROUPS["data"].split_keys(node)
    built = dataset(node)
    if is_new:
        built.validate_new()
        require_usable_groups(built, options)
    if options.get("augment") is not None:
        options["augment"] = instantiate("data.augment", options["augment"], {})
    with former_data_accepted():  # new runs have been checked above
        made = make_loaders(built, device=device, seed=seed, **options)
    if augment_seed is not None:
        made.train.augment_seed = augment_seed
    return made


def model(node: Node, *, in_size: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """Build the model for images of `in_size` (C, H, W) and `num_classes` classes, and run it once on blank images.

    The random state is seeded first, so that equal seeds draw equal weights.

    Raises:
        InputError: the model does not run on images of this size, or returns scores of another shape.
    """
    seed_everywhere(seed)
    provided = {"in_size": in_size, "in_channels": in_size[0], "out_classes": num_classes, "num_classes": num_classes}
    built: nn.Module = instantiate("model", node, provided)
    require_kind("model", node, built, nn.Module, "a torch.nn.Module")
    size = "x".join(map(str, in_size))
    training = built.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            scores = built.eval()(torch.zeros(2, *in_size))
    except Exception as error:  # a user's class may raise anything
        reason = describe_error(error)
        raise InputError(f"model: {node['_target_']} does not run on images of {size}: {reason}") from error
    finally:
        built.train(training)
    require_scores(scores, f"{node['_target_']} returns")
    if tuple(scores.shape) != (2, num_classes):
        raise InputError(
            f"model: {node['_target_']} returns scores of shape {list(scores.shape)} for 2 images of {size}; "
            f"the data have {counted(num_classes, 'class')}, so it must be [2, {num_classes}]"
        )
    return built


def optimizer(
    node: Node, model: nn.Module, num_classes: int | None = None, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer over the model's parameter groups.

    Args:
        node: Its config.
        model: The network.
        num_classes: Number of its outputs, which tells the layers of its head.
        device: Where a step of another optimizer like it is tried; None tries none.

    Raises:
        InputError: the optimizer refused a value or cannot take a step, or an option or a pattern of `optimizer.groups`
            is wrong.
    """
    own, options = CONFIG_GROUPS["optimizer"].split_keys(node)
    trials: list[StepTrial] = []
    build_part = partial(_instantiate_optimizer, trials=trials)
    try:
        options["groups"] = {
            pattern: group
            if (own_node := group.get("optimizer")) is None
            else {**group, "optimizer": partial(build_part, f"optimizer.groups.{pattern}.optimizer", own_node)}
            for pattern, group in (options.get("groups") or {}).items()
        }
        factory = partial(build_part, "optimizer", own)
        built = build_optimizer(model, factory, num_classes=num_classes, **options)
    except InputError as error:
        raise InputError(*(p if p.startswith("optimizer") else f"optimizer.{p}" for p in error.problems)) from error
    if device is not None:
        for trial in trials:
            trial.require_step(device)
    return built


def _instantiate_optimizer(
    key: str, node: Node, groups: list[dict[str, Any]], trials: list[StepTrial]
) -> torch.optim.Optimizer:
    require_no_nesterov(key, node)
    trials.append(StepTrial(key, node["_target_"], lambda own: instantiate(key, node, {"params": own}), groups))
    built: torch.optim.Optimizer = instantiate(key, node, {"params": groups})
    require_kind(key, node, built, torch.optim.Optimizer, "a torch.optim.Optimizer")
    return built


def schedule(
    node: Node, *, total_steps: int, steps_per_epoch: int, groups: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[int], float]:
    """Build the schedule: a function of the step that returns a factor on the learning rate.

    Args:
        node: The schedule of the run.
        total_steps: Steps of the run.
        steps_per_epoch: Steps of an epoch.
        groups: `optimizer.groups`, of which some may have schedules of their own.
    """
    provided = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    built = _instantiate_schedule("schedule", node, provided)
    own = {
        pattern: _instantiate_schedule(f"optimizer.groups.{pattern}.schedule", group["schedule"], provided)
        for pattern, group in (groups or {}).items()
        if group.get("schedule") is not None
    }
    return GroupedSchedule(built, own) if own else built


def _instantiate_schedule(key: str, node: Node, provided: Mapping[str, int]) -> Callable[[int], float]:
    built: Callable[[int], float] = instantiate(key, node, provided)
    require_kind(key, node, built, Callable, "a function of the step")
    kinds = (Real, torch.Tensor)
    require_kind(key, node, built(0), kinds, "a function from the step to a number", "returned a function to a")
    return built


def trainer(
    node: Node,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    seed: int,
    loss_fn: LossFunction | None = None,
    **parts: bool | Teacher | Freezing | None,
) -> ClassifierTrainer:
    """Build the trainer.

    Args:
        node: Its node.
        model: The model.
        optimizer: Over its parameters.
        schedule: Factor on the learning rate.
        seed: The run's.
        loss_fn: None is cross-entropy, which the trainer smooths itself.
        **parts: `multi_label`, `teacher` and `freezing`, as far as the run has them.

    Raises:
        InputError: the trainer has no place for the teacher.
    """
    provided: dict[str, Any] = {
        "model": model, "loss_fn": loss_fn, "optimizer": optimizer, "schedule": schedule, "seed": seed, **parts,
    }  # fmt: skip
    if parts.get("teacher") is not None and "teacher" not in signature(node["_target_"]).parameters:
        raise InputError(f"teacher: {node['_target_']} takes none, as resnet_cli.ClassifierTrainer does")
    node, options = CONFIG_GROUPS["trainer"].split_keys(node)
    names = inspect.signature(lookahead_options).parameters
    provided["lookahead"] = lookahead_options(**{name: value for name, value in options.items() if name in names})
    if loss_fn is not None and "label_smoothing" in node:  # it is in the loss
        node = {**node, "label_smoothing": 0.0}
    built: ClassifierTrainer = instantiate("trainer", node, provided)
    require_kind("trainer", node, built, ClassifierTrainer, "a resnet_cli.ClassifierTrainer")
    return built


def loggers(nodes: Mapping[str, Node] | None) -> dict[str, Logger]:
    """Build the experiment loggers, by name.

    Raises:
        InputError: a package is not installed, or a target is no logger.
    """
    require_packages(nodes)
    built = {name: instantiate(f"logger.{name}", node, {}) for name, node in (nodes or {}).items()}
    for name, logger in built.items():
        if not isinstance(logger, Logger):
            raise InputError(f"logger.{name}: {type(logger).__name__} is not a subclass of resnet_cli.loggers.Logger")
    return built
