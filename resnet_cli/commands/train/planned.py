"""`plan=quick|good|best`: the plan becomes an option before Hydra composes the config, so that overrides win."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString
from hydra.errors import HydraException

from resnet_cli.config.paths import config_dir, config_folders
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.argument_parser import check_options
from resnet_cli.hydra_app.overrides import hydra_arguments, is_multirun, split_arguments
from resnet_cli.hydra_app.search_path import generated_configs
from resnet_cli.hydra_app.sweep_params import PARAMS
from resnet_cli.planning.plan_file import as_option, has_level
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line
from resnet_cli.runs.reading import read_run
from resnet_cli.runs.terminal import format_line
from resnet_cli.session.context import Plans
from resnet_cli.streams import in_notebook
from resnet_cli.sweeps.hydra_config import LOCAL_LAUNCHERS

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

LEVELS = ("quick", "good", "best")
DATA_KEYS_WITHOUT_EFFECT = ("data.fold", "data.split_seed", "data.workers")  # keys of data that do not affect a plan
SWEPT = (*DATA_KEYS_WITHOUT_EFFECT, "data.batch_size")  # keys of data that a planned sweep may vary
RUN_KEYS = ("resume", "reproduce")
SEARCH_PATH = "hydra.searchpath"
KEYS_OF_SWEEPS = (SEARCH_PATH, "hydra.sweep.dir", "hydra/launcher", "hydra/sweeper", PARAMS)
KEYS_WITHOUT_EFFECT = ("seed", "name", "logger", *DATA_KEYS_WITHOUT_EFFECT)  # prefixes of keys that no plan uses


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
    sweep = _compose(overrides, options, KEYS_OF_SWEEPS) if is_multirun(options) else None
    if sweep is not None:
        overrides = _with_params(overrides, sweep.params)
        _require_one_data_set(overrides)
    is_local = sweep is None or sweep.launcher.endswith(LOCAL_LAUNCHERS)
    with TemporaryDirectory(prefix="resnet-cli-plan-") as name:
        files: dict[str, dict[str, str]] = {}
        written: dict[str, str] = {}
        for level in levels:
            text, fingerprint = _find_plan(level, overrides, options, resumed, sweep) or _make_plan(
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
    typed = {_key(override): override for override in overrides}
    if "plan" not in typed:
        return []
    values = _values(typed["plan"], options)
    sweeps = any(override.is_sweep_override() for override in overrides)
    if values in ([None], [[]]) or (sweeps and not is_multirun(options)):  # Hydra refuses the latter
        return []
    wrong = [value for value in values if value not in LEVELS]
    if wrong:
        or_null = "; null is not swept over" if len(values) > 1 else " or null"
        shown = "" if wrong[0] == "" else format_value(wrong[0])
        raise InputError(f"plan={shown}: takes {', '.join(LEVELS)}{or_null}")
    for key in RUN_KEYS:
        if key in typed and _values(typed[key], options) not in ([None], ["auto"]):
            raise InputError(f"plan: a run keeps the plan that it was started with; leave out plan with {key}")
    return values


def _require_one_data_set(overrides: Sequence[Override]) -> None:
    """Raise an `InputError` if a sweep varies the data, so that its jobs need different plans."""
    for override in overrides:
        key = _key(override)
        of_data = key == "data" or key.startswith("data.")
        if override.is_sweep_override() and of_data and key not in SWEPT:
            raise InputError(
                f"plan: a plan is for one data set; leave out plan to sweep over {key}, or start the runs one by one"
            )


def _with_params(overrides: Sequence[Override], params: Sequence[str]) -> list[Override]:
    """Return the overrides after those in `hydra.sweeper.params` of an experiment whose keys are not typed."""
    typed = set(map(_key, overrides))
    try:
        parsed = OverridesParser.create().parse_overrides(list(params))
    except HydraException:
        return list(overrides)  # Hydra reports what is wrong with them
    return [*(override for override in parsed if _key(override) not in typed), *overrides]


def _key(override: Override) -> str:
    return str(override.key_or_group)


def _values(override: Override, options: Sequence[str]) -> list[Any]:
    """Return the values of an override: several if it sweeps, and only the lower end of an interval."""
    value = override.value()
    if not override.is_sweep_override():
        return [value]
    if isinstance(value, Glob):
        return [str(name) for name in value.filter(_option_names(_key(override), options))]
    if isinstance(value, IntervalSweep):
        return [value.start]
    return list(map(_without_quotes, override.sweep_iterator()))


def _option_names(group: str, options: Sequence[str]) -> list[str]:
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


def _find_plan(
    level: str,
    overrides: Sequence[Override],
    options: Sequence[str],
    resumed: Collection[str],
    sweep: "Composed | None",
) -> tuple[str, str] | None:
    """Return the files of the plan that an earlier start of this command left in its output folder, if there is one.

    A run with a checkpoint keeps its plan. Without a checkpoint, the plan must have been made for the same overrides.
    In a sweep, it is the plan of a job with the same overrides, apart from the swept keys, those of `resumed`, and
    those that do not identify jobs.
    """
    from resnet_cli.sweeps.job_keys import changes_job

    changing = {_key(override) for override in overrides if override.is_sweep_override()} | set(resumed)
    run_folder = _run_folder(overrides, options) if sweep is None else None
    own = _values_by_key(overrides, options)
    runs = []
    if run_folder is not None:
        run = RunDir(run_folder)
        if run.last.exists() or run.previous.exists() or not _differing_keys(run, own, options):
            runs.append(run)
    if sweep is not None and sweep.sweep_dir is not None:
        jobs = map(RunDir, sorted(expand_home(sweep.sweep_dir).glob("*/")))
        runs += [job for job in jobs if set(filter(changes_job, _differing_keys(job, own, options))) <= changing]
    for run in runs:
        text = run.plan.read_text(encoding="utf-8", errors="replace") if run.plan.is_file() else ""
        if has_level(text, level):
            return text, run.fingerprint.read_text(encoding="utf-8") if run.fingerprint.is_file() else "{}\n"
    return None


def _run_folder(overrides: Sequence[Override], options: Sequence[str]) -> Path | None:
    """Return the folder of a single run; None for one that is new each time."""
    key = "hydra.run.dir"
    typed = next((str(override.value()) for override in overrides if _key(override) == key), None)
    if typed is None or "${" in typed:  # it may be set by an experiment
        composed = _compose(overrides, options, (SEARCH_PATH, key))
        typed = composed.run_dir if composed.is_run_dir_fixed else None
    return None if typed is None else expand_home(typed)


def _compose(overrides: Sequence[Override], options: Sequence[str], hydra_keys: Collection[str]) -> "Composed":
    """Compose the config without the plan, with these keys of Hydra."""
    from resnet_cli.hydra_app.compose import compose_settings

    items, _ = _without_plan(overrides, options, hydra_keys)
    return compose_settings(items, config_dir=config_dir(options))


def _first_value(override: Override, options: Sequence[str]) -> Any:
    """Return the value of an override, or the first one if it sweeps; None if there is none."""
    return next(iter(_values(override, options)), None)


def _values_by_key(overrides: Sequence[Override], options: Sequence[str]) -> dict[str, Any]:
    """Return the first value of each override that a plan may depend on."""
    return {
        key: _first_value(override, options)
        for override in overrides
        if not (key := _key(override)).startswith(("hydra.", "hydra/", "seed")) and key not in ("plan", *RUN_KEYS)
    }


def _differing_keys(job: RunDir, typed: Mapping[str, Any], options: Sequence[str]) -> set[str]:
    """Return the keys whose overrides differ from a job's; all keys if the job has no readable record."""
    try:
        record = read_run(job.path, job.path.name, []).record
        given = _values_by_key(OverridesParser.create().parse_overrides(record["overrides"]), options)
    except (InputError, OSError, HydraException, KeyError, TypeError):
        return {*typed, ""}
    missing = object()
    return {key for key in {*typed, *given} if typed.get(key, missing) != given.get(key, missing)}


