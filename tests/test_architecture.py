"""The shape of the code: components in layers, imports from lower layers only, heavy imports that come late."""

import ast
import itertools
import re
import subprocess
import sys
from functools import cache

# The layers from the bottom up, in reading order. A component is a folder, or a single file at the package's root. It
# imports from layers below its own, and nothing from its own layer.
LAYERS = [
    ["errors", "files", "heads", "processes", "seeding", "streams", "warning_filters"],
    ["config"],
    ["distributed"],
    ["optimizers", "schedules", "losses", "models", "data", "training", "runs", "loggers", "plots"],
    ["analysis", "report"],
    ["session"],
    ["inference"],
    ["hydra_app", "evaluation", "export"],
    ["sweeps", "info", "inspection"],
    ["planning"],
    ["commands"],
]
# Components inside a component, lowest first. Its own files may be above or below them, but not in a circle.
INNER_COMPONENTS = {"models": ["layers", "initialisation"], "data": ["images", "datasets", "loading"],
               "session": ["find"], "sweeps": ["search"], "commands": ["train"]}  # fmt: skip
ROOT = [
    "__init__", "__main__", "errors", "files", "heads", "losses", "processes", "seeding", "streams", "warning_filters",
]  # fmt: skip
BASE = 0  # components of the base layer may import one another


def test_layers_in_the_design_document_are_those_of_this_test(repository):
    text = (repository / "docs" / "design.md").read_text(encoding="utf-8")
    drawing = re.search(r"\n\n((?: {4}.*\n)+)\n`tests/test_architecture", text)[1]
    components = {component for layer in LAYERS for component in layer}
    drawn = [list(itertools.takewhile(components.__contains__, line.split())) for line in drawing.splitlines()]
    assert [sorted(layer) for layer in drawn] == [sorted(layer) for layer in reversed(LAYERS)]


def package_files(repository):
    return sorted((repository / "resnet_cli").rglob("*.py"))


def module_of(path, repository):
    parts = path.relative_to(repository).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_statements(path):
    """Imports of a file, wherever they stand: at the top, inside functions and under TYPE_CHECKING."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(path, repository):
    """Modules of the package that a file imports."""
    here = module_of(path, repository).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "resnet_cli")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] != "resnet_cli":
                continue
            for alias in node.names:
                name = f"{module}.{alias.name}"
                file = repository / name.replace(".", "/")
                yield name if file.with_suffix(".py").exists() or file.is_dir() else module


def component_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def layer_of(component):
    return next(i for i, components in enumerate(LAYERS) if component in components)


def arrows(repository):
    """Pairs of modules, importing and imported, in different components; the package's own `__init__` is not one."""
    for path in package_files(repository):
        module = module_of(path, repository)
        for other in imports_of(path, repository):
            if (
                component_of(module) not in (component_of(other), "__init__", "__main__")
                and component_of(other) != "__init__"
            ):
                yield module, other


def test_components_are_the_folders_and_the_files_of_the_root(repository):
    assert sorted(path.stem for path in (repository / "resnet_cli").glob("*.py")) == ROOT
    folders = {p.name for p in (repository / "resnet_cli").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders == {component for components in LAYERS for component in components} - set(ROOT)
    inner = {p.parent.relative_to(repository / "resnet_cli").as_posix() for p in package_files(repository)}
    assert {name for name in inner if "/" in name} == {
        f"{a}/{b}" for a, components in INNER_COMPONENTS.items() for b in components
    }


def test_imports_are_from_lower_layers(repository):
    wrong = [
        f"{module} imports {other}"
        for module, other in arrows(repository)
        if layer_of(component_of(other)) >= layer_of(component_of(module))
        and not layer_of(component_of(other)) == layer_of(component_of(module)) == BASE
    ]
    assert wrong == []


def test_inner_components_import_from_lower_ones_too(repository):
    wrong = []
    for path in package_files(repository):
        module = module_of(path, repository)
        order = INNER_COMPONENTS.get(component_of(module), [])
        parts = path.relative_to(repository / "resnet_cli").parts
        inner = parts[1] if len(parts) == 3 else ""
        for other in imports_of(path, repository) if inner in order else ():
            there = other.split(".")[2] if component_of(other) == component_of(module) and other.count(".") >= 2 else ""
            if there in order and order.index(there) > order.index(inner):
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_modules_do_not_import_in_circles(repository):
    """`__init__` files, which re-export what others define, are left out."""
    edges = {
        module_of(path, repository): set(imports_of(path, repository))
        for path in package_files(repository)
        if path.name != "__init__.py"
    }
    done = set()

    def visit(module, trail):
        assert module not in trail, f"circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for other in edges.get(module, ()):
                visit(other, [*trail, module])
            done.add(module)

    for module in edges:
        visit(module, [])


def test_every_form_of_import_is_found(tmp_path):
    component = tmp_path / "resnet_cli" / "models"
    component.mkdir(parents=True)
    for name in ("errors", "session"):
        (tmp_path / "resnet_cli" / f"{name}.py").touch()
    file = component / "net.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport resnet_cli.errors\nif TYPE_CHECKING:\n    from .. import session\n"
        "def f():\n    from resnet_cli import session as s\n    from resnet_cli.session import train\n"
    )
    found = list(imports_of(file, tmp_path))
    assert found == ["resnet_cli.errors", "resnet_cli.session", "resnet_cli.session", "resnet_cli.session"]


def test_hydra_and_omegaconf_stay_at_the_edge(repository):
    edge = {"hydra_app", "sweeps", "commands"}
    for path in package_files(repository):
        component = path.relative_to(repository / "resnet_cli").parts[0]
        for node in import_statements(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            uses = any(n.split(".")[0] in ("hydra", "omegaconf") for n in names)
            assert not uses or component in edge, f"{path.name} imports {names}"


def test_files_stay_small(repository):
    long = {
        p.name: n for p in package_files(repository) if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


def runs_without(code, tmp_path):
    """Run code in a fresh interpreter in which `imported(*modules)` says which of them are there."""
    begin = "import sys\ndef imported(*modules): return set(modules) & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_torch_is_not_imported_on_the_way_to_help_or_a_typo(tmp_path):
    """One process, in which help comes first: it needs even less."""
    late = ["resnet_cli.config.validation", "resnet_cli.runs.folder", "multiprocessing"]
    heavy = ["torch", "torchvision", "matplotlib", "numpy"]
    runs_without(
        "from resnet_cli.commands.train import run\n"
        f"for late, arguments in [({late}, ['--help']), ([], ['model=resnet20', '--cfg', 'job']),\n"
        "                         ([], ['model.depht=20']), ([], ['modle=x'])]:\n"
        "    sys.argv[1:] = arguments\n"
        "    try: run(arguments)\n"
        "    except SystemExit: pass\n"
        f"    assert not (found := imported(*{heavy}, *late)), (arguments, found)\n",
        tmp_path,
    )


def test_companions_import_no_torch_for_help_and_wrong_flags(tmp_path):
    runs_without(
        "from importlib import import_module\n"
        "for command in ['data', 'eval', 'export', 'info', 'predict', 'report']:\n"
        "    run = import_module(f'resnet_cli.commands.{command}').run\n"
        "    for arguments, expected in [(['--help'], 0), (['--formt', 'x'], 2)]:\n"
        "        status = run(arguments)\n"
        "        found = imported('torch', 'torchvision', 'matplotlib')\n"
        "        assert (status, found) == (expected, set()), (command, arguments, status, found)\n",
        tmp_path,
    )
