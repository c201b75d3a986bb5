"""Check what an experiment sweeps over without running anything."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from hydra.errors import HydraException

from resnet_cli.config.yaml_errors import display_path
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import Composed
from resnet_cli.hydra_app.overrides import override_keys

MOST_VALUES = 20  # of a key: the first and the last one, and those between as far as there is room


def check_sweep(composed: Composed, compose: Callable[[Sequence[str]], Composed], path: Path) -> None:
    """Compose jobs of an experiment's sweep: each value of each key, with the first values of the others.

    Args:
        composed: The config without what is swept over. Keys that its overrides set are not swept over.
        compose: Composes the config with further overrides.
        path: The file of the experiment.

    Raises:
        InputError: With all problems; those of keys in this file name the line.
    """
    problems: dict[str, None] = {}
    values: dict[str, list[str]] = {}
    for param in composed.params:
        [key] = override_keys([param])
        found = _overrides(param) if key not in composed.keys else None
        if found:
            values[key] = found
        elif found is not None:
            problems[_located(f"{param}: has no value", key, path)] = None
    for varied, job in _jobs(values):
        try:
            compose(job)
        except InputError as error:
            for problem in error.problems:
                about = next((key for key in values if re.match(rf"{re.escape(key)}\b", problem)), varied)
                problems[_located(problem, about, path)] = None
    if problems:
        raise InputError(*problems)


def _overrides(param: str) -> list[str] | None:
    """Return an override for each value of a swept key, or for the ends of an interval.

    None for `glob(...)`, whose values are options that exist.
    """
    try:
        parsed = OverridesParser.create().parse_override(param)
    except HydraException:  # composing it reports what is wrong
        return [param]
    value = parsed.value()
    if isinstance(value, Glob):
        return None
    if isinstance(value, IntervalSweep):
        found = [repr(value.start), repr(value.end)]
    elif parsed.is_sweep_override():
        found = list(parsed.sweep_string_iterator())
    else:
        return [param]
    kept = [*found[: MOST_VALUES - 1], found[-1]] if len(found) > MOST_VALUES else found
    return [f"{parsed.get_key_element()}={text}" for text in kept]


def _jobs(values: dict[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the overrides of jobs, with the key that has another value than in the first job."""
    first = {key: own[0] for key, own in values.items()}
    if first:
        yield "", list(first.values())
    for key, own in values.items():
        for override in own[1:]:
            yield key, list({**first, key: override}.values())


def _located(problem: str, key: str, path: Path) -> str:
    """Return a problem after the place of a swept key in the file, if it is in it."""
    node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for name in ("hydra", "sweeper", "params"):
        node = next((value for known, value in _pairs(node) if known.value == name), None)
    lines = [known.start_mark.line + 1 for known, _ in _pairs(node) if str(known.value).lstrip("+") == key]
    return f"{display_path(path)}:{lines[0]}: {problem}" if lines else problem


def _pairs(node: yaml.Node | None) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else ()
