"""What the user chose, which a plan leaves as it is."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.validation import Settings

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

WHOLE_GROUPS = ("model", "optimizer", "schedule", "loss")  # an option that is typed brings all its values
# Keys of the same meaning: what is typed for the first is not planned for the second.
SAME_MEANING = {"trainer.label_smoothing": "loss.label_smoothing"}
AUGMENT = "data.augment"


def typed_values(composed: "Composed") -> dict[str, Any]:
    """Return the keys that the user typed, or that files of the user set, with their values in the config.

    The names of groups are among them, with the options that were chosen. A key that was taken away has the value None,
    and so has one whose value is null; the epochs of a run with a time budget do not count.
    """
    settings = composed.settings
    keys = {*composed.keys, *composed.in_files}
    typed = {key: composed.choices.get(key) or find_value(settings, key) for key in sorted(keys)}
    typed |= {group: target for group in WHOLE_GROUPS if (target := typed.get(f"{group}._target_")) is not None}
    typed |= {other: typed[key] for key, other in SAME_MEANING.items() if typed.get(key)}
    if not isinstance(settings["data"].get("augment"), Mapping):
        typed[AUGMENT] = None
    if settings["trainer"].get("time_budget") is not None:
        typed.pop(EPOCHS, None)  # the budget replaces those of a file, such as trainer=debug
    return typed


def find_value(settings: Settings, key: str) -> Any:
    """Return the value of a dotted key; None where there is none."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_typed(key: str, typed: Collection[str]) -> bool:
    """Return whether a key was typed, or something that it is a part of.

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
