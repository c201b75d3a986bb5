"""Save, load, override and compare stored configs of runs as plain data; nothing is imported."""

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config.former_names import with_present_names
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.run_config import CONTROL_KEYS, DEFAULT_DISTILLATION, DEFAULT_LOSS
from resnet_cli.config.run_length import BUDGET, EPOCHS, keys_without_difference
from resnet_cli.config.signatures import Opaque, signature
from resnet_cli.config.validation import RUN_TARGET, Settings
from resnet_cli.config.values import format_value
from resnet_cli.config.yaml_errors import YAML_ERRORS, describe_yaml_error
from resnet_cli.errors import InputError

LARGEST_FILE = 1 << 17  # bytes; a config has about 3,000, and reading takes a second for each 100,000
LARGEST_NUMBER = 1 << 64
LARGEST_COUNT = 20_000  # values
DEEPEST = 20  # levels

# The values of these keys in a config that lacks them.
ABSENT: Mapping[str, Any] = {"loss": DEFAULT_LOSS, "distillation": DEFAULT_DISTILLATION}

SAFE_TO_CHANGE = {
    "name", "logger", "trainer.epochs", "trainer.device", "trainer.checkpoint_every", "trainer.log_gradients",
    "trainer.log_sharpness", "trainer.profile", "trainer.test_tta", "trainer.on_oom",
    "trainer.processes", "trainer.collective_timeout", "trainer.max_restarts",
    "data.root", "data.file", "data.labels_file", "data.shards", "data.val_shards", "data.test_shards",
    "data.splits", "data.workers", "data.worker_timeout",
    "data.backend", "data.cache", "data.download", "data.verify", "data.eval_batch_size",
}  # fmt: skip


class UniqueKeys:
    """A base of YAML loaders that refuse duplicate keys in a mapping, of which PyYAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return the mapping of a node."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"found duplicate key {key.value}", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)  # type: ignore[misc]


class _DataOnlyLoader(UniqueKeys, yaml.SafeLoader):
    """YAML without aliases: this program never writes any, and nested ones can expand without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            reason = "aliases are not allowed in a stored config"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=mark)
        return super().compose_node(parent, index)


def dump(settings: Settings) -> str:
    """Return the config as YAML text."""
    return yaml.safe_dump(deepcopy(settings), sort_keys=False, allow_unicode=True, width=120)


def dump_readable(settings: Settings) -> str:
    """Return the config as YAML text, after checking that `read` will accept it.

    Raises:
        InputError: It is too large.
    """
    text = dump(settings)
    reason = next(_iter_problems(settings, [0], 0), None)
    if (size := len(text.encode("utf-8", "replace"))) > LARGEST_FILE:
        reason = f"{size:,} bytes, and stored configs have at most {LARGEST_FILE:,}"
    if reason:
        raise InputError(f"config: no command could read it again: {reason}")
    return text


