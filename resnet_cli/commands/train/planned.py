"""`plan=quick|good|best`: the option is written before Hydra composes the config, so that what is typed wins."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from resnet_cli.config.paths import config_dir, config_folders
from resnet_cli.config.stored import flat
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.overrides import hydra_arguments, split_arguments
from resnet_cli.hydra_app.search_path import generated_configs
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line
from resnet_cli.runs.terminal import format_line
from resnet_cli.session.context import Plans
from resnet_cli.streams import in_notebook

LEVELS = ("quick", "good", "best")
SWEPT = (
    "data.fold",
    "data.split_seed",
    "data.batch_size",
    "data.workers",
)  # keys of data that a planned sweep may vary
RUN_KEYS = ("resume", "reproduce")


@contextmanager
def planned(arguments: Sequence[str]) -> Iterator[Plans]:
    """Let Hydra find the plans that arguments ask for, and yield them.

    Without `plan=` nothing happens, and torch is not imported.

    Args:
        arguments: The command line.

    Yields:
        The plans, one for each level: a sweep can have several.

    Raises:
        InputError: `plan` is no level, or is given with a run to resume, or there is nothing to learn from the data.
    """
    if not any(argument.partition("=")[0] == "plan" for argument in arguments):
        yield Plans()
        return
    began = monotonic()
    options, overrides = _parse(arguments)
    levels = _levels(overrides)
    if not levels:
        yield Plans()
        return
    with TemporaryDirectory(prefix="resnet-cli-plan-") as name:
        folder = Path(name) / "plan"
        folder.mkdir()
        files: dict[str, dict[str, str]] = {}
        for level in levels:
            text, fingerprint = _find_plan(level, overrides) or _make(level, options, overrides)
            (folder / f"{level}.yaml").write_text(text, encoding="utf-8")
            run = RunDir("")
            files[level] = {run.plan.name: text, run.fingerprint.name: fingerprint}
        with generated_configs(Path(name)):
            yield Plans(files, monotonic() - began)


def _parse(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Return the options and the parsed overrides of a command line."""
    options, _ = split_arguments(arguments)
    translated = hydra_arguments(arguments)
    try:
        return options, OverridesParser.create().parse_overrides(translated[len(options) :])
    except HydraException:
        return [], []  # Hydra reports what is wrong with them


def _levels(overrides: Sequence[Override]) -> list[str]:
    """Return the levels of `plan=`, after checking that a plan can be made for the command."""
    typed = {_key(override): override for override in overrides}
    if "plan" not in typed:
        return []
    values = _values(typed["plan"])
    if values in ([None], [[]]):
        return []
    wrong = [value for value in values if value not in LEVELS]
    if wrong:
        raise InputError(f"plan={format_value(wrong[0])}: takes {', '.join(LEVELS)} or null")
    for key in RUN_KEYS:
        if key in typed and _values(typed[key]) not in ([None], ["auto"]):
            raise InputError(f"plan: a run keeps the plan that it has begun with; leave plan out with {key}")
    for key, override in typed.items():
        of_data = key == "data" or key.startswith("data.")
        if override.is_sweep_override() and of_data and key not in SWEPT:
            raise InputError(f"plan: is made for one data set; sweep over {key} without it, or run one by one")
    return values


def _key(override: Override) -> str:
    return str(override.key_or_group)


def _values(override: Override) -> list[Any]:
    """Return the values of an override; several if it sweeps over a list of choices."""
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else [None]


def _find_plan(level: str, overrides: Sequence[Override]) -> tuple[str, str] | None:
    """Return the files of the plan that the output folder has from an earlier start of this command."""
    keys = ("hydra.run.dir", "hydra.sweep.dir")
    given = [override for override in overrides if _key(override) in keys and not override.is_sweep_override()]
    for folder in [expand_home(str(override.value())) for override in given]:
        for run in (RunDir(folder), *map(RunDir, sorted(folder.glob("*/")))):
            text = run.plan.read_text(encoding="utf-8") if run.plan.is_file() else ""
            if f"\nplan: {level}\n" in text:
                return text, run.fingerprint.read_text(encoding="utf-8") if run.fingerprint.is_file() else "{}\n"
    return None


def _make(level: str, options: Sequence[str], overrides: Sequence[Override]) -> tuple[str, str]:
    """Make the plan and print it."""
    typed: dict[str, Any] = {}
    items = []
    for override in overrides:
        key = _key(override)
        if key == "plan" or key.partition(".")[0].partition("/")[0] == "hydra":
            continue
        value = _values(override)[0]
        if key == "experiment" and value is not None:
            typed |= _of_experiment(str(value), options)
        typed[key] = value
        items.append(_with_value(override, value))
    from resnet_cli.planning.make import plan_command  # it imports torch

    made = plan_command(level, items, typed, config_dir=config_dir(options))
    stream = sys.stdout if in_notebook() else sys.stderr  # a notebook shows the latter in red
    for line in made.lines:
        print_line(format_line(line, stream), stream)
    return made.text, made.fingerprint


def _with_value(override: Override, value: Any) -> str:
    """Return an override as it was typed; one that sweeps, with its first value."""
    if not override.is_sweep_override():
        return str(override.input_line).removeprefix("++")
    return f"{_key(override)}={value if isinstance(value, str) else json.dumps(value)}"


def _of_experiment(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the keys that an experiment sets, and the groups whose options it chooses; they count as typed."""
    files = [folder / "experiment" / f"{name}.yaml" for folder in config_folders(options)]
    file = next(filter(Path.is_file, files), None)
    if file is None:
        return {}  # Hydra says so
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    chosen = [next(iter(item.items())) for item in content.pop("defaults", []) if isinstance(item, dict)]
    return {**{str(group).rpartition("/")[2]: option for group, option in chosen}, **flat(content)}
