"""Signatures read from source text, so that a wrong key is answered before torch is imported.

`signature("torch.optim.SGD")` finds the file that defines the callable, following re-exports, and reads parameters and
annotations from its syntax tree; nothing of it is executed. A callable whose text does not say everything is imported
and inspected instead: dataclasses and other decorated classes, inherited constructors that cannot be found, and
annotations of a user's class that only the object explains.
"""

import ast
import importlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any

from resnet_cli.config import ranges
from resnet_cli.config.annotation_text import UnknownAnnotationError, from_text
from resnet_cli.config.annotations import Opaque, from_object, is_known, plain_default, type_of_default
from resnet_cli.config.source_files import (
    Module,
    definition,
    forget_sources,
    import_of,
    is_defined_interactively,
    module_source,
    search_for,
    untrusted_folder,
)

__all__ = ["NotFoundError", "Opaque", "Parameter", "Signature", "locate", "signature"]

MODULE = "torch.nn.modules.module"  # whose `Module.__init__(*args, **kwargs)` refuses all arguments, as in `nn.Tanh`


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type, and its default (`inspect.Parameter.empty` if it is required)."""

    name: str
    annotation: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """True if the parameter has no default."""
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


def signature(target: str) -> Signature:
    """Return the signature of a class, a function or a method (`module.Class.method`) by its dotted name.

    Raises:
        NotFoundError: there is no such module or no such name in it.
    """
    if is_defined_interactively(target):
        return _inspect_imported(target)
    return _signature(target, import_of(target))


def forget_signatures() -> None:
    """Read signatures and sources anew, since modules may be found at other places now."""
    _signature.cache_clear()
    forget_sources()


@lru_cache(maxsize=256)
def _signature(target: str, imported: int) -> Signature:  # `imported` is a part of the key of the cache alone
    search_for(target)
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
    return _inspect_imported(target)


def _read(module: Module, node: ast.stmt, rest: Sequence[str]) -> Signature | None:
    """Return the signature in the source of a definition; None if the object has to be imported to know it."""
    if isinstance(node, ast.FunctionDef) and not rest:
        return None if _is_wrapped(module, node) else _function(module, node, skip_first=False)
    if isinstance(node, ast.ClassDef):
        if not rest and (_is_wrapped(module, node) or any("dataclass" in ast.unparse(d) for d in node.decorator_list)):
            return None
        method = _method(module, node, rest[0] if rest else "__init__")
        if method is not None and method[0].name == MODULE and method[1].name == "__init__":
            return Signature({})
        if method is not None and not _is_wrapped(*method):
            return _function(*method, skip_first=True)
    return None


def _is_wrapped(module: Module, node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Return whether a user's class or function gets its signature from more than its own text."""
    if is_known(module.name):
        return False
    if node.decorator_list or (isinstance(node, ast.ClassDef) and _has_generated_signature(node)):
        return True
    bound = [target for statement in module.tree.body for target in _targets(statement)]
    return node.name in bound or any(name.startswith(f"{node.name}.") for name in bound)


def _has_generated_signature(node: ast.ClassDef) -> bool:
    """Return whether a metaclass or a base class may make the signature: pydantic's, or one of a `NamedTuple`."""
    methods = {statement.name for statement in node.body if isinstance(statement, ast.FunctionDef)}
    has_fields = any(isinstance(statement, ast.AnnAssign) for statement in node.body)
    bound = [target for statement in node.body for target in _targets(statement)]
    return bool(
        node.keywords
        or "__new__" in methods
        or (has_fields and "__init__" not in methods)
        or {"__signature__", "__init__"} & set(bound)
    )


def _targets(statement: ast.stmt) -> list[str]:
    """Return what a statement assigns to, as text: `Net` or `Net.__init__`."""
    return [ast.unparse(target) for target in statement.targets] if isinstance(statement, ast.Assign) else []


