"""Paths on the command line: quoted for Hydra, so that the user quotes them once, for the shell."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config.paths import is_path_key
from resnet_cli.files import expand_home

OUTPUT_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
QUOTES = ('"', "'")
TEXTS = ("name", "data.group")  # keys of texts that may have characters of Hydra's grammar
TEXTS_OR_LISTS = ("trainer.freeze",)  # likewise, unless they begin like a list
NESTED_REFERENCE = re.compile(r"\$\{[^,{}]*\$\{[^{}]*\}[^{}]*\}")  # Hydra takes it in quotes only
GROUPS_OF_FILES = ("data", "logger")
AMOUNT = re.compile(r"(?!val_|test_)\w+_(cache|path|shards)")  # keys of users' data sets and loggers: `data.use_cache`
WORDS = ("", "null", "auto", "???")  # values of a path's key that are no paths


def quote_paths(overrides: Sequence[str], *, multirun: bool) -> list[str]:
    """Quote the paths among the values of overrides wherever Hydra would parse them as something else.

    A value in quotes, a reference `${...}` and, in a sweep, several values stay as they are. So does a value of a key
    that is not known to take a path, unless Hydra cannot parse it and there is such a file or folder; and a number or
    a boolean of a key that may take one although its name is that of a path, as in `model.drop_path=0.1`. A `name` or
    a pattern that Hydra cannot parse, such as `été`, is quoted too, and so is `${oc.decode:${oc.env:NAME}}`.

    Args:
        overrides: `key=value`, as typed.
        multirun: Whether a value may be several, separated by commas.
    """
    return [_quote_path(override, multirun=multirun) for override in overrides]


def _quote_path(override: str, *, multirun: bool) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or "/" in key or key.startswith(("~", "-")) or value.strip() in WORDS:
        return override
    if name in OUTPUT_FOLDERS and value.startswith("~"):  # nobody else expands it
        value = str(expand_home(value, name))
        override = f"{key}={value}"
    parsed = _parse(override)
    if parsed is None and NESTED_REFERENCE.fullmatch(value) and not set(QUOTES) & set(value):
        return f'{key}="{value}"'
    starts = QUOTES if name in TEXTS else (*QUOTES, "[", "{")
    is_text = parsed is None and (
        _exists(value) or (name in (*TEXTS, *TEXTS_OR_LISTS) and not value.startswith(starts))
    )
    if not is_path_key(name) and not is_text:
        return override
    if _is_read_as_meant(value, parsed) or _is_amount(name, value, parsed):
        return override
    is_list = value.startswith("[") and value.endswith("]") and not {"{", "[", "*", "?"}.isdisjoint(value[1:])
    if parsed is None and is_list and not _exists(value):
        return f"{key}=[{','.join(map(_quote_value, _split(value[1:-1])))}]"
    if multirun and "," in value and name not in OUTPUT_FOLDERS and not _exists(value):
        if parsed is not None and parsed.is_sweep_override():
            return override
        parts = _split(value)
        return f"{key}={','.join(map(_quote_value, parts)) if len(parts) > 1 else _quote(value)}"
    is_several = parsed is not None and parsed.is_sweep_override() and not _exists(value)
    if is_several and (multirun or value.startswith(QUOTES) or all(map(_exists, value.split(",")))):
        return override  # Hydra reports that it takes -m
    return f"{key}={_quote(value)}"


def _split(value: str) -> list[str]:
    """Split a value at commas outside of braces and brackets, which are those of `{a,b}.tar` and of lists."""
    return re.split(r",(?![^{]*\})(?![^\[]*\])", value)


def _parse(override: str) -> Any:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _is_read_as_meant(value: str, parsed: Any) -> bool:
    """Return whether Hydra reads a value as the text that was typed, or its syntax asks for more than text."""
    if parsed is None or parsed.is_sweep_override():
        return False
    read = parsed.value()
    if read == value and isinstance(read, str):
        return "${" in value or _is_plain_text(value)
    is_marked = value.startswith((*QUOTES, "[", "{")) or "\\" in value or "${" in value
    return is_marked and not _exists(value)


def _is_amount(name: str, value: str, parsed: Any) -> bool:
    """Return whether a value is a number, a boolean or null, or several, of a user's class: not the name of a file."""
    group, dot, key = name.partition(".")
    is_path = not dot or group == "hydra" or (group in GROUPS_OF_FILES and not AMOUNT.fullmatch(key.rpartition(".")[2]))
    if is_path or parsed is None or _exists(value):
        return False
    read = parsed.value()
    items = read.list if isinstance(read, ChoiceSweep) else [read]
    return all(isinstance(item, int | float | RangeSweep | IntervalSweep | None) for item in items)


def _is_plain_text(value: str) -> bool:
    try:
        return bool(OmegaConf.create({"path": value}).path == value)
    except OmegaConfBaseException:
        return False


def _exists(path: str) -> bool:
    try:
        return Path(path.strip()).expanduser().exists() or Path(path).exists()
    except (OSError, ValueError, RuntimeError):  # too long, or no such user
        return False


def _quote_value(value: str) -> str:
    return _quote(value) if not _is_read_as_meant(value, _parse(f"path={value}")) else value


def _quote(value: str) -> str:
    """Return a text in quotes even where `quote_override` adds none: without them 2024 is a number."""
    from resnet_cli.runs.names import quote_override

    if "${" in value and not _exists(value):
        return '"' + value.replace('"', '\\"') + '"'
    quoted = quote_override(value)
    return quoted if quoted.startswith('"') else f'"{quoted}"'
