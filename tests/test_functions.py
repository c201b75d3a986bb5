"""Functions of the package are short, shallow and take few parameters; those whose signature is the schema are wide."""

import ast

import yaml

from resnet_cli.config.groups import CONFIG_GROUPS

LONGEST, DEEPEST, WIDEST = 60, 3, 8  # lines without the docstring, levels of nesting, parameters
BLOCKS = ast.If | ast.For | ast.While | ast.With | ast.Try | ast.Match


def functions(repository):
    """Every function of the package with its file."""
    for path in sorted((repository / "resnet_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(repository / "resnet_cli").as_posix(), node


def lines_of(function):
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def nesting(body):
    """Levels of blocks inside `body`; `elif` is on the level of its `if`, nested functions count for themselves."""
    deepest = 0
    for node in body:
        if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            deepest = max(deepest, 1 + nesting(node.body), nesting(node.orelse))
        elif isinstance(node, BLOCKS):
            inner = [*getattr(node, "body", []), *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            inner += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
            inner += [statement for case in getattr(node, "cases", []) for statement in case.body]
            deepest = max(deepest, 1 + nesting(inner))
    return deepest


def parameters_of(function):
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def schema_functions(repository):
    """Names of the functions that config files name and of those that read further keys of a group."""
    targets = {reader for group in CONFIG_GROUPS.values() for reader in group.readers}
    for file in (repository / "conf").rglob("*.yaml"):
        for node in nodes_of(yaml.safe_load(file.read_text(encoding="utf-8"))):
            targets.add(node.get("_target_", ""))
    return {target.rpartition(".")[2] for target in targets}


def nodes_of(value):
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes_of(item)


def test_functions_are_short(repository):
    assert {f"{file} {f.name}": n for file, f in functions(repository) if (n := lines_of(f)) > LONGEST} == {}


def test_functions_are_shallow(repository):
    assert {f"{file} {f.name}": n for file, f in functions(repository) if (n := nesting(f.body)) > DEEPEST} == {}


def test_functions_take_few_parameters_unless_their_signature_is_the_schema(repository):
    schema = schema_functions(repository) | {"__init__"}
    wide = {f"{file} {f.name}": n for file, f in functions(repository) if (n := len(parameters_of(f))) > WIDEST}
    assert {name: n for name, n in wide.items() if name.split()[-1] not in schema} == {}


def test_the_measures_see_what_they_are_for():
    function = ast.parse(
        "def f(self, a, *, b):\n    '''One\n    two.'''\n    if a:\n        pass\n    elif b:\n        for x in a:\n"
        "            try:\n                pass\n"
        "            finally:\n                while b:\n                    pass\n"
    ).body[0]
    assert (lines_of(function), nesting(function.body), parameters_of(function)) == (10, 4, ["a", "b"])
