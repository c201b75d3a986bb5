"""Find where a dotted name is defined, from source text alone: nothing is imported or executed."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Specs of imported modules by their ids: as long as they are kept, no spec of a reloaded module gets an id of theirs.
_SPECS: dict[int, ModuleSpec | None] = {}

_untrusted_folders: ContextVar[tuple[Path, ...]] = ContextVar("untrusted_folders", default=())


def search_working_folder() -> None:
    """Let modules in the working folder be imported; it is searched last, so that it shadows nothing."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


@contextmanager
def modules_in(folders: Sequence[Path], *, trusted: bool) -> Iterator[None]:
    """Let modules be imported from folders inside this block, after the places that Python searches.

    Args:
        folders: The folders.
        trusted: False imports nothing from them; `untrusted_folder` then names the one that has a module.
    """
    if not trusted:
        token = _untrusted_folders.set(tuple(folders))
        try:
            yield
        finally:
            _untrusted_folders.reset(token)
        return
    added = search_folders(folders)
    try:
        yield
    finally:
        sys.path[:] = [path for path in sys.path if path not in added]


def search_folders(folders: Sequence[Path]) -> list[str]:
    """Let modules be imported from folders, which are searched last; return those that were not searched before."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    if added:
        sys.path += added
        importlib.invalidate_caches()
        forget_sources()
    return added


def untrusted_folder(module: str) -> Path | None:
    """Return the first folder with a module of those that `modules_in` does not trust; None if there is none."""
    folders = _untrusted_folders.get()
    return next((folder for folder in folders if PathFinder.find_spec(module, [str(folder)]) is not None), None)


def search_for(target: str) -> None:
    """Let the working folder be searched if it alone has the module that a dotted name begins with.

    Otherwise it is not: a package that is not installed and that others import if it is there, such as an image
    decoder, might lie in the folder of somebody else's run.
    """
    first = target.partition(".")[0]
    if first in sys.modules or not first.isidentifier() or _find_spec(first) is not None:
        return
    if PathFinder.find_spec(first, [str(Path.cwd())]) is not None:
        search_working_folder()
        forget_sources()


@dataclass(frozen=True)
class Module:
    """A parsed source file and what its top level defines."""

    name: str
    is_package: bool
    tree: ast.Module

    def definitions(self) -> Iterator[tuple[str, ast.stmt, str | None]]:
        """Yield each top-level name, the statement that binds it and, for an import, its original name."""
        for node in _statements(self.tree.body):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name, node, None
            elif isinstance(node, ast.ImportFrom | ast.Import):
                for alias in node.names:
                    yield alias.asname or alias.name, node, alias.name
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                yield from ((name, node, None) for name in names)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, node, None

    def origin(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that an import statement reads from."""
        if not node.level:
            return node.module or ""
        base = self.name.split(".")
        base = base[: len(base) - node.level + (1 if self.is_package else 0)]
        return ".".join([*base, *([node.module] if node.module else [])])


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield top-level statements, including those inside `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(s for h in node.handlers for s in h.body)])


def _find_spec(name: str) -> ModuleSpec | None:
    """Return the spec of a module without importing its parents."""
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ValueError, ImportError):
        return None
    full = first
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full = f"{full}.{part}"
        spec = PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec


def import_of(name: str) -> int:
    """Return a number that changes when the module that a dotted name begins with is imported or reloaded."""
    spec = getattr(_imported(name), "__spec__", None)
    _SPECS[id(spec)] = spec
    return id(spec)


def is_defined_interactively(name: str) -> bool:
    """Return whether a dotted name begins with a module that no import made, such as `__main__` of a notebook.

    What it contains can be defined anew at any time.
    """
    module = _imported(name)
    return name.partition(".")[0] == "__main__" or (module is not None and getattr(module, "__spec__", None) is None)


def _imported(name: str) -> ModuleType | None:
    """Return the module that a dotted name begins with, if it is imported."""
    parts = name.split(".")
    prefixes = (".".join(parts[:cut]) for cut in range(len(parts), 0, -1))
    return next((sys.modules[prefix] for prefix in prefixes if prefix in sys.modules), None)


def module_source(name: str) -> Module | None:
    """Return the parsed source of a module as it was imported, if it is; None if it has no source file."""
    return _parsed(name, import_of(name))


@lru_cache(maxsize=256)
def _parsed(name: str, imported: int) -> Module | None:  # `imported` is a part of the key of the cache alone
    spec = _find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_bytes())  # bytes, since a file may declare its encoding
    return Module(name, spec.submodule_search_locations is not None, tree)


def forget_sources() -> None:
    """Parse sources anew, since modules may be found at other places now."""
    _parsed.cache_clear()


def definition(module: Module, name: str, depth: int = 0) -> tuple[Module, ast.stmt] | None:
    """Return the statement that defines `name` and its module, following re-exports."""
    found = None
    for defined, node, original in module.definitions():
        if defined == name and (found is None or not isinstance(node, ast.Assign)):
            found = node, original
    if depth > 8:
        return None
    if found is None:
        return _find_in_star_imports(module, name, depth + 1)
    node, original = found
    if isinstance(node, ast.ImportFrom) and original is not None:
        source = module_source(module.origin(node))
        return definition(source, original, depth + 1) if source else None
    return (module, node) if not isinstance(node, ast.Import) else None


def _find_in_star_imports(module: Module, name: str, depth: int) -> tuple[Module, ast.stmt] | None:
    """Return the definition of `name` that comes from one of the module's `from x import *`."""
    for defined, node, _ in module.definitions():
        if defined == "*" and isinstance(node, ast.ImportFrom):
            source = module_source(module.origin(node))
            located = definition(source, name, depth) if source else None
            if located is not None:
                return located
    return None
