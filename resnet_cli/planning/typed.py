"""The keys that the user chose, which a plan does not change."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.validation import Settings

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

WHOLE_GROUPS = ("model", "optimizer", "schedule", "loss")  # a typed option sets all values of its group
CROP, RESIZED_CROP = "data.augment.crop", "data.augment.resized_crop"
# Keys of the same meaning: if the first is typed, the second is not planned.
SAME_MEANING = {"trainer.label_smoothing": "loss.label_smoothing", CROP: RESIZED_CROP, RESIZED_CROP: CROP}
AUGMENT = "data.augment"


def typed_values(composed: "Composed") -> dict[str, Any]:
    """Return the keys that the user typed, or that files of the user set, with their values in the config.

    Groups are included, with their chosen options. The value of a deleted key, or of one set to null, is None. The
    number of epochs is left out if there is a time budget.
    """
    settings = composed.settings
    keys = {*composed.keys, *composed.in_files}
    typed = {key: composed.choices.get(key) or find_value(settings, key) for key in sorted(keys)}
    typed |= {group: target for group in WHOLE_GROUPS if (target := typed.get(f"{group}._target_")) is not None}
    typed |= {other: typed[key] for key, other in SAME_MEANING.items() if typed.get(key) and other not in typed}
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
