"""The plan that an earlier start of a command left in its output folder."""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from resnet_cli.commands.train.plan_overrides import SEARCH_PATH, compose_without_plan, key_of, values_by_key
from resnet_cli.config.stored import LARGEST_FILE, flat, load
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home
from resnet_cli.planning.plan_file import HEADER, as_option, has_level
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line
from resnet_cli.runs.reading import read_run
from resnet_cli.runs.terminal import format_line
from resnet_cli.sweeps.folder import SweepDir

if TYPE_CHECKING:
    from resnet_cli.hydra_app.compose import Composed

PLANNED_OPTION = re.compile(r"override /(?:model|optimizer|schedule|loss)=\w+")


def find_plan(
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

    changing = {key_of(override) for override in overrides if override.is_sweep_override()} | set(resumed)
    run_folder = _run_folder(overrides, options) if sweep is None else None
    own = values_by_key(overrides, options)
    runs = []
    if run_folder is not None:
        run = RunDir(run_folder)
        if run.last.exists() or run.previous.exists() or not _differing_keys(run, own, options):
            runs.append(run)
    if sweep is not None and sweep.sweep_dir is not None:
        jobs = _jobs(expand_home(sweep.sweep_dir))
        runs += [job for job in jobs if set(filter(changes_job, _differing_keys(job, own, options))) <= changing]
    refused: Path | None = None
    for run in runs:
        text = run.plan.read_text(encoding="utf-8", errors="replace") if run.plan.is_file() else ""
        if has_level(text, level) and _sets_planned_keys(text, level):
            return text, run.fingerprint.read_text(encoding="utf-8") if run.fingerprint.is_file() else "{}\n"
        refused = run.plan if has_level(text, level) else refused
    if refused is not None:
        line = f"plan    {refused}: sets more than a plan does, and is not used; a new plan is made"
        print_line(format_line(line, sys.stderr), sys.stderr)
    return None


def _sets_planned_keys(text: str, level: str) -> bool:
    """Return whether a plan sets only what plans set: it may be in a folder that somebody else has made.

    Args:
        text: The plan, which becomes part of the command's own config.
        level: Its level.
    """
    if len(text) > LARGEST_FILE or not text.startswith(HEADER) or text.count("@package") > 1:
        return False
    try:
        content = load(as_option(text, level), "plan.yaml")
    except InputError:
        return False
    options = content.pop("defaults", [])
    keys = _keys_of_plans()
    return (
        isinstance(options, list)
        and all(isinstance(item, dict) and all(map(_is_planned_option, item.items())) for item in options)
        and all(key in keys and _is_plain(value) for key, value in flat(content).items())
    )


def _keys_of_plans() -> set[str]:
    """Return all keys that plans set."""
    from resnet_cli.planning.rules import planned_keys, read_rules  # it imports torch

    nets = [*read_rules()["nets"], *read_rules()["pretrained_nets"]]
    return {"plan", "data.image_size", *planned_keys(), *(key for net in nets for key in net["set"])}


def _is_planned_option(item: tuple[str, Any]) -> bool:
    """Return whether an item of a defaults list chooses an option by its name, as plans do."""
    return PLANNED_OPTION.fullmatch(f"{item[0]}={item[1]}") is not None


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, text without references, or a list of such values."""
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(part, list | dict) or "${" in str(part) for part in values)


def _jobs(folder: Path) -> list[RunDir]:
    """Return the folders of a sweep's jobs: those in its folder, and nested ones that its record names."""
    found = set(folder.glob("*/"))
    with suppress(InputError, MachineError):
        names = [Path(name) for name in SweepDir(folder).job_overrides()]
        found |= {folder / name for name in names if not name.is_absolute() and ".." not in name.parts}
    return [RunDir(path) for path in sorted(found)]


def _run_folder(overrides: Sequence[Override], options: Sequence[str]) -> Path | None:
    """Return the folder of a single run; None for one that is new each time."""
    key = "hydra.run.dir"
    typed = next((str(override.value()) for override in overrides if key_of(override) == key), None)
    if typed is None or "${" in typed:  # it may be set by an experiment
        composed = compose_without_plan(overrides, options, (SEARCH_PATH, key))
        typed = composed.run_dir if composed.is_run_dir_fixed else None
    return None if typed is None else expand_home(typed)


def _differing_keys(job: RunDir, typed: Mapping[str, Any], options: Sequence[str]) -> set[str]:
    """Return the keys whose overrides differ from a job's; all keys if the job has no readable record."""
    try:
        record = read_run(job.path, job.path.name, []).record
        given = values_by_key(OverridesParser.create().parse_overrides(record["overrides"]), options)
    except (InputError, OSError, HydraException, KeyError, TypeError):
        return {*typed, ""}
    missing = object()
    return {key for key in {*typed, *given} if typed.get(key, missing) != given.get(key, missing)}
