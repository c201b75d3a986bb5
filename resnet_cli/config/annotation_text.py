"""Annotations read from source text, so that torch need not be imported to check a config.

In the source of PyTorch and of this package a name that stands for none of the types in
`resnet_cli.config.annotations` is `Opaque`, and a form that is not understood accepts anything. In the source of other
packages both raise `UnknownAnnotationError`: then the object is imported, which costs time but is always right.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args

from resnet_cli.config import ranges
from resnet_cli.config.annotations import Opaque, is_known, union, with_ranges
from resnet_cli.config.source_files import Module, definition


class UnknownAnnotationError(Exception):
    """The text of an annotation does not determine its type; the object does."""


PLAIN_NAMES: Mapping[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list, "dict": dict, "tuple": tuple,
    "List": list, "Dict": dict, "Tuple": tuple, "Any": Any, "object": Any, "Literal": Literal, "Annotated": Annotated,
    "Optional": Optional, "Union": Union, "Sequence": Sequence, "Iterable": Sequence, "Collection": Sequence,
    "Mapping": Mapping, "Path": Path,
}  # fmt: skip
STANDARD_MODULES = ("typing", "typing_extensions", "collections.abc", "pathlib", "builtins")  # where these names live
SPECIAL_FORMS = (Literal, Annotated, Optional, Union)  # no types without their arguments
RANGES: Mapping[str, Callable[..., ranges.Range]] = {kind.__name__: kind for kind in get_args(ranges.Range)}
DEEPEST = 6  # aliases of aliases


def from_text(module: Module, node: ast.expr) -> Any:
    """Return the type of an annotation in the source of `module`.

    Raises:
        UnknownAnnotationError: The text does not determine the type, and the module is not of torch or this package.
    """
    reader = _Reader(module, is_known(module.name))
    try:
        found = reader.read(node)
        if found in SPECIAL_FORMS:
            raise TypeError(f"{found} without arguments")
    except (TypeError, ValueError, SyntaxError):  # any form of annotation may be met
        if reader.known:
            return Any
        raise UnknownAnnotationError(ast.unparse(node)) from None
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads annotations of one module.

    Args:
        module: The module whose names the annotation uses.
        known: The annotation belongs to PyTorch or this package.
        depth: Number of aliases that were followed.
    """

    module: Module
    known: bool
    depth: int = 0

    def read(self, node: ast.expr) -> Any:
        """Return the type; raise TypeError, ValueError or SyntaxError for a form that is not understood."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return self.read(ast.parse(node.value, mode="eval").body)
            if node.value is None:
                return None
        if isinstance(node, ast.BinOp):
            return union([self.read(node.left), self.read(node.right)])
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            is_standard = self.known or ast.unparse(node.value) in STANDARD_MODULES
            return PLAIN_NAMES[node.attr] if is_standard and node.attr in PLAIN_NAMES else self._opaque(self.module)
        raise ValueError(ast.unparse(node))

    def _name(self, name: str) -> Any:
        if name in PLAIN_NAMES and (self.known or not _is_redefined(self.module, name)):
            return PLAIN_NAMES[name]
        located = definition(self.module, name) if self.depth < DEEPEST else None
        if located is None:
            return self._opaque(self.module)
        home, statement = located
        is_followed = is_known(home.name) or not self.known  # not from PyTorch into the standard library
        if is_followed and isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            return _Reader(home, self.known or is_known(home.name), self.depth + 1).read(statement.value)
        if isinstance(statement, ast.ClassDef) and home.name.startswith("resnet_cli.") and _is_enum(statement):
            raise UnknownAnnotationError(name)
        return self._opaque(home)

    def _opaque(self, home: Module) -> Any:
        if self.known or is_known(home.name):
            return Opaque
        raise ValueError("a name of another package")

    def _subscript(self, node: ast.Subscript) -> Any:
        base = self.read(node.value)
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base is Opaque or base is Any:
            return base
        if base is Literal:
            return Literal[tuple(map(ast.literal_eval, items))]
        if base is Annotated:
            return with_ranges(self.read(items[0]), map(_metadata, items[1:]))
        inner = tuple(... if isinstance(i, ast.Constant) and i.value is ... else self.read(i) for i in items)
        if base in (Optional, Union):
            return union([*inner, None] if base is Optional else inner)
        if base in (dict, Mapping) and len(inner) != 2:
            raise TypeError("a mapping has keys and values")
        return base[inner]


def _metadata(node: ast.expr) -> ranges.Range | None:
    """Return `AtLeast(1)` in an annotation as an object; None for constants, which restrict nothing."""
    if isinstance(node, ast.Constant):
        return None
    if not isinstance(node, ast.Call):
        raise ValueError(ast.unparse(node))
    name = ast.unparse(node.func).rpartition(".")[2]
    if name not in RANGES:
        raise ValueError(ast.unparse(node))
    keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return RANGES[name](*map(ast.literal_eval, node.args), **keywords)


def _is_redefined(module: Module, name: str) -> bool:
    """Return whether a module binds this name to something other than the standard library's object."""
    statements: Iterable[ast.stmt] = [statement for defined, statement, _ in module.definitions() if defined == name]
    return any(not (isinstance(s, ast.ImportFrom) and module.origin(s) in STANDARD_MODULES) for s in statements)


def _is_enum(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith(("Enum", "Flag")) for base in node.bases)