def read(path: Path) -> Settings:
    """Read the config in a file; see `load`."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(f"{path}: not a stored config: {size:,} bytes, and no config has more than {LARGEST_FILE:,}")
    data = path.read_bytes()
    try:
        return load(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise InputError(describe_yaml_error(error, path, data, expected="not a stored config")) from None


def load(text: str, path: str | os.PathLike[str]) -> Settings:
    """Parse a stored config to plain data; interpolations in it stay text.

    Raises:
        InputError: It is not a mapping in plain YAML.
    """
    try:
        loaded = yaml.load(text, Loader=_DataOnlyLoader)  # a SafeLoader with less
    except YAML_ERRORS as error:
        data = text.encode("utf-8", "replace")
        raise InputError(describe_yaml_error(error, path, data, expected="not a stored config")) from None
    return plain_data(loaded, os.fspath(path))


def plain_data(config: Any, source: str) -> Settings:
    """Check that a config from a file is a mapping of strings, numbers, booleans, nulls, lists and mappings.

    Names of former versions are replaced by the present ones.

    Raises:
        InputError: It holds something else, or is too deep or too large; one line that begins with `source`.
    """
    reason = next(_iter_problems(config, [0], 0), None) if isinstance(config, dict) else "no mapping"
    if reason:
        raise InputError(f"{source}: not a stored config: {reason}")
    settings: Settings = with_present_names(config)
    return settings


def _iter_problems(value: object, count: list[int], depth: int) -> Iterator[str]:
    """Yield problems as they are found: a hostile value may be deep or long without bound."""
    count[0] += 1
    if depth > DEEPEST or count[0] > LARGEST_COUNT:
        yield f"more than {DEEPEST} levels" if depth > DEEPEST else f"more than {LARGEST_COUNT:,} values"
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                yield f"a key of type {type(key).__name__}"
            yield from _iter_problems(item, count, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _iter_problems(item, count, depth + 1)
    elif type(value) is int and abs(value) > LARGEST_NUMBER:
        yield "a number too large"
    elif value is not None and type(value) not in (str, int, float, bool):
        yield f"a value of type {type(value).__name__}"


def overlaid(stored: Settings, composed: Settings, given_keys: Sequence[str], in_files: Sequence[str] = ()) -> Settings:
    """Return a stored config with the keys that the user sets now.

    Args:
        stored: The run's own config.
        composed: The config composed now with the user's overrides, which has the new values.
        given_keys: The keys that the user set: a group replaces its whole node, an experiment everything.
        in_files: The keys that chosen files set which may set any key.
    """
    result = deepcopy(composed if "experiment" in given_keys else stored)
    for key in (*in_files, *given_keys):
        *path, last = key.split(".")
        source: Any = composed
        target: Any = result
        for name in path:
            source = source.get(name) if isinstance(source, Mapping) else None
            if isinstance(target, dict) and target.get(name) is None:  # nothing to overlay: take the composed node
                target[name] = deepcopy(source)
            target = target[name] if isinstance(target, dict) else None
        if isinstance(source, Mapping) and isinstance(target, dict):
            if last in source:
                target[last] = deepcopy(source[last])
            else:  # `~key`
                target.pop(last, None)
    chosen = next((keys for keys in (given_keys, in_files) if {EPOCHS, BUDGET} & {*keys}), ())
    if EPOCHS in chosen and BUDGET not in chosen and isinstance(result.get("trainer"), dict):
        result["trainer"].pop("time_budget", None)  # the given number of epochs replaces the one that the budget chose
    own = {key: value for key, value in result.items() if key not in CONTROL_KEYS}
    return {**own, **{key: composed[key] for key in CONTROL_KEYS if key in composed}}


@dataclass(frozen=True)
class Difference:
    """A changed key that would make a resumed run a different run; `str` renders `key: before -> after`.

    Args:
        key: The full key.
        before: The stored value, formatted.
        after: The given value, formatted.
    """

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def differences(stored: Settings, given: Settings) -> list[Difference]:
    """Return the changed keys that would make the resumed run a different run.

    A key that one config lacks has its default there: an option added since the run was saved is no difference.

    Args:
        stored: The config in a checkpoint; nothing that it names is imported.
        given: A checked config.

    Raises:
        InputError: `stored` is not plain data.
    """
    stored = plain_data(stored, "the checkpoint's config")
    stored, given = ({**s, **{k: s.get(k) or node for k, node in ABSENT.items()}} for s in (stored, given))
    stored, given = ({k: v for k, v in s.items() if k not in {*CONTROL_KEYS, *SAFE_TO_CHANGE}} for s in (stored, given))
    defaults = default_values(stored, given)
    before, after = flat(stored), flat(given)
    for leaves in (before, after):
        leaves |= {key: value for key, value in defaults.items() if key not in leaves}
    same = keys_without_difference(before, after) | _ignored_teacher_keys(before, after)
    return [
        Difference(key, _format_leaf(before, key), _format_leaf(after, key))
        for key in dict.fromkeys([*after, *before])
        if key not in same
        and not (key in before and key in after and _are_equal(before[key], after[key]))
        and (key not in SAFE_TO_CHANGE or _has_fewer_epochs(key, before, after))
    ]


def without_replaced_arguments(changes: Sequence[Difference]) -> list[Difference]:
    """Drop changed arguments of nodes whose `_target_` changed: they follow from it."""
    replaced = tuple(change.key.removesuffix("_target_") for change in changes if change.key.endswith("._target_"))
    return [change for change in changes if change.key.endswith("._target_") or not change.key.startswith(replaced)]


def _ignored_teacher_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the keys on teachers whose differences do not count.

    If both configs have a teacher, its path may differ, since the weights are compared when it is opened. Otherwise
    the options of distillation do not count: `teacher` itself differs, or they have no effect.
    """
    is_taught = [isinstance(config.get("teacher"), str) for config in (before, after)]
    if all(is_taught):
        return {"teacher"}
    return {key for key in (*before, *after) if key.startswith("distillation")}


def default_values(stored: Settings, given: Settings) -> dict[str, Any]:
    """Return the defaults of the options of every node that both configs have, by full key."""
    found = {name: p.default for name, p in signature(RUN_TARGET).parameters.items() if name not in CONTROL_KEYS}
    for path, node, other in _common_nodes(stored, given):
        own = signature(node["_target_"]).parameters
        found |= {f"{path}.{name}": p.default for name, p in own.items()}
        if path in CONFIG_GROUPS:
            found |= {f"{path}.{name}": p.default for name, p in CONFIG_GROUPS[path].reader_parameters(own).items()}
        for name in {*node, *other}:  # a node in one and null in the other is a difference in that key
            if isinstance(node.get(name), Mapping) or isinstance(other.get(name), Mapping):
                found.pop(f"{path}.{name}", None)
    return {key: value for key, value in found.items() if value is not Parameter.empty and value is not Opaque}


def _common_nodes(
    stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the path and both forms of each node that has the same `_target_` in both configs."""
    for key, node in given.items():
        other = stored.get(key)
        if isinstance(node, Mapping) and isinstance(other, Mapping):
            if "_target_" in node and node["_target_"] == other.get("_target_"):
                yield f"{prefix}{key}", node, other
            yield from _common_nodes(other, node, f"{prefix}{key}.")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested mapping by full key; an empty mapping is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _are_equal(a: Any, b: Any) -> bool:
    """Return whether two config values are equal: 1 equals 1.0 but not true, and a list equals a tuple."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_are_equal, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def _has_fewer_epochs(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether `key` is the number of epochs and it has decreased, or is not a number."""
    if key != "trainer.epochs":
        return False
    old, new = before.get(key), after.get(key)
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    return not (is_number and new >= old)  # type: ignore[operator]


def _format_leaf(leaves: Mapping[str, Any], key: str) -> str:
    return format_value(leaves[key]) if key in leaves else "(absent)"
