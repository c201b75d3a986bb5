"""Descriptions of the arguments of a callable from its docstring, and of the keys of a YAML file from its comments."""

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import yaml

from resnet_cli.config.source_files import Module, definition, module_source

SECTION = re.compile(r"^(?P<indent> *)(Args|Arguments|Parameters):\s*$", re.MULTILINE)
ARGUMENT = re.compile(r"^\*{0,2}(\w+)(?: \([^)]*\))?: +(.*)$")
COMMENT = re.compile(r"\s#\s+(.*)$")


@lru_cache(maxsize=256)
def argument_descriptions(target: str) -> Mapping[str, str]:
    """Return the descriptions of arguments in the docstring of a class or function, by name; nothing is imported.

    Args:
        target: The dotted name.
    """
    module_name, _, name = target.rpartition(".")
    module = module_source(module_name)
    located = definition(module, name) if module else None
    if located is None:
        return {}
    found: dict[str, str] = {}
    for text in _docstrings(*located):
        for argument, description in _arguments(text).items():
            found.setdefault(argument, description)
    return found


def _docstrings(module: Module, node: ast.stmt) -> list[str]:
    """Return the docstrings of a function, or of a class, its `__init__` and its bases, in order of precedence."""
    if isinstance(node, ast.FunctionDef):
        return [ast.get_docstring(node) or ""]
    if not isinstance(node, ast.ClassDef):
        return []
    inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    found = [ast.get_docstring(node) or "", *(ast.get_docstring(item) or "" for item in inits)]
    for base in node.bases:
        located = definition(module, base.id) if isinstance(base, ast.Name) else None
        if located is not None:
            found += _docstrings(*located)
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """Return the entries of the section `Args:` of a docstring in Google's style."""
    section = SECTION.search(docstring)
    if section is None:
        return {}
    found: dict[str, str] = {}
    name, indent = "", None
    for line in docstring[section.end() :].splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth <= len(section["indent"]):
            break
        indent = depth if indent is None else indent
        entry = ARGUMENT.match(line.strip()) if depth == indent else None
        if entry is not None:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] += f" {line.strip()}"
    return found


def key_comments(file: Path) -> dict[str, str]:
    """Return the comments after the keys of a YAML file, by the full key inside the file."""
    return key_comments_of(file.read_text(encoding="utf-8"))


def key_comments_of(text: str) -> dict[str, str]:
    """Return the comments after the keys of a YAML text, by the full key inside it."""
    lines = text.splitlines()
    found: dict[str, str] = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            is_block = not value.flow_style if isinstance(value, yaml.CollectionNode) else value.style in ("|", ">")
            comment = COMMENT.search(lines[key.start_mark.line if is_block else value.end_mark.line])
            if is_block:
                walk(value, f"{prefix}{key.value}.")
            if comment:
                found[f"{prefix}{key.value}"] = comment[1]

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, "")
    return found