def _make_plan(
    level: str, options: Sequence[str], overrides: Sequence[Override], *, is_one_of_several: bool, is_local: bool
) -> tuple[str, str]:
    """Make the plan and print it, with its level if a sweep has several."""
    items, first_values = _without_plan(overrides, options, (SEARCH_PATH,))
    from resnet_cli.planning.make import plan_command  # it imports torch

    made = plan_command(level, items, config_dir=config_dir(options), is_local=is_local)
    stream = sys.stdout if in_notebook() else sys.stderr  # a notebook shows the latter in red
    title = f"plan    plan={level}"
    note = f"plan    made for {' '.join(first_values)}, the first job of the sweep, and used for all jobs"
    for line in [*[title] * is_one_of_several, *made.lines, *[note] * bool(first_values)]:
        print_line(format_line(line, stream), stream)
    return made.text, made.fingerprint


def _without_plan(
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
        key = _key(override)
        is_kept = key in hydra_keys or (PARAMS in hydra_keys and key.startswith(f"{PARAMS}."))
        if key == "plan" or (key.partition(".")[0].partition("/")[0] == "hydra" and not is_kept):
            continue
        item = _with_first_value(override, _first_value(override, options))
        items.append(item)
        if override.is_sweep_override() and not key.startswith(KEYS_WITHOUT_EFFECT):
            first_values.append(item)
    return items, first_values


def _with_first_value(override: Override, value: Any) -> str:
    """Return an override as it was typed, with only the first value if it sweeps."""
    if not override.is_sweep_override():
        return str(override.input_line).removeprefix("++")
    is_listed = not isinstance(override.value(), Glob | IntervalSweep)
    text = next(override.sweep_string_iterator(), "null") if is_listed else str(value)
    return f"{override.get_key_element().removeprefix('++')}={text}"
