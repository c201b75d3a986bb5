"""The shape of the code: imports go one way, heavy ones come late, and the README's tree is the tree."""

import ast
import subprocess
import sys

import pytest

LAYERS = [
    {"errors", "ranges", "seeding", "sources", "schedule", "averaging", "metrics", "files", "curves", "logs", "models",
     "diagnose", "gradients", "allocator"},
    {"signatures", "values", "data", "optim", "eager", "run", "lock", "device", "checkpoint", "evaluation"},
    {"config", "stored", "state", "step", "progress", "feed", "verify", "trackers", "profiling"},
    {"compiled"},
    {"trainer", "trust", "report", "sweep"},
    {"build", "saver"},
    {"rehearsal"},
    {"start"},
    {"session"},
    {"commands"},
]  # fmt: skip


def layer_of(name):
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imported_parts(path):
    """Parts of the package that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "resnet_cli":
            rest = node.module.split(".")[1:]
            yield from [rest[0]] if rest else [alias.name for alias in node.names]


def package_files(repository):
    return sorted((repository / "resnet_cli").rglob("*.py"))


def test_imports_go_one_way(repository):
    package = repository / "resnet_cli"
    for path in package_files(repository):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for other in imported_parts(path):
            if other != part and other != "__file__":
                assert layer_of(other) <= layer_of(part), f"{path.name} imports {other}"


def test_modules_of_a_layer_do_not_import_in_circles(repository):
    package = repository / "resnet_cli"
    edges = {}
    for path in package_files(repository):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        edges.setdefault(part, set()).update(set(imported_parts(path)) - {part})
    edges.pop("__init__")

    def visit(part, trail):
        assert part not in trail, f"circle: {' -> '.join([*trail, part])}"
        for other in edges.get(part, ()):
            visit(other, [*trail, part])

    for part in edges:
        visit(part, [])


def test_hydra_and_omegaconf_stay_at_the_edge(repository):
    for path in package_files(repository):
        name = path.relative_to(repository / "resnet_cli").as_posix()
        if name == "config.py" or name.startswith("commands/"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in ("hydra", "omegaconf") for n in names), f"{name} imports {names}"


def test_files_stay_small(repository):
    long = {
        p.name: n for p in package_files(repository) if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


@pytest.mark.parametrize("arguments", [["--help"], ["model=resnet20", "--cfg", "job"], ["model.depht=20"], ["modle=x"]])
def test_torch_is_not_imported_on_the_way_to_help_or_a_typo(arguments, tmp_path):
    code = (
        "import sys; sys.argv[1:] = " + repr(arguments) + "\n"
        "from resnet_cli.commands.train.main import run\n"
        "try: run(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'numpy'}\n"
        "heavy |= {'resnet_cli.config.validation', 'resnet_cli.runs.folder'} if '--help' in sys.argv else set()\n"
        "heavy |= {'multiprocessing'} if '--help' in sys.argv else set()\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
