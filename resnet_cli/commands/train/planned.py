"""`plan=quick|good|best`: the plan becomes an option before Hydra composes the config, so that overrides win."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from resnet_cli.commands.train.plan_overrides import (
    RUN_KEYS,
    SEARCH_PATH,
    compose_each,
    compose_without_plan,
    key_of,
    option_names,
    values_of,
    without_plan,
)
from resnet_cli.commands.train.stored_plans import find_plan
from resnet_cli.config.data_keys import HOW_USED
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import config_dir
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.argument_parser import check_options
from resnet_cli.hydra_app.overrides import hydra_arguments, is_multirun, split_arguments
from resnet_cli.hydra_app.search_path import generated_configs
from resnet_cli.hydra_app.sweep_params import PARAMS
from resnet_cli.planning.plan_file import as_option
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line
from resnet_cli.runs.terminal import format_line
from resnet_cli.session.context import Plans
from resnet_cli.streams import in_notebook
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.hydra_config import LOCAL_LAUNCHERS

LEVELS = ("quick", "good", "best")
# Keys of data that a planned sweep may vary.
SWEPT = (*HOW_USED, "fold", "split_seed", "val_fraction", "drop_last", "eval_crop")
KEYS_OF_SWEEPS = (SEARCH_PATH, "hydra.sweep.dir", "hydra/launcher", "hydra/sweeper", PARAMS)


@contextmanager
def planned(arguments: Sequence[str], resumed: Collection[str] = ()) -> Iterator[Plans]:
    """Make the plans that the arguments ask for, and let Hydra find them inside the block.

    Without `plan=` nothing happens, and torch is not imported.

    Args:
        arguments: The command line.
        resumed: Keys that a resumed sweep changes in its jobs, which keep their plan.

    Yields:
        The plans, one for each level: a sweep can have several.

    Raises:
        InputError: `plan` is not a level, is given with a run to resume, or the data are too few to train on.
    """
    if not any(argument.partition("=")[0].lstrip("+") == "plan" for argument in arguments):
        yield Plans()
        return
    began = monotonic()
    options, overrides = _parse(arguments)
    levels = _levels(overrides, options)
    if not levels:
        yield Plans()
        return
    check_options(options)  # first, since a plan may take a minute
    sweep = compose_without_plan(overrides, options, KEYS_OF_SWEEPS) if is_multirun(options) else None
    if sweep is not None:
        overrides = _with_params(overrides, sweep.params)
        is_new = sweep.sweep_dir is None or not SweepDir(expand_home(sweep.sweep_dir)).record.is_file()
        _require_one_data_set(overrides, options, is_new=is_new)
    is_local = sweep is None or sweep.launcher.endswith(LOCAL_LAUNCHERS)
    with TemporaryDirectory(prefix="resnet-cli-plan-") as name:
        files: dict[str, dict[str, str]] = {}
        written: dict[str, str] = {}
        for level in levels:
            text, fingerprint = find_plan(level, overrides, options, resumed, sweep) or _make_plan(
                level, options, overrides, is_one_of_several=len(levels) > 1, is_local=is_local
            )
            written[str(Path(name) / "plan" / f"{level}.yaml")] = as_option(text, level)
            run = RunDir("")
            files[level] = {run.plan.name: text, run.fingerprint.name: fingerprint}
        plans = Plans(files, monotonic() - began, written)
        plans.write_options()
        with generated_configs(Path(name)):
            yield plans


def _parse(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Return the options and the parsed overrides of a command line."""
    options, _ = split_arguments(arguments)
    translated = hydra_arguments(arguments)
    try:
        return options, OverridesParser.create().parse_overrides(translated[len(options) :])
    except HydraException:
        return [], []  # Hydra reports what is wrong with them


def _levels(overrides: Sequence[Override], options: Sequence[str]) -> list[str]:
    """Return the levels of `plan=`, after checking that a plan can be made for the command."""
    typed = {key_of(override): override for override in overrides}
    if "plan" not in typed:
        return []
    values = values_of(typed["plan"], options)
    sweeps = any(override.is_sweep_override() for override in overrides)
    if values in ([None], [[]]) or (sweeps and not is_multirun(options)):  # Hydra refuses the latter
        return []
    wrong = [value for value in values if value not in LEVELS]
    if wrong:
        or_null = "; null is not swept over" if len(values) > 1 else " or null"
        shown = "" if wrong[0] == "" else format_value(wrong[0])
        raise InputError(f"plan={shown}: takes {', '.join(LEVELS)}{or_null}")
    for key in RUN_KEYS:
        if key in typed and values_of(typed[key], options) not in ([None], ["auto"]):
            raise InputError(f"plan: a run keeps the plan that it was started with; leave out plan with {key}")
    return values


def _require_one_data_set(overrides: Sequence[Override], options: Sequence[str], *, is_new: bool) -> None:
    """Raise an `InputError` if a sweep varies the data, so that its jobs need different plans.

    Args:
        overrides: The overrides of the command.
        options: Its options.
        is_new: The sweep is new; former versions did not look into the files of experiments.
    """
    for override in filter(Override.is_sweep_override, overrides):
        key = key_of(override)
        of_data = key.partition(".")[0] == "data"
        if (of_data or is_new) and _varies_data(override, overrides, options):
            raise InputError(
                f"plan: a plan is for one data set; leave out plan to sweep over {key}, or start the runs one by one"
            )


def _varies_data(override: Override, overrides: Sequence[Override], options: Sequence[str]) -> bool:
    """Return whether the values of a swept key lead to different data: a file of `experiment` may set any key."""
    group, *parts = key_of(override).split(".")
    if group == "data":
        return parts[:1] not in [[name] for name in SWEPT]
    if parts or group in (*CONFIG_GROUPS, "logger", "plan") or not option_names(group, options):
        return False
    nodes = [composed.settings["data"] for composed in compose_each(override, overrides, options)]
    data = [{key: value for key, value in node.items() if key not in SWEPT} for node in nodes]
    return any(other != data[0] for other in data)


def _with_params(overrides: Sequence[Override], params: Sequence[str]) -> list[Override]:
    """Return the overrides after those in `hydra.sweeper.params` of an experiment whose keys are not typed."""
    typed = set(map(key_of, overrides))
    try:
        parsed = OverridesParser.create().parse_overrides(list(params))
    except HydraException:
        return list(overrides)  # Hydra reports what is wrong with them
    return [*(override for override in parsed if key_of(override) not in typed), *overrides]


def _make_plan(
    level: str, options: Sequence[str], overrides: Sequence[Override], *, is_one_of_several: bool, is_local: bool
) -> tuple[str, str]:
    """Make the plan and print it, with its level if a sweep has several."""
    items, first_values = without_plan(overrides, options, (SEARCH_PATH,))
    from resnet_cli.planning.make import plan_command  # it imports torch

    made = plan_command(level, items, config_dir=config_dir(options), is_local=is_local)
    stream = sys.stdout if in_notebook() else sys.stderr  # a notebook shows the latter in red
    title = f"plan    plan={level}"
    note = f"plan    made for {' '.join(first_values)}, the first job of the sweep, and used for all jobs"
    for line in [*[title] * is_one_of_several, *made.lines, *[note] * bool(first_values)]:
        print_line(format_line(line, stream), stream)
    return made.text, made.fingerprint
