"""Config keys that distinguish runs, and how they are shown: `model=resnet20` instead of its ten keys."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter
from pathlib import Path
from typing import Any

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.signatures import Opaque, signature
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.config.validation import CONFIG_GROUPS
from resnet_cli.config.values import format_value
from resnet_cli.report.runs import Run, natural

# What a run is called, where it runs and where its files are: no part of the comparison.
PRESENTATION = (SAFE_TO_CHANGE - {"trainer.epochs"}) | set(CONTROL_KEYS) | {"logger"}
PRESENTATION_NODES = ("hydra.", "logger.", "sweep.")
FOLDER_OF_IMAGES = "image_folder"  # the data set that data.root decides
ABSENT = "-"
OURS = r"(resnet_cli(\.(models|data|schedules|optimizers))?|torch\.optim)\.[A-Za-z]\w*"  # found in source text

PRESETS = CONFIG_FOLDER / "model"


@dataclass(frozen=True)
class Column:
    """A key that varies: its name, and its value for each run by the run's folder."""

    name: str
    values: Mapping[Path, Any]

    def of(self, run: Run) -> Any:
        """Return the run's value, `ABSENT` if it has none."""
        return self.values.get(run.folder, ABSENT)


def same(value: Any) -> Any:
    """Return a value in a form to compare and hash: 1 equals 1.0, but not true, and a list equals a tuple."""
    if isinstance(value, bool) or value is None:
        return (str(value),)
    if isinstance(value, list | tuple):
        return tuple(map(same, value))
    return str(value) if isinstance(value, dict) else value


def settings(runs: Sequence[Run]) -> dict[Path, dict[str, Any]]:
    """By folder the keys of each run that can make its result another, seed included.

    A key that a run lacks and another has is filled with its default: it is an option that was added since.
    """
    found = {run.folder: _own(run) for run in runs}
    keys = dict.fromkeys(key for own in found.values() for key in own)
    for own in found.values():
        for part in CONFIG_GROUPS:
            defaults = _defaults(part, own.get(f"{part}._target_"))
            own |= {key: defaults[key] for key in keys if key not in own and key in defaults}
    return found


@lru_cache(maxsize=256)
def _defaults(part: str, target: str) -> dict[str, Any]:
    """Defaults by full key of a part's options; none for targets from elsewhere, which would have to be imported."""
    if not isinstance(target, str) or not re.fullmatch(OURS, target):
        return {}
    found: dict[str, Any] = {}
    for source in (target, *CONFIG_GROUPS[part].readers):
        try:
            parameters = signature(source).parameters
        except Exception:  # of another version of this package
            continue
        found |= {f"{part}.{name}": p.default for name, p in parameters.items()}
    return {key: value for key, value in found.items() if value is not Parameter.empty and value is not Opaque}


def _own(run: Run) -> dict[str, Any]:
    data = str(run.leaves.get("data._target_", "")).rpartition(".")[2]
    kept = {
        key: value
        for key, value in run.leaves.items()
        if (key not in PRESENTATION or (key == "data.root" and data == FOLDER_OF_IMAGES))
        and not key.startswith(PRESENTATION_NODES)
    }
    start = run.record.get("start")
    if isinstance(start, str) and start != "scratch" and not re.match(r"epoch \d", start):
        kept["init_from"] = start
    return kept


def varying(runs: Sequence[Run], leave_out: Collection[str]) -> list[Column]:
    """Return the keys in which these runs differ, with options of groups in place of their keys.

    Args:
        runs: Runs to be compared.
        leave_out: Keys that are not to be told, such as `seed`.
    """
    leaves = settings(runs)
    order = dict.fromkeys(key for own in leaves.values() for key in own)
    columns = [Column(key, {f: own[key] for f, own in leaves.items() if key in own}) for key in order]
    differing = [c for c in columns if c.name not in leave_out and len({same(c.of(run)) for run in runs}) > 1]
    overrides = {run.folder: given(run) for run in runs}
    by_hand = {key for own in overrides.values() for key in own}
    shown_columns: list[Column] = []
    for part in CONFIG_GROUPS:
        own = [column for column in differing if column.name.startswith(f"{part}.")]
        label = _label(part, runs, leaves, overrides) if own else None
        if label is not None:
            shown_columns.append(label)
            own = [c for c in own if not _decides(label, c, runs) or (c.name in by_hand and c.name != label.name)]
            own = [c for c in own if c.name != f"{part}._target_"]
        shown_columns += own
    others = [c for c in differing if c.name.partition(".")[0] not in CONFIG_GROUPS]
    return [*shown_columns, *others]


def _decides(label: Column, column: Column, runs: Sequence[Run]) -> bool:
    """Whether runs of one label have one value."""
    values: dict[Any, set[Any]] = {}
    for run in runs:
        values.setdefault(same(label.of(run)), set()).add(same(column.of(run)))
    return all(len(found) == 1 for found in values.values())


def _label(
    part: str,
    runs: Sequence[Run],
    leaves: Mapping[Path, Mapping[str, Any]],
    overrides: Mapping[Path, Mapping[str, str]],
) -> Column | None:
    """Return each run's option of the group if all are known, else its class or function; None if all are equal."""
    nodes = {
        run.folder: tuple((k, same(v)) for k, v in leaves[run.folder].items() if k.startswith(f"{part}."))
        for run in runs
    }
    known = {run.folder: choice for run in runs if (choice := _choice(part, run, overrides[run.folder]))}
    by_node = {nodes[folder]: choice for folder, choice in known.items()}
    choices = {run.folder: known.get(run.folder) or by_node.get(nodes[run.folder]) for run in runs}
    targets = {run.folder: str(leaves[run.folder].get(f"{part}._target_", "")).rpartition(".")[2] for run in runs}
    for names in (choices, targets):
        if all(names.values()):
            return Column(part, names) if len(set(names.values())) > 1 else None
    return None


def _choice(part: str, run: Run, overrides: Mapping[str, str]) -> str | None:
    """Return the option of a group that made this run, as far as its folder shows."""
    if overrides.get(part):
        return overrides[part]
    if part != "model" or "name" in overrides:
        return None
    if "resume" in overrides and not (PRESETS / f"{run.name}.yaml").is_file():
        return None  # the command that made the run may have given a name
    return run.name if run.name == run.leaves.get("name") else None  # conf/train.yaml: the name is the model's


def given(run: Run) -> dict[str, str]:
    """Return the overrides that made a run: from its command, or for a sweep from its folder's name.

    A key that was swept over and is cut from the folder's name has an empty value.
    """
    try:
        words = shlex.split(str(run.record.get("command") or ""))
    except ValueError:
        words = []
    pairs = dict(word.lstrip("+~").split("=", 1) for word in words[1:] if re.match(r"[+~]*[\w./@]+=", word))
    found: dict[str, str] = {}
    for key, value in pairs.items():
        swept = re.search(r"(?:^|,)" + re.escape(key) + r"=([^,]*)(,|$)", run.folder.name)
        cut = re.search(r"-[0-9a-f]{8}$", run.folder.name) and swept and not swept[2]
        if "," not in value and "(" not in value:
            found[key] = value
        else:
            found[key] = swept[1] if swept and not cut else ""
    return found


def cell(value: Any) -> str:
    """Format a value for a table, in one line."""
    if isinstance(value, str):
        return value if len(value) <= 60 else f"{value[:57]}..."
    if isinstance(value, list):
        return f"[{','.join(map(cell, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return format_value(value)


def sort_key(value: Any) -> tuple[int, Any]:
    """Numbers by size, then texts in their natural order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value)
    return (1, natural(cell(value)))
