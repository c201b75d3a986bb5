"""Check what an experiment sweeps over without running anything."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from resnet_cli.config.yaml_errors import display_path
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import Composed
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.hydra_app.sweep_params import overrides_of_values

MOST_VALUES = 20  # of a key: the first ones and the last


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
        found = overrides_of_values(param) if key not in composed.keys else None
        if found:
            values[key] = found if len(found) <= MOST_VALUES else [*found[: MOST_VALUES - 1], found[-1]]
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
