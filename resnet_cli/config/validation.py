"""Check a composed config against the signatures of the callables that it names, before anything is built.

Every node with a `_target_` is checked against the callable's parameters, the top level against the fields of
`resnet_cli.config.run_config.RunConfig`.
No list of options is kept here: a parameter added to a signature is a key that can be set.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from resnet_cli.config.groups import CONFIG_GROUPS, LOGGER, OWN_PARTS, ConfigGroup, group_of, inner_node
from resnet_cli.config.messages import Problem
from resnet_cli.config.signatures import NotFoundError, Parameter, Signature, signature
from resnet_cli.config.suggestions import advice_on_key, nearest_name, nearest_names, options_with
from resnet_cli.config.values import describe, format_value, is_valid, nodes_inside, spellings
from resnet_cli.errors import InputError

Settings = dict[str, Any]

RUN_TARGET = "resnet_cli.config.run_config.RunConfig"  # the schema of the top level
EXAMPLES = {"optimizer": "torch.optim.SGD", "schedule": "resnet_cli.schedules.cosine"}
OPTIONAL_GROUPS = ("loss",)  # configs of runs that were made before the group was added have none
ALIKE = 0.85  # of difflib's ratio: epoch is trainer.epochs
WORDS = {"null": None, "true": True, "false": False}
NEED_GIVEN_ARGUMENT = ("model", "schedule", "trainer")  # groups whose targets must take one of the builder's arguments


def without_leftovers(settings: Settings, given_keys: Sequence[str], file_keys: Sequence[str] = ()) -> Settings:
    """Drop the group file's arguments of each group whose `_target_` the user replaced, except those that the user set.

    `model._target_=my_package.Net` over `model=resnet8` must not pass `depth: 8` to `Net`.

    Args:
        settings: The config.
        given_keys: The keys on the command line.
        file_keys: The keys in an experiment's file. If it replaces a `_target_`, what the new one accepts is kept.
    """
    settings = dict(settings)
    for part in CONFIG_GROUPS:
        node = settings.get(part)
        is_given = f"{part}._target_" in given_keys
        if not (is_given or f"{part}._target_" in file_keys) or not isinstance(node, dict):
            continue
        kept = set(CONFIG_GROUPS[part].reader_parameters(_parameters(node.get("_target_"))))
        if not is_given:
            kept |= accepted_keys(node) | {key.split(".")[1] for key in file_keys if key.startswith(f"{part}.")}
        kept |= {key.split(".")[1] for key in given_keys if key.startswith(f"{part}.")}
        settings[part] = {key: value for key, value in node.items() if key in kept}
    return settings


def accepted_keys(node: Mapping[str, Any]) -> set[str]:
    """Return the arguments of a node that its target accepts; all of them if it accepts any keyword or is unknown."""
    with suppress(Exception):  # reported by `check`
        own = signature(str(node["_target_"]))
        if not own.open:
            return set(own.parameters)
    return set(node)


def _parameters(target: object) -> Collection[str]:
    """Return the names of a target's parameters; empty if it cannot be imported, which `check` reports."""
    try:
        return signature(target).parameters if isinstance(target, str) else ()
    except Exception:  # a user's module can fail in any way while it is imported
        return ()


