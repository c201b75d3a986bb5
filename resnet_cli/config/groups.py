"""The config groups: what their targets are, what a builder passes to them, and which other keys their nodes have."""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.signatures import Parameter, Signature, signature

# Packages that define no data sets or loggers for this program, whatever the parameters of their callables.
FOREIGN = frozenset({*sys.stdlib_module_names, "numpy", "torch", "torchvision"})


@dataclass(frozen=True)
class ConfigGroup:
    """A config group.

    Args:
        given: Arguments that the builder passes.
        readers: Further callables that read keys of its node.
        own_first: Keys of the readers that go to the target alone if it has a parameter of that name.
        kind: What its targets are, for the message about a target of another kind.
        is_of_kind: Returns whether the signature of a target fits the kind.
        foreign: Packages that have no targets of the kind.
    """

    given: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    own_first: tuple[str, ...] = ()
    kind: str = ""
    is_of_kind: Callable[[Signature], bool] = lambda target: True
    foreign: Collection[str] = ()

    def reader_parameters(self, own: Collection[str]) -> dict[str, Parameter]:
        """Return the parameters of the readers, for a target whose own parameters are `own`."""
        parameters = {name: p for reader in self.readers for name, p in signature(reader).parameters.items()}
        return {name: p for name, p in parameters.items() if not (name in self.own_first and name in own)}

    def passes(self, name: str, own: Collection[str]) -> bool:
        """Return whether the builder passes an argument, which is then no key, for a target whose parameters are `own`.

        What is passed to the readers alone may be a key of the target.
        """
        return name in self.given and not (name in self.own_first and name in own)

    def split_keys(self, node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split a node into the one that its target takes, and the options of the readers.

        A key that both have a parameter for goes to both, except those of `own_first`.
        """
        own_keys = signature(node["_target_"]).parameters
        reader_keys = self.reader_parameters(own_keys)
        own = {name: value for name, value in node.items() if name not in reader_keys or name in own_keys}
        return own, {name: value for name, value in node.items() if name in reader_keys}


CONFIG_GROUPS: Mapping[str, ConfigGroup] = {
    "model": ConfigGroup(given=("in_size", "in_channels", "out_classes", "num_classes")),
    "optimizer": ConfigGroup(
        given=("params", "model", "num_classes"),
        readers=("resnet_cli.optimizers.parameter_groups",),
        own_first=("model", "num_classes"),
        kind="an optimizer: it takes no params, as those of torch.optim do",
        is_of_kind=lambda target: target.open or "params" in target.parameters,
    ),
    "schedule": ConfigGroup(
        given=("total_steps", "steps_per_epoch"),
        kind="a schedule: it takes an optimizer. A schedule takes total_steps and steps_per_epoch and returns a "
        "function from the step to a factor on the learning rate, as resnet_cli.schedules.cosine does. "
        "Instead of CosineAnnealingLR use schedule=cosine, of OneCycleLR "
        "schedule=one_cycle, of StepLR and MultiStepLR schedule=multistep, of ConstantLR schedule=constant",
        is_of_kind=lambda target: "optimizer" not in target.parameters,
    ),
    "loss": ConfigGroup(
        given=("num_classes", "class_names", "class_counts", "image_count"),
        kind="a loss to build: name a class, such as torch.nn.CrossEntropyLoss, whose objects take input and target",
        is_of_kind=lambda target: {"input", "target"}.isdisjoint(target.parameters),
        foreign=sys.stdlib_module_names,
    ),
    "data": ConfigGroup(
        given=("dataset", "device", "seed"),
        readers=("resnet_cli.data.make_loaders",),
        own_first=("dataset", "device", "seed", "folds", "fold", "group", "splits", "classes", "merge", "label_noise"),
        kind="a data set: name a function that returns a resnet_cli.data.Dataset, as resnet_cli.data.image_folder does",
        foreign=FOREIGN,
    ),
    "trainer": ConfigGroup(
        given=("model", "loss_fn", "optimizer", "schedule", "seed", "multi_label", "lookahead", "teacher", "freezing"),
        readers=(
            "resnet_cli.training.time_budget.budget_seconds",
            "resnet_cli.training.lookahead.lookahead_options",
            "resnet_cli.training.tta.views_for_test",
            "resnet_cli.training.resolution.resolution_points",
            "resnet_cli.training.freezing.freeze_rules",
            "resnet_cli.distributed.options.process_options",
        ),
    ),
}
LOGGER = ConfigGroup(given=(), kind="a logger: name a subclass of resnet_cli.loggers.Logger", foreign=FOREIGN)

# Nodes inside the nodes of groups: those of the trainer get the seed of the run if they have such a parameter.
INNER_NODE, INNER_NODE_OF_TRAINER = ConfigGroup(), ConfigGroup(given=("seed",))

# Keys at which an entry of `optimizer.groups` can have a node of its own, of the config group of that name.
OWN_PARTS = ("optimizer", "schedule")


def inner_node(path: str) -> ConfigGroup:
    """Return the config group of a node inside the node of a group, by its key."""
    return INNER_NODE_OF_TRAINER if path.startswith("trainer.") else INNER_NODE


def group_of(path: str) -> str:
    """Return the config group that a node at this key belongs to; the key itself if it belongs to none."""
    key = path.rpartition(".")[2]
    return key if path.startswith("optimizer.groups.") and key in OWN_PARTS else path
