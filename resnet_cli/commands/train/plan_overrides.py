"""The overrides of a command with `plan=`: their values, and the same command without the plan."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString

from resnet_cli.config.paths import config_dir, config_folders
from resnet_cli.config.run_config import NULL_GROUPS
from resnet_cli.hydra_app.sweep_params import PARAMS

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

RUN_KEYS = ("resume", "reproduce")
SEARCH_PATH = "hydra.searchpath"
DATA_KEYS_WITHOUT_EFFECT = ("data.fold", "data.split_seed", "data.workers")  # keys of data that do not affect a plan
KEYS_WITHOUT_EFFECT = ("seed", "name", "logger", *DATA_KEYS_WITHOUT_EFFECT)  # prefixes of keys that no plan uses


def key_of(override: Override) -> str:
    """Return the key or the group that an override sets."""
    return str(override.key_or_group)


def values_of(override: Override, options: Sequence[str]) -> list[Any]:
    """Return the values of an override: several if it sweeps, and only the lower end of an interval."""
    value = override.value()
    if not override.is_sweep_override():
        return [value]
    if isinstance(value, Glob):
        return [str(name) for name in value.filter(option_names(key_of(override), options))]
    if isinstance(value, IntervalSweep):
        return [value.start]
    return list(map(_without_quotes, override.sweep_iterator()))


def first_value(override: Override, options: Sequence[str]) -> Any:
    """Return the value of an override, or the first one if it sweeps; None if there is none."""
    return next(iter(values_of(override, options)), None)


def values_by_key(overrides: Sequence[Override], options: Sequence[str]) -> dict[str, Any]:
    """Return the first value of each override that a plan may depend on."""
    return {
        key: first_value(override, options)
        for override in overrides
        if not (key := key_of(override)).startswith(("hydra.", "hydra/", "seed")) and key not in ("plan", *RUN_KEYS)
    }


def option_names(group: str, options: Sequence[str]) -> list[str]:
    """Return the names of a group's options."""
    return sorted({file.stem for folder in config_folders(options) for file in (folder / group).glob("*.yaml")})


def _without_quotes(value: Any) -> Any:
    """Return an element of a sweep as plain data."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return list(map(_without_quotes, value))
    if isinstance(value, dict):
        return {_without_quotes(key): _without_quotes(item) for key, item in value.items()}
    return value


def compose_without_plan(
    overrides: Sequence[Override], options: Sequence[str], hydra_keys: Collection[str]
) -> "Composed":
    """Compose the config without the plan, with these keys of Hydra."""
    from resnet_cli.hydra_app.compose import compose_settings

    items, _ = without_plan(overrides, options, hydra_keys)
    return compose_settings(items, config_dir=config_dir(options))


def compose_each(override: Override, overrides: Sequence[Override], options: Sequence[str]) -> Iterator["Composed"]:
    """Compose the config without the plan for each option of a swept group, with the first value of other swept keys.

    Args:
        override: The override that sweeps over the options.
        overrides: The overrides of the command.
        options: Its options.
    """
    from resnet_cli.hydra_app.compose import compose_settings

    others = [other for other in overrides if other is not override]
    items, _ = without_plan(others, options, (SEARCH_PATH,))
    for value in values_of(override, options):
        option = f"{override.get_key_element()}={'null' if value is None else value}"
        yield compose_settings([*items, option], config_dir=config_dir(options))


def without_plan(
    overrides: Sequence[Override], options: Sequence[str], hydra_keys: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the overrides without the plan, with the first value of each swept key, and those of them that plans use.

    Args:
        overrides: The overrides of the command.
        options: Its options.
        hydra_keys: Keys of Hydra to keep.
    """
    items, first_values = [], []
    for override in overrides:
        key = key_of(override)
        is_kept = key in hydra_keys or (PARAMS in hydra_keys and key.startswith(f"{PARAMS}."))
        if key == "plan" or (key.partition(".")[0].partition("/")[0] == "hydra" and not is_kept):
            continue
        item = with_first_value(override, first_value(override, options))
        items.append(item)
        if override.is_sweep_override() and not key.startswith(KEYS_WITHOUT_EFFECT):
            first_values.append(item)
    return items, first_values


def with_first_value(override: Override, value: Any) -> str:
    """Return an override as it was typed, with only the first value if it sweeps."""
    if not override.is_sweep_override():
        is_null = override.value() == [] and key_of(override) in NULL_GROUPS  # `hydra_arguments` has translated it
        return f"{key_of(override)}=null" if is_null else str(override.input_line).removeprefix("++")
    is_listed = not isinstance(override.value(), Glob | IntervalSweep)
    text = next(override.sweep_string_iterator(), "null") if is_listed else str(value)
    return f"{override.get_key_element().removeprefix('++')}={text}"
