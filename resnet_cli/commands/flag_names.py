"""The flags of the companion commands, read from their source: importing them would make completion too slow."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from resnet_cli.config.source_files import Module, definition, module_source

COMPANIONS = ("info", "data", "eval", "predict", "export", "report")


@dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Args:
        name: Its name, such as `--split`.
        takes_value: Whether a value follows it.
        choices: The allowed values; empty if they are not listed.
        help: What it does.
    """

    name: str
    takes_value: bool
    choices: tuple[str, ...]
    help: str


def companion_flags(command: str) -> dict[str, Flag]:
    """Return the flags of `info`, `data`, `eval`, `predict`, `export` or `report` by name."""
    found = {
        "--help": Flag("--help", False, (), "show the help"),
        "--version": Flag("--version", False, (), "print the version"),
    }
    module = module_source(f"resnet_cli.commands.{command}")
    for flag in _flags(module, module.tree) if module else ():
        found.setdefault(flag.name, flag)
    return found


def _flags(module: Module, tree: ast.AST) -> Iterator[Flag]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield from _parse_add_argument(node, module, tree)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("add_"):
            located = definition(module, node.func.id)
            if located is not None:
                yield from _flags(*located)


def _parse_add_argument(node: ast.Call, module: Module, tree: ast.AST) -> Iterator[Flag]:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    action = keywords.get("action")
    takes_value = not (isinstance(action, ast.Constant) and str(action.value).startswith(("store_", "version")))
    choices = tuple(_literal_strings(keywords.get("choices"), module))
    text = keywords.get("help")
    shown = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
    for argument in node.args:
        for name in _flag_names(argument, module, tree):
            if name.startswith("-"):
                yield Flag(name, takes_value, choices, shown)


def _flag_names(argument: ast.expr, module: Module, tree: ast.AST) -> list[str]:
    """Return the flags that an argument stands for: the literal, or the items of the loop that binds its name."""
    if isinstance(argument, ast.Name):
        loops = (
            loop for loop in ast.walk(tree) if isinstance(loop, ast.For) and ast.unparse(loop.target) == argument.id
        )
        return [name for loop in loops for name in _literal_strings(loop.iter, module)]
    return _literal_strings(argument, module)


def _literal_strings(node: ast.expr | None, module: Module) -> list[str]:
    """Return the strings in a literal tuple, list or dictionary, or in one that a name refers to."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.Tuple | ast.List):
        return [text for item in node.elts for text in _literal_strings(item, module)]
    if isinstance(node, ast.Dict):
        return [text for item in node.keys for text in _literal_strings(item, module)]
    if isinstance(node, ast.Name):
        located = definition(module, node.id)
        return _literal_strings(getattr(located[1], "value", None), located[0]) if located else []
    if isinstance(node, ast.Starred):
        return _literal_strings(node.value, module)
    if isinstance(node, ast.Call) and node.args:  # tuple(FORMATS)
        return _literal_strings(node.args[0], module)
    return []
