"""Which callables a stored config may name: parts of this package and of PyTorch, and those that the user names too.

A class in the config of a run folder or checkpoint is somebody else's choice of code to run. Names are checked here
before anything is imported; `resnet_cli.session.trusted_kinds` checks the objects before anything is called, since
`torch.nn` also holds functions and re-exports other modules.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from resnet_cli.config.groups import group_of
from resnet_cli.config.messages import Problem
from resnet_cli.config.source_files import definition, module_source
from resnet_cli.errors import InputError

PACKAGES = {
    "model": ("resnet_cli.models", "torch.nn", "torchvision.models"),
    "optimizer": ("resnet_cli.optimizers", "torch.optim"),
    "schedule": ("resnet_cli.schedules",),
    "loss": ("resnet_cli.losses", "torch.nn"),
    "distillation": ("resnet_cli.losses",),
    "data": ("resnet_cli.data",),
    "data.augment": ("resnet_cli.data",),
    "data.augment.transforms": ("torchvision.transforms",),
    "trainer": ("resnet_cli.training.trainer",),
    "logger": ("resnet_cli.loggers",),
}


def targets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every `_target_` of a config by the full key of its node, including those in lists."""
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
    """Refuse classes and functions that are defined outside the allowed packages; nothing is imported.

    Args:
        settings: A stored config, possibly with keys that the user set.
        named: `targets` of the user's own command and files; those are trusted.

    Raises:
        InputError: A line for each, with the override that allows it.
    """
    refuse_targets(
        {path: target for path, target in targets_to_check(settings, named) if not _defined_inside(path, target)}
    )


def own_class_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return the overrides that name a config's own classes, which a command needs to resume its run."""
    return [
        f"{path}._target_={target}"
        for path, target in targets_to_check(settings, {})
        if not _defined_inside(path, target)
    ]


def targets_to_check(settings: Mapping[str, Any], named: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the targets that need a check; those outside the config groups are unknown keys, refused elsewhere."""
    for path, target in targets(settings).items():
        if path.split(".")[0].split("[")[0] in PACKAGES and (path not in named or named[path] != target):
            yield path, target


def refuse_targets(found: Mapping[str, Any]) -> None:
    """Raise an `InputError` with a line for each target, by the key of its node; do nothing if there are none."""
    if found:
        raise InputError(*(Problem(f"{path}._target_", "untrusted", target) for path, target in found.items()))


def allowed_packages(path: str) -> tuple[str, ...]:
    """Return the packages that a node at this key may come from; models hold models, transforms transforms."""
    path = group_of(path)
    if path.startswith(("model.", "model[")):
        return PACKAGES["model"]
    if path.startswith("data.augment.transforms["):
        return PACKAGES["data.augment.transforms"]
    if path.count(".") == 1 and path.startswith("logger."):
        return PACKAGES["logger"]
    return PACKAGES.get(path, ()) if path != "logger" else ()


def is_inside(module: str, packages: tuple[str, ...]) -> bool:
    """Return whether a module is one of these packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _defined_inside(path: str, target: Any) -> bool:
    """Return whether a target is `module.name` with both the module and the definition in an allowed package."""
    packages = allowed_packages(path)
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    known = is_inside(module, packages) or module == "resnet_cli"  # the root re-exports
    if not known or not all(part.isidentifier() for part in target.split(".")):
        return False
    source = module_source(module)
    defined = definition(source, name) if source else None
    return defined is not None and is_inside(defined[0].name, packages)