def check(settings: Settings, valid: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Check every key and value against the signatures.

    Args:
        settings: The config.
        valid: A valid config. Groups that both have as the same object are not checked again.

    Raises:
        InputError: All problems, one line each.
    """
    problems = list(_problems(settings, valid))
    if problems:
        raise InputError(*problems)


def check_part(part: str, node: object) -> None:
    """Check the node of one group; see `check`."""
    problems = list(_check_part(part, node, ()))
    if problems:
        raise InputError(*problems)


def check_options(path: str, options: Mapping[str, Any], target: str) -> None:
    """Check the options at `path` against the signature of `target`; see `check`."""
    problems = list(_check_keys(f"{path}.", options, signature(target), ()))
    if problems:
        raise InputError(*problems)


def _problems(settings: Settings, valid: Mapping[str, Any]) -> Iterator[Problem]:
    known = all_keys(settings)
    fields = signature(RUN_TARGET).parameters
    top_level = Signature({name: field for name, field in fields.items() if name not in CONFIG_GROUPS})
    values = {key: value for key, value in settings.items() if key not in CONFIG_GROUPS}
    experiment = values.pop("experiment", None)  # an experiment's file is merged into the top level
    if experiment is not None:
        is_node = isinstance(experiment, Mapping)
        yield Problem("experiment", "experiment without package" if is_node else "not a node", experiment)
    if isinstance(values.get("logger"), str):
        yield Problem("logger", "not a node", values.pop("logger"))
    yield from _check_keys("", values, top_level, known)
    for name in CONFIG_GROUPS:
        if settings.get(name) is None or settings.get(name) is not valid.get(name):
            yield from _check_part(name, settings.get(name), known)
    loggers = settings.get("logger")
    for name, node in loggers.items() if isinstance(loggers, Mapping) else ():
        yield from _check_logger(name, node, known)


def _check_logger(name: str, node: object, known: Sequence[str]) -> Iterator[Problem]:
    if name == "_target_":  # a group file without its package line
        yield Problem("logger", "logger without name")
    elif not isinstance(node, Mapping):
        pass  # reported with the other top-level keys
    elif "_target_" in node:
        yield from _check_node(f"logger.{name}", node, LOGGER, known)
    else:
        yield Problem(f"logger.{name}", "logger not selected", name)


def _check_part(name: str, node: object, known: Sequence[str]) -> Iterator[Problem]:
    if isinstance(node, Mapping):
        yield from _check_node(name, node, CONFIG_GROUPS[name], known)
        if name == "optimizer":
            yield from _check_own_parts(node.get("groups"), known)
    elif name not in OPTIONAL_GROUPS or node is not None:
        yield Problem(name, "not a node", node)


def _check_own_parts(groups: object, known: Sequence[str]) -> Iterator[Problem]:
    """Check the optimizers and schedules of parameter groups as those of the run."""
    for pattern, options in groups.items() if isinstance(groups, Mapping) else ():
        for part in OWN_PARTS if isinstance(options, Mapping) else ():
            path, node = f"optimizer.groups.{pattern}.{part}", options.get(part)
            if isinstance(node, Mapping) and "_target_" in node:
                yield from _check_node(path, node, replace(CONFIG_GROUPS[part], readers=()), known)
            elif node is not None:
                yield Problem(path, "not allowed", node, allowed=f"a node: {{_target_: {EXAMPLES[part]}, ...}}")


def _check_node(path: str, node: Mapping[str, Any], part: ConfigGroup, known: Sequence[str]) -> Iterator[Problem]:
    target = node.get("_target_")
    if target is None:
        yield Problem(path, "no target")
        return
    if not isinstance(target, str):
        yield Problem(f"{path}._target_", "not a dotted name", target)
        return
    try:
        own = signature(target)
    except NotFoundError as error:
        near = nearest_name(target.rsplit(".", 1)[-1], error.names)
        yield Problem(f"{path}._target_", "not found", target, suggestion=near, reason=str(error))
        return
    except Exception as error:  # a user's module can fail in any way while it is imported
        yield Problem(f"{path}._target_", "import failed", target, reason=f"{type(error).__name__}: {error}")
        return
    if target.partition(".")[0] in part.foreign or not part.is_of_kind(own):
        yield Problem(f"{path}._target_", "wrong kind of class", target, allowed=part.kind)
        return
    missing = _first_missing(own, node)
    if (
        group_of(path) in NEED_GIVEN_ARGUMENT
        and missing
        and not own.open
        and own.parameters.keys().isdisjoint(part.given)
    ):
        setting = f"{path}.{missing}={describe(own.parameters[missing].annotation)}"
        given, group = ", ".join(part.given), group_of(path)
        yield Problem(f"{path}._target_", "size arguments missing", target, given, reason=group, suggestion=setting)
        return
    parameters: dict[str, list[Parameter]] = {}
    for source in (own.parameters, part.reader_parameters(own.parameters)):
        for name, parameter in source.items():
            if not part.passes(name, own.parameters):
                parameters.setdefault(name, []).append(parameter)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    for key, value in arguments.items():
        for parameter in parameters.get(key, []):
            problem = _check_value(f"{path}.{key}", value, parameter, known)
            if problem:
                yield from problem
                break
    merged = Signature({name: found[0] for name, found in parameters.items()}, own.open)
    yield from _check_names(path, arguments, merged, known, target)


def _first_missing(own: Signature, node: Mapping[str, Any]) -> str:
    """Return the first required parameter that a node lacks, or an empty string."""
    return next((name for name, parameter in own.parameters.items() if parameter.required and name not in node), "")


def _check_keys(path: str, node: Mapping[str, Any], allowed: Signature, known: Sequence[str]) -> Iterator[Problem]:
    for key, value in node.items():
        if key in allowed.parameters:
            yield from _check_value(f"{path}{key}", value, allowed.parameters[key], known)
    yield from _check_names(path, node, allowed, known)


def _check_names(
    path: str, node: Mapping[str, Any], allowed: Signature, known: Sequence[str], target: str = ""
) -> Iterator[Problem]:
    prefix = f"{path}." if path else ""
    for key in node:
        if key not in allowed.parameters and not allowed.open:
            advice = advice_on_key(target, str(key)) or _advice_on_dots(prefix, str(key))
            if advice:
                yield Problem(f"{prefix}{key}", "unknown key with advice", reason=advice)
                continue
            near = _nearest_key(prefix, str(key), allowed, known)
            others = options_with(path, str(key))
            keys = (", ".join(allowed.parameters) or "none") + (
                f"; {path}={', '.join(others)} take{'s' * (len(others) == 1)} it" if others else ""
            )
            yield Problem(f"{prefix}{key}", "unknown key", node[key], allowed=keys, suggestion=near)
    for name, parameter in allowed.parameters.items():
        if parameter.required and name not in node and not allowed.open:
            yield Problem(f"{prefix}{name}", "argument missing", allowed=describe(parameter.annotation))


def _advice_on_dots(prefix: str, key: str) -> str:
    """Return how a file writes a key with dots, which separate keys on the command line alone."""
    *outer, last = f"{prefix}{key}".split(".")
    if "." not in key:
        return ""
    return f"a file writes it in nested lines, {': {'.join(outer)}: {{{last}: ...{'}' * len(outer)}"


def _nearest_key(prefix: str, key: str, allowed: Signature, known: Sequence[str]) -> str:
    """Return the nearest key of this node, else a key of the same name elsewhere, else an empty string."""
    near = nearest_name(key, allowed.parameters)
    if near:
        return f"{prefix}{near}"
    own = f"{prefix}{key}"
    known = [*CONFIG_GROUPS, "experiment", *(full for full in known if not f"{full}.".startswith(f"{own}."))]
    elsewhere = [full for full in known if full.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return elsewhere[0]
    if prefix:
        return ""
    by_last = {full.rpartition(".")[2]: full for full in reversed(known)}  # epoch: trainer.epochs, learning_rate: lr
    alike = nearest_names(key, by_last, count=1, cutoff=ALIKE)
    return nearest_name(key, known) or next((by_last[name] for name in alike), "")


def _check_value(path: str, value: object, parameter: Parameter, known: Sequence[str]) -> Iterator[Problem]:
    annotation = parameter.annotation
    if value == "???":
        yield Problem(path, "value missing")
    elif isinstance(value, str) and not value.strip() and not is_valid(value, annotation):
        yield Problem(path, "empty", allowed=describe(annotation))
    elif isinstance(value, str) and is_valid(_decoded(value), annotation) and not is_valid(value, annotation):
        yield Problem(path, "quoted value", value, allowed=describe(annotation))
    elif not is_valid(value, annotation):
        near = nearest_name(value, spellings(annotation)) if isinstance(value, str) else ""
        allowed = describe(annotation) + _advice_on_quotes(value, annotation)
        yield Problem(path, "not allowed", value, allowed=allowed, suggestion=near)
    else:
        for key, node in nodes_inside(path, value, annotation):
            yield from _check_node(key, node, inner_node(key), known)


def _decoded(text: str) -> object:
    """Return the number or word, such as true, that a text is without its quotes; the text if it is neither."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return WORDS.get(text, text)


def _advice_on_quotes(value: object, annotation: Any) -> str:
    """Return advice on a list of names in which YAML reads some as other values, such as `null` and `1.0`."""
    if not isinstance(value, list | tuple) or not is_valid([str(item) for item in value], annotation):
        return ""
    wrong = next((item for item in value if not is_valid([item], annotation)), None)
    return f'; write such a name in quotes, "{format_value(wrong)}"'


def all_keys(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return every key of a config with its full path: `model.depth`, ..."""
    keys = []
    for key, value in settings.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += all_keys(value, f"{prefix}{key}.")
    return keys
