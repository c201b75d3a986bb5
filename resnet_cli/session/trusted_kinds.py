"""Check that what a stored config names is a model, an optimizer, ...: the second check, after import."""

import inspect
from collections.abc import Mapping
from typing import Any

from resnet_cli.config.groups import group_of
from resnet_cli.config.signatures import locate
from resnet_cli.config.trust import allowed_packages, check_names, is_inside, refuse_targets, targets_to_check
from resnet_cli.config.validation import check_part


def check_kinds(settings: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Raise an error for targets of the wrong kind although they are defined in an allowed package; imports it.

    Args:
        settings: A config that `check_names` has accepted.
        named: See `check_names`.

    Raises:
        InputError: one line for each, with the override that allows it.
    """
    refuse_targets(
        {path: target for path, target in targets_to_check(settings, named) if not _is_of_kind(path, target)}
    )


def check_node(group: str, node: Any, *, trust: bool, named: Mapping[str, str]) -> None:
    """Check a group's node of a stored config: what it names, its keys and its values.

    Raises:
        InputError: it names what is not allowed without `trust`, or is wrong; one line for each problem.
    """
    settings = {group: node}
    if not trust:
        check_names(settings, named)
    check_part(group, node)
    if not trust:
        check_kinds(settings, named)


def _is_of_kind(path: str, target: str) -> bool:
    try:
        found = locate(target)
    except Exception:  # a module of an allowed package may need a package that is not installed
        return False
    if not is_inside(getattr(found, "__module__", None) or "", allowed_packages(path)):
        return False
    group = group_of(path).partition(".")[0].partition("[")[0]
    if group == "model":
        return _is_model(found)
    if group == "optimizer":
        from torch.optim import Optimizer

        return inspect.isclass(found) and issubclass(found, Optimizer)
    if group == "schedule":
        return inspect.isfunction(found) and not found.__name__.startswith("_")
    if group == "loss":
        return _is_loss(found)
    if group == "distillation":
        from resnet_cli.losses import Distillation

        return found is Distillation
    if group == "trainer":
        from resnet_cli.training.trainer import ClassifierTrainer

        return found is ClassifierTrainer
    if group == "logger":
        from resnet_cli.loggers import Logger

        return inspect.isclass(found) and issubclass(found, Logger)
    if path.startswith("data.augment.transforms["):
        from torchvision.transforms.v2 import Transform

        return inspect.isclass(found) and issubclass(found, Transform)
    from resnet_cli import data

    if path == "data.augment":
        return found is data.Augment
    returned = inspect.signature(found).return_annotation if inspect.isfunction(found) else None
    return returned is data.Dataset and found in [getattr(data, name) for name in data.__all__]


def _is_loss(found: Any) -> bool:
    """Return True for a loss of this package or of `torch.nn`."""
    from torch.nn.modules.loss import _Loss

    from resnet_cli.losses import ClassLoss

    return inspect.isclass(found) and issubclass(found, ClassLoss | _Loss)


def _is_model(found: Any) -> bool:
    """Return True for a `torch.nn.Module`, or a function that is known to return one."""
    from torch import nn
    from torchvision import models

    from resnet_cli.models import timm_model, torchvision_model

    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    known = found.__name__ in models.list_models() and models.get_model_builder(found.__name__) is found
    return found in (timm_model, torchvision_model) or known
