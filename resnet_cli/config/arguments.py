"""Validate the arguments of calls from Python against the annotations that configs are checked against."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from os import PathLike, fspath
from typing import Any, TypeVar, cast, get_args, get_origin

from resnet_cli.config.annotations import Opaque
from resnet_cli.config.signatures import signature
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.values import describe, is_valid, spellings
from resnet_cli.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


def validate_arguments(function: Function) -> Function:
    """Make a function or constructor raise an `InputError` for arguments that a config may not hold either.

    Types, choices and ranges are those of the annotations. Arguments that only Python can pass, such as modules, are
    not checked. Numbers and arrays of NumPy and torch become numbers and lists of Python.
    """
    name, parameters = f"{function.__module__}.{function.__qualname__}", inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = parameters.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # whose own error names the function
        given.arguments.update(_valid(name, given.arguments))
        return function(*given.args, **given.kwargs)

    return cast(Function, call)


def require_arguments(function: Callable[..., Any], **given: Any) -> None:
    """Raise an `InputError` for arguments of a function, as `validate_arguments` does, but from inside the function.

    No frame of a decorator is between the function and its caller.
    """
    _valid(f"{function.__module__}.{function.__qualname__}", given)


def _valid(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a function that can be checked, as numbers and lists of Python.

    Raises:
        InputError: some do not fit their annotations; one line for each.
    """
    valid: dict[str, Any] = {}
    problems: list[str] = []
    for key, parameter in signature(name).parameters.items():
        annotation = parameter.annotation
        if key in given and annotation is not Any and not _has_opaque(annotation):
            value = given[key]
            valid[key] = value = value.tolist() if hasattr(value, "tolist") else value
            problems += _problems(key, value, annotation)
    if problems:
        raise InputError(*problems)
    return valid


def _problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    """Yield a line if a value does not fit an annotation, or for each item of a list that does not."""
    plain = _as_plain(value)
    if is_valid(plain, annotation):
        return
    if get_origin(annotation) is Sequence and isinstance(plain, list):
        for index, item in enumerate(plain):
            yield from _problems(f"{key}[{index}]", item, get_args(annotation)[0])
        return
    suggestion = did_you_mean(value, spellings(annotation)) if isinstance(value, str) else ""
    yield f"{key}={value!r}: must be {describe(annotation)}{suggestion}"


def _has_opaque(annotation: Any) -> bool:
    """Return whether an annotation, or a part of it, is a class that no value of a config is an instance of."""
    return annotation is Opaque or any(map(_has_opaque, get_args(annotation)))


def _as_plain(value: Any) -> Any:
    """Return paths as text, other sequences as lists, and numbers of NumPy and torch in them as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, str | PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {key: _as_plain(item) for key, item in value.items()}
    return list(map(_as_plain, value)) if isinstance(value, Sequence) and not isinstance(value, bytes) else value
