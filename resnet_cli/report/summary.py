"""What a table shows of its runs by default: typed overrides that differ, as columns or in short form."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from resnet_cli.config.suggestions import nearest_name
from resnet_cli.errors import InputError
from resnet_cli.report.keys import (
    ABSENT,
    RESUMED,
    Column,
    chosen_option,
    comparable_settings,
    comparison_key,
    format_cell,
    recorded_overrides,
    target_name,
    typed_overrides,
)
from resnet_cli.runs.reading import Run

ALL_COLUMNS = "all"  # for --columns: every key that varies
OVERRIDES = "overrides"  # heading of the column of overrides that have no column of their own
NO_COLUMN = ("experiment",)  # an override that is no key of the config, but decides many

Values = Mapping[str, Any]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a name for each key: its last part where that is unique, otherwise the key."""
    keys = list(keys)
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in keys}


def format_pairs(values: Values, names: Mapping[str, str]) -> str:
    """Format `name=value` pairs; keys without a value are left out."""
    return ", ".join(f"{names.get(k, k)}={format_cell(value)}" for k, value in values.items() if value != ABSENT)


def summarise(rows: Sequence[Values], runs: Sequence[Run]) -> tuple[list[str], list[dict[str, Any]]]:
    """Choose what rows of a table show of the keys that vary.

    A key is a column if all rows have it and at least half of them typed it. What else a row typed is shown in short
    form. Keys that nobody typed are added only where rows would look the same. If it is not recorded what was typed,
    every key that all rows have is a column. What runs were resumed with is always one.

    Args:
        rows: The values of the varying keys of each row, `ABSENT` where there are none.
        runs: A run of each row.

    Returns:
        The keys of the columns, and for each row the other keys with their values.
    """
    keys = [key for key in rows[0] if key != RESUMED] if rows else []
    marks = [key for key in rows[0] if key == RESUMED] if rows else []
    complete = [key for key in keys if all(row[key] != ABSENT for row in rows)]
    if any(recorded_overrides(run) is None for run in runs):
        return [*complete, *marks], [{key: row[key] for key in keys if key not in complete} for row in rows]
    typed = [typed_overrides(run) for run in runs]
    typed_keys = [{key for key in keys if _is_typed(key, own)} for own in typed]
    columns = [key for key in complete if 2 * sum(key in own for own in typed_keys) >= max(len(rows), 2)]
    others = [
        {
            **_differing_options(own, typed),
            **{key: _as_typed(key, row, own) for key in keys if key in mine and key not in columns},
        }
        for row, own, mine in zip(rows, typed, typed_keys, strict=True)
    ]
    for key in sorted((key for key in keys if key not in columns), key=lambda key: key not in complete):
        for i in _ambiguous_rows(key, rows, columns, others):
            others[i][key] = rows[i][key]
    return [*columns, *marks], others


def _is_typed(key: str, typed: Mapping[str, str]) -> bool:
    """Return whether an override sets the key, or a mapping that contains it."""
    return key in typed or any(key.startswith(f"{name}.") for name in typed if "." in name)


def _as_typed(key: str, row: Values, own: Mapping[str, str]) -> Any:
    """Return a value; of a config group the option as typed, where other runs' options are not known."""
    return own.get(key, row[key]) if "." not in key else row[key]


def _differing_options(own: Mapping[str, str], typed: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {
        name: own[name] for name in NO_COLUMN if name in own and len({other.get(name) for other in typed}) > 1
    }  # fmt: skip


def _ambiguous_rows(
    key: str, rows: Sequence[Values], columns: Sequence[str], others: Sequence[Values]
) -> list[int]:  # fmt: skip
    """Return the rows that would look like another row, from which they differ in `key`."""
    alike: dict[Any, list[int]] = {}
    for i, (row, other) in enumerate(zip(rows, others, strict=True)):
        shown = tuple(comparison_key(row[column]) for column in columns)
        alike.setdefault((shown, comparison_key(other)), []).append(i)
    return [
        i for found in alike.values() if len({comparison_key(rows[i][key]) for i in found}) > 1 for i in found
    ]  # fmt: skip


def averaged_keys(runs: Sequence[Run], names: Collection[str]) -> list[str]:
    """Return the keys that the user asks to average over; a key may be given by its last part.

    Raises:
        InputError: No run has such a key, or the last part is that of several.
    """
    if not names:
        return []
    settings = comparable_settings(runs)
    return _full_keys("--over", names, {key for run in runs for key in (*run.settings, *settings[run.folder])})


def _full_keys(flag: str, names: Collection[str], keys: Collection[str]) -> list[str]:
    """Return the keys for what the user typed: `optimizer.lr` for `lr`, if no other key ends with `.lr`."""
    found = [(name, [name] if name in keys else _keys_ending_with(name, keys)) for name in names]
    wrong = [(name, of_name) for name, of_name in found if len(of_name) != 1]
    if wrong:
        raise InputError(*(f"{flag} {name or repr(name)}: {_refusal(name, own, keys)}" for name, own in wrong))
    return [key for _, own in found for key in own]


def _keys_ending_with(name: str, keys: Iterable[str]) -> list[str]:
    return sorted(key for key in keys if name and key.endswith(f".{name}"))


def _refusal(name: str, found: Sequence[str], keys: Collection[str]) -> str:
    """Return why a name is refused, with the keys to choose from where there are several, or the nearest key."""
    own = sorted(key for key in keys if name and key.startswith(f"{name}."))
    if found or own:
        kind = "the last part of several keys" if found else "a group of keys"
        return f"{kind}; give one of {', '.join(found or own)}"
    by_last_part = {key.rpartition(".")[2]: key for key in sorted(keys, reverse=True)}
    near = nearest_name(name, sorted(keys)) or by_last_part.get(nearest_name(name, by_last_part), "")
    return f"no run has this key{f'; did you mean {near}?' if near else ''}"


def requested_columns(runs: Sequence[Run], varying: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """Return the columns that the user asks for: keys, groups, or `all` for every key that varies.

    Raises:
        InputError: No run has such a key, or the last part of a key is that of several.
    """
    known = {column.name: column for column in varying}
    settings = comparable_settings(runs)
    keys = {key for run in runs for key in (*run.settings, *settings[run.folder])}
    groups = {key.partition(".")[0] for key in keys if key.endswith("._target_")}
    found: dict[str, Column] = {}
    for name in _full_keys("--columns", names, {*known, *keys, *groups, ALL_COLUMNS}):
        if name == ALL_COLUMNS:
            found |= known
        elif name in known:
            found[name] = known[name]
        else:
            found[name] = Column(name, {run.folder: _value(name, run, settings[run.folder]) for run in runs})
    return list(found.values())


def _value(name: str, run: Run, settings: Values) -> Any:
    if f"{name}._target_" in settings and name not in settings:
        return chosen_option(name, run, typed_overrides(run)) or target_name(settings, name)
    return settings.get(name, run.settings.get(name, ABSENT))
