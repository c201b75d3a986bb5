"""What a stored config may name: parts of this package and of PyTorch. Anything else only if the user names it too.

A class in a config that came with a run folder or checkpoint is somebody else's choice of code to run. The names are
judged before anything is imported, and what they stand for before anything is called: `torch.nn` also holds functions,
and modules that hold others.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from resnet_cli.config.signatures import locate
from resnet_cli.config.source_files import definition, module_source
from resnet_cli.config.values import shown
from resnet_cli.errors import InputError

PACKAGES = {
    "model": ("resnet_cli.models", "torch.nn", "torchvision.models"),
    "optimizer": ("resnet_cli.optimizers", "torch.optim"),
    "schedule": ("resnet_cli.schedules",),
    "data": ("resnet_cli.data",),
    "data.augment": ("resnet_cli.data",),
    "trainer": ("resnet_cli.training.trainer",),
    "logger": ("resnet_cli.loggers",),
}


def targets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every `_target_` of a config by the full key of its node, those in lists too."""
    return dict(_targets("", settings))


def _targets(path: str, value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield path, value["_target_"]
        for key, item in value.items():
            yield from _targets(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _targets(f"{path}[{index}]", item)


def check_names(settings: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Refuse classes and functions that are defined outside; imports nothing.

    Args:
        settings: A stored config, perhaps with settings of the user on top.
        named: `targets` of what the user's own command and files name; those are not judged.

    Raises:
        InputError: a line for each, with what to type.
    """
    _refuse({path: target for path, target in _unnamed(settings, named) if not _defined_inside(path, target)})


def to_name_again(settings: Mapping[str, Any]) -> list[str]:
    """The overrides that a command needs to go on with a run of this config: its classes from outside, named."""
    return [f"{path}._target_={target}" for path, target in _unnamed(settings, {}) if not _defined_inside(path, target)]


def check_kinds(settings: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Refuse what is no model, optimizer, ... although it is defined in the right package; imports that package.

    Args:
        settings: What `check_names` has accepted.
        named: As there.

    Raises:
        InputError: a line for each, with what to type.
    """
    _refuse({path: target for path, target in _unnamed(settings, named) if not _is_of_kind(path, target)})


def _unnamed(settings: Mapping[str, Any], named: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is to be judged; the check of the keys refuses whatever is in no part of a config."""
    for path, target in targets(settings).items():
        if path.split(".")[0].split("[")[0] in PACKAGES and (path not in named or named[path] != target):
            yield path, target


def _refuse(found: Mapping[str, Any]) -> None:
    if found:
        raise InputError(
            *(
                f"{path}._target_: {shown(target)} is named by a stored config alone and is no part of resnet-cli, "
                f"torch.nn, torch.optim or torchvision.models that belongs there; if you know it, give "
                f"{path}._target_={shown(target)} or trust=true"
                for path, target in found.items()
            )
        )


def _packages(path: str) -> tuple[str, ...]:
    """Where a node at this place may come from; models hold models, and `logger` trackers by name."""
    if path.startswith(("model.", "model[")):
        return PACKAGES["model"]
    if path.count(".") == 1 and path.startswith("logger."):
        return PACKAGES["logger"]
    return PACKAGES.get(path, ()) if path != "logger" else ()


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _defined_inside(path: str, target: Any) -> bool:
    """Whether a target is `module.name`, both the module and the source that defines the name being allowed."""
    packages = _packages(path)
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if not _inside(module, packages) or not all(part.isidentifier() for part in target.split(".")):
        return False
    source = module_source(module)
    defined = definition(source, name) if source else None
    return defined is not None and _inside(defined[0].name, packages)


def _is_of_kind(path: str, target: str) -> bool:
    try:
        found = locate(target)
    except Exception:  # a module of a package can need what is not installed
        return False
    if not _inside(getattr(found, "__module__", None) or "", _packages(path)):
        return False
    part = path.partition(".")[0].partition("[")[0]
    if part == "model":
        return _is_model(found)
    if part == "optimizer":
        from torch.optim import Optimizer

        return inspect.isclass(found) and issubclass(found, Optimizer)
    if part == "schedule":
        return inspect.isfunction(found) and not found.__name__.startswith("_")
    if part == "trainer":
        from resnet_cli.training.trainer import ClassifierTrainer

        return found is ClassifierTrainer
    if part == "logger":
        from resnet_cli.loggers import Tracker

        return inspect.isclass(found) and issubclass(found, Tracker)
    from resnet_cli import data

    if path == "data.augment":
        return found is data.Augment
    given_back = inspect.signature(found).return_annotation if inspect.isfunction(found) else None
    return given_back is data.Dataset and found in [getattr(data, name) for name in data.__all__]


def _is_model(found: Any) -> bool:
    """A `torch.nn.Module`, or a function that is known to make one."""
    from torch import nn
    from torchvision import models

    from resnet_cli.models import torchvision_model

    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    known = found.__name__ in models.list_models() and models.get_model_builder(found.__name__) is found
    return found is torchvision_model or known
