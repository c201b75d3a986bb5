"""The keys that the user chose, which a plan does not change."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.run_config import DEFAULT_LOSS
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.signatures import NotFoundError, signature
from resnet_cli.config.validation import Settings

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

WHOLE_GROUPS = ("model", "optimizer", "schedule", "loss")  # a typed option sets all values of its group
CROP, RESIZED_CROP = "data.augment.crop", "data.augment.resized_crop"
# Keys of the same meaning: if the first is typed, the second is not planned.
SMOOTHING = "trainer.label_smoothing"
SAME_MEANING = {SMOOTHING: "loss.label_smoothing", CROP: RESIZED_CROP, RESIZED_CROP: CROP}
AUGMENT = "data.augment"
# Nodes whose keys are planned, with the classes that have all these keys.
USUAL_CLASSES = {
    AUGMENT: "resnet_cli.data.Augment", "trainer": "resnet_cli.ClassifierTrainer", "loss": DEFAULT_LOSS["_target_"],
}  # fmt: skip


def typed_values(composed: "Composed") -> dict[str, Any]:
    """Return the keys that the user typed, or that files of the user set, with their values in the config.

    Groups are included, with their chosen options. The value of a deleted key, or of one set to null, is None. The
    number of epochs is left out if there is a time budget.
    """
    settings = composed.settings
    keys = {*composed.keys, *composed.in_files}
    typed = {key: composed.choices.get(key) or find_value(settings, key) for key in sorted(keys)}
    typed |= {group: target for group in WHOLE_GROUPS if (target := typed.get(f"{group}._target_")) is not None}
    alike = {key: other for key, other in SAME_MEANING.items() if other not in typed}
    typed |= {other: typed[key] for key, other in alike.items() if _is_in_effect(key, typed.get(key))}
    if not isinstance(settings["data"].get("augment"), Mapping):
        typed[AUGMENT] = None
    if settings["trainer"].get("time_budget") is not None:
        typed.pop(EPOCHS, None)  # the budget replaces those of a file, such as trainer=debug
    return typed


def _is_in_effect(key: str, value: Any) -> bool:
    """Return whether a value decides what its key is about: 0 is no smoothing, but leaves the kind of crop open."""
    return value is not None if key == SMOOTHING else bool(value)


def keys_of_other_classes(settings: Settings, planned: Collection[str]) -> Iterator[str]:
    """Yield the planned keys that a plan cannot set, since the class of their node has no parameter of this name.

    Args:
        settings: The config.
        planned: The keys that plans choose.
    """
    for key in planned:
        node, _, name = key.rpartition(".")
        values = find_value(settings, node) if node in USUAL_CLASSES else None
        target = values.get("_target_") if isinstance(values, Mapping) else None
        if target is not None and target != USUAL_CLASSES[node] and name not in _parameters(node, target):
            yield key


def _parameters(node: str, target: str) -> set[str]:
    """Return the keys that the node of a class has; none if the class cannot be found."""
    with suppress(NotFoundError):
        own = signature(target).parameters
        group = CONFIG_GROUPS.get(node)
        return {*own, *(() if group is None else group.reader_parameters(own))}
    return set()


def find_value(settings: Settings, key: str) -> Any:
    """Return the value of a dotted key; None where there is none."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_typed(key: str, typed: Collection[str]) -> bool:
    """Return whether a key was typed, or a group or node that contains it.

    Args:
        key: The key.
        typed: The keys that were typed.
    """
    group, *parts = key.split(".")
    nodes = {".".join([group, *parts[: count + 1]]) for count in range(len(parts))}
    return key in typed or not nodes.isdisjoint(typed) or (group in WHOLE_GROUPS and group in typed)


def start_of_weights(settings: Settings) -> str | None:
    """Return where the weights of the net come from: `published`, `run` (`init_from`), or None."""
    model = settings["model"]
    if model.get("weights") is not None or model.get("pretrained"):
        return "published"
    return "run" if settings.get("init_from") else None


def least_batch(settings: Settings) -> int:
    """Return how many images a batch needs for the micro-batches, processes and repeats that the user set."""
    typed = [find_value(settings, key) for key in ("trainer.accumulate", "trainer.processes", f"{AUGMENT}.repeats")]
    micro_batches, processes, repeats = (value if isinstance(value, int) else 1 for value in typed)
    return max(micro_batches * processes, repeats)