def _method(module: Module, node: ast.ClassDef, name: str) -> tuple[Module, ast.FunctionDef] | None:
    """Return the definition of a method and its module; None where it is inherited from a base that is not found."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return module, statement
    for base in node.bases:
        located = definition(module, base.id) if isinstance(base, ast.Name) else None
        if located is not None and isinstance(located[1], ast.ClassDef):
            if _is_wrapped(*located):  # type: ignore[arg-type]
                return None
            found = _method(located[0], located[1], name)
            if found is not None:
                return found
        elif not is_known(module.name):
            return None  # a base that the text does not show comes before the others
    return None


def _function(module: Module, node: ast.FunctionDef, *, skip_first: bool) -> Signature | None:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    parameters = {}
    try:
        for argument, default in pairs[1:] if skip_first else pairs:
            parameters[argument.arg] = _parameter(module, argument, default)
    except UnknownAnnotationError:
        return None
    return Signature(parameters, open=arguments.kwarg is not None)


def _parameter(module: Module, argument: ast.arg, default: ast.expr | None) -> Parameter:
    value = inspect.Parameter.empty if default is None else _literal(default)
    annotation = from_text(module, argument.annotation) if argument.annotation else type_of_default(value)
    if module.name.startswith("torch.optim."):
        annotation = _with_range(annotation, ranges.TORCH_OPTIM.get(argument.arg))
    return Parameter(argument.arg, annotation, value)


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal default; `Opaque` for an expression."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return Opaque


def _with_range(annotation: Any, limit: ranges.Range | None) -> Any:
    """Return the type of a number, or of each number of a pair, restricted to a range."""
    if limit is None:
        return annotation
    origin: Any = typing.get_origin(annotation)
    if origin is tuple:
        return origin[tuple(_with_range(item, limit) for item in typing.get_args(annotation))]
    return Annotated[annotation, limit]


def locate(target: str) -> Any:
    """Import the object with dotted name `target`.

    Raises:
        NotFoundError: there is no such module or no such name in it.
    """
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise NotFoundError(f"{target!r} is not the dotted name of a class or function")
    search_for(target)
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
    folder = untrusted_folder(parts[0])
    remedy = f"; trust=true imports it from {folder}" if folder is not None else ""
    raise NotFoundError(f"there is no module named {parts[0]!r}{remedy}")


def _inspect_imported(target: str) -> Signature:
    """Return the signature of a callable that has to be imported to be read."""
    found = locate(target)
    if not callable(found):
        raise NotFoundError(f"{target} is not a class or function")
    try:
        read = inspect.signature(found)
    except (ValueError, TypeError):
        return Signature({}, open=True)
    if inspect.isclass(found) and _has_constructor_of_module(found):
        return Signature({})
    hints = _hints(found)
    parameters = {}
    is_open = False
    for name, parameter in read.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters[name] = _imported_parameter(parameter, hints)
    return Signature(parameters, is_open)


def _has_constructor_of_module(found: Any) -> bool:
    """Return whether a class defines no constructor and inherits that of `torch.nn.Module`."""
    own: Any = found.__init__
    inherited = (getattr(own, "__module__", ""), getattr(own, "__qualname__", "")) == (MODULE, "Module.__init__")
    return inherited and found.__new__ is object.__new__ and not hasattr(found, "__signature__")


def _imported_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    required = parameter.default is parameter.empty
    default = parameter.empty if required else plain_default(parameter.default)
    annotation = hints.get(parameter.name, parameter.annotation)
    if annotation is parameter.empty:
        return Parameter(parameter.name, Any if required else type_of_default(parameter.default), default)
    known = Any if isinstance(annotation, str) else from_object(annotation)  # a text that does not evaluate
    return Parameter(parameter.name, known, default)


def _hints(found: Any) -> dict[str, Any]:
    """Return the annotations of a callable that can be evaluated; names imported for type checkers alone cannot."""
    function = found.func if isinstance(found, partial) else found
    if inspect.isclass(found):
        function = found.__init__ if "__init__" in vars(found) or found.__new__ is object.__new__ else found.__new__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # evaluating annotations runs any code in them
        return _single_hints(inspect.unwrap(function))


def _single_hints(function: Any) -> dict[str, Any]:
    """Return those annotations that can be evaluated one by one."""
    try:
        annotations = inspect.get_annotations(function)
    except Exception:  # as above
        return {}
    hints = {}
    for name, annotation in annotations.items():
        try:
            hints[name] = eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation
        except Exception:  # as above
            continue
    return hints
