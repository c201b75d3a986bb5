"""Signatures read from source text, so that a wrong key is answered before torch is imported.

`signature("torch.optim.SGD")` finds the file that defines the callable, following re-exports, and reads parameters and
annotations from its syntax tree; nothing of it is executed. A callable without readable source is imported instead.
"""

import ast
import importlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Optional, Union

from resnet_cli.config import ranges
from resnet_cli.config.source_files import Module, definition, module_source

PLAIN_NAMES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list, "dict": dict, "tuple": tuple,
    "List": list, "Dict": dict, "Tuple": tuple, "Any": Any, "object": Any, "Literal": Literal, "Annotated": Annotated,
    "Optional": Optional, "Union": Union, "Sequence": Sequence, "Iterable": Sequence, "Mapping": Mapping, "Path": str,
}  # fmt: skip


class Opaque:
    """Stands for a class that no YAML value can be: a tensor, a module, a callable."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type as a typing object, and its default (`inspect.Parameter.empty`: it must be given)."""

    name: str
    annotation: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether the callable cannot do without it."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Signature:
    """The parameters of one callable; `open` when it takes any keyword."""

    parameters: Mapping[str, Parameter]
    open: bool = False


class NotFoundError(LookupError):
    """No such callable; `names` are what its module has instead (empty when the module is missing)."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        super().__init__(message)


@lru_cache(maxsize=256)
def signature(target: str) -> Signature:
    """The signature of a class, a function, or a method (`module.Class.method`) by its dotted name.

    Raises:
        NotFoundError: there is no such module or no such name in it.
    """
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = module_source(".".join(parts[:cut]))
        if module is None:
            continue
        located = definition(module, parts[cut])
        if located is not None:
            read = _read(*located, parts[cut + 1 :])
            if read is not None:
                return read
        break
    return _imported(target)


def _read(module: Module, node: ast.stmt, rest: Sequence[str]) -> Signature | None:
    if isinstance(node, ast.FunctionDef) and not rest:
        return _function(module, node, skip_first=False)
    if isinstance(node, ast.ClassDef):
        if not rest and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            return None
        method = _method(module, node, rest[0] if rest else "__init__")
        if method is not None:
            return _function(*method, skip_first=True)
    return None


def _method(module: Module, node: ast.ClassDef, name: str) -> tuple[Module, ast.FunctionDef] | None:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return module, statement
    for base in node.bases:
        located = definition(module, base.id) if isinstance(base, ast.Name) else None
        if located is not None and isinstance(located[1], ast.ClassDef):
            found = _method(located[0], located[1], name)
            if found is not None:
                return found
    return None


def _function(module: Module, node: ast.FunctionDef, *, skip_first: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    parameters = {}
    for argument, default in pairs[1:] if skip_first else pairs:
        value = inspect.Parameter.empty if default is None else _literal(default)
        annotation = _type(module, argument.annotation) if argument.annotation else _type_of(value)
        if module.name.startswith("torch.optim."):
            annotation = _ranged(annotation, ranges.TORCH_OPTIM.get(argument.arg))
        parameters[argument.arg] = Parameter(argument.arg, annotation, value)
    return Signature(parameters, open=arguments.kwarg is not None)


def _literal(node: ast.expr) -> Any:
    """The value of a literal default; `Opaque` for an expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Opaque


def _type_of(default: Any) -> Any:
    """What an unannotated parameter takes, judged by its default: its type, a number for a whole number."""
    if default is inspect.Parameter.empty or default is None or default is Opaque:
        return Any
    return float if type(default) is int else type(default)


def _type(module: Module, node: ast.expr, depth: int = 0) -> Any:
    """The typing object that an annotation stands for; `Opaque` for classes that are not plain data."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _type(module, ast.parse(node.value, mode="eval").body, depth)
        return None
    if isinstance(node, ast.BinOp):
        return Union[_type(module, node.left, depth), _type(module, node.right, depth)]  # noqa: UP007  not types here
    if isinstance(node, ast.Attribute):
        return PLAIN_NAMES.get(node.attr, Opaque)
    if isinstance(node, ast.Subscript):
        return _subscript(module, node, depth)
    if isinstance(node, ast.Name):
        if node.id in PLAIN_NAMES:
            return PLAIN_NAMES[node.id]
        located = definition(module, node.id) if depth < 4 else None
        alias = located[1] if located else None
        if located and isinstance(alias, ast.Assign | ast.AnnAssign) and alias.value is not None:
            return _type(located[0], alias.value, depth + 1)
    return Opaque


def _subscript(module: Module, node: ast.Subscript, depth: int) -> Any:
    base = _type(module, node.value, depth)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base is Opaque or base is Any:
        return base
    if base is Literal:
        return Literal[tuple(_literal(item) for item in items)]
    if base is Annotated:
        return Annotated[_type(module, items[0], depth), *(_range(item) for item in items[1:])]
    inner = tuple(... if isinstance(i, ast.Constant) and i.value is ... else _type(module, i, depth) for i in items)
    if base is Optional:
        return Union[inner[0], None]  # noqa: UP007
    return base[inner if len(inner) > 1 else inner[0]]


def _range(node: ast.expr) -> Any:
    """`AtLeast(1)` in an annotation, as an object."""
    assert isinstance(node, ast.Call), f"an annotation's metadata must be a range: {ast.unparse(node)}"
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    return getattr(ranges, name)(*(ast.literal_eval(ast.unparse(a)) for a in node.args))


def _ranged(annotation: Any, limit: ranges.Range | None) -> Any:
    """A number, or each number of a pair, held inside a range."""
    if limit is None:
        return annotation
    origin: Any = typing.get_origin(annotation)
    if origin is tuple:
        return origin[tuple(_ranged(item, limit) for item in typing.get_args(annotation))]
    return Annotated[annotation, limit]


def locate(target: str) -> Any:
    """Import the object with dotted name `target`.

    Raises:
        NotFoundError: there is no such module or no such name in it.
    """
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise NotFoundError(f"{target!r} is not the dotted name of a class or function")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise  # the module is there; something that it imports is not
            continue
        for i, part in enumerate(parts[cut:], start=cut):
            if not hasattr(found, part):
                raise NotFoundError(f"{'.'.join(parts[:i])} has no {part!r}", dir(found))
            found = getattr(found, part)
        return found
    raise NotFoundError(f"there is no module named {parts[0]!r}")


def _imported(target: str) -> Signature:
    """The signature of a callable that has to be imported to be read."""
    found = locate(target)
    if not callable(found):
        raise NotFoundError(f"{target} is not a class or function")
    try:
        read = inspect.signature(found)
    except ValueError:
        return Signature({}, open=True)
    function = found.__init__ if inspect.isclass(found) else found
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    parameters = {}
    is_open = False
    for name, parameter in read.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            annotation = hints.get(name, Any if parameter.annotation is not parameter.empty else None)
            annotation = _type_of(parameter.default) if annotation is None else annotation
            parameters[name] = Parameter(name, annotation, parameter.default)
    return Signature(parameters, is_open)
