"""CONTRIBUTING can be followed: its recipes work as written, its commands exist, its components and terms exist."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

# A path alone on its line, perhaps with `(add)`, then a block of code.
BLOCK = re.compile(r"^`([\w/.]+)`( \(add\))?:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    (resnet-[a-z]+) ?(.*)$", re.MULTILINE)
COPIED = [
    "resnet_cli",
    "conf",
    "tests/support",
    "tests/conftest.py",
    "tests/__init__.py",
    "pyproject.toml",
    "README.md",
]

# Runs commands one after the other in one process: [[module, function], arguments] from standard input.
DRIVER = """
import importlib, json, sys
for module, arguments in json.load(sys.stdin):
    print("==", module, arguments, flush=True)
    sys.argv = [module, *arguments]
    found = importlib.import_module(module)
    run = getattr(found, "run", None) or importlib.import_module(module + ".main").run
    status = run(arguments)
    assert status == 0, (module, arguments, status)
"""


@pytest.fixture(scope="module")
def contributing(repository):
    return (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipes(contributing):
    return contributing.partition("## Adding something")[2].partition("\n## ")[0]


def added(path, text, block):
    """The text of a file after the lines of an `(add)` block were put into it."""
    if path.endswith(".toml"):
        table, lines = block.split("\n", 1)
        assert f"{table}\n" in text, f"{path} has no {table}"
        return text.replace(f"{table}\n", f"{table}\n{lines}")
    if not path.endswith("__init__.py"):
        return f"{text}\n\n{block}"
    imports, _, names = block.partition("\n__all__ = [\n")
    assert text.count("\n__all__ = [") == 1
    return text.replace("\n__all__ = [", f"{imports.rstrip()}\n\n__all__ = [\n{names.rpartition(']')[0]}")


@pytest.fixture(scope="module")
def copy(repository, recipes, tmp_path_factory):
    """A copy of the repository in which every recipe was followed."""
    folder = tmp_path_factory.mktemp("followed")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (repository / name).is_dir():
            shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(repository / name, folder / name)
    for path, is_added, block in BLOCK.findall(recipes):
        file = folder / path
        assert file.exists() == bool(is_added), f"{path} is {'not ' if is_added else ''}there"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(added(path, file.read_text(), block) if is_added else block)
    return folder


def run_python(folder, *arguments, cwd=None, **kwargs):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd or folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}, **kwargs,
    )  # fmt: skip


def test_every_recipe_has_code_a_config_and_a_test(recipes):
    found = {}
    for section in recipes.split("\n### ")[1:]:
        title = section.splitlines()[0]
        found[title] = {path.split("/")[0] for path, _, _ in BLOCK.findall(section)}
        assert COMMAND.search(section), title
    expected = {"resnet_cli", "conf", "tests"}
    assert found.pop("A command") == {"resnet_cli", "pyproject.toml", "tests"}
    assert found == dict.fromkeys(["A model", "A data set", "An augmentation", "An optimizer", "A logger"], expected)


@pytest.mark.slow
def test_recipes_tests_pass_in_a_copy_that_follows_them(copy, recipes):
    tests = [path for path, _, _ in BLOCK.findall(recipes) if path.startswith("tests/")]
    done = run_python(
        copy,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=-q --import-mode=importlib",
        *tests,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_recipes_commands_run_in_a_copy_that_follows_them(copy, recipes, tmp_path):
    scripts = tomllib.loads((copy / "pyproject.toml").read_text())["project"]["scripts"]
    commands = []
    for name, line in COMMAND.findall(recipes):
        arguments = shlex.split(line, comments=True)
        quick = ["trainer.max_batches=2"] if name == "resnet-train" else []
        commands.append([scripts[name].partition(":")[0], arguments + quick])
    assert len(commands) >= 10
    done = run_python(copy, "-c", DRIVER, cwd=tmp_path, input=json.dumps(commands))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().splitlines()[-10:] == list("0123456789")  # resnet-classes, the last one


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is in the dev extra")
def test_recipes_pass_the_linter_once_their_imports_are_sorted(copy):
    subprocess.run(["ruff", "check", "-q", "--fix", "--select", "I,RUF022", copy], check=True)
    for command in (["check", "-q", "--output-format", "concise"], ["format", "-q", "--check"]):
        done = subprocess.run(["ruff", *command, copy], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_components_are_those_of_the_package(repository, contributing):
    table = contributing.partition("## Components and layers")[2].partition("\n## ")[0]
    components = re.findall(
        r"`(\w+)`", "".join(line.split("|")[2] for line in table.splitlines() if line.startswith("| "))
    )
    package = repository / "resnet_cli"
    there = [p.parent.name for p in package.glob("*/__init__.py")] + [p.stem for p in package.glob("[!_]*.py")]
    assert sorted(component for component in components if component != "resnet_cli") == sorted(there)


def test_commands_of_the_checks_are_sessions_files_and_markers(repository, contributing):
    nox = ast.parse((repository / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in nox.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    for names in re.findall(r"nox -s ([\w ]+)`", contributing):
        assert set(names.split()) <= sessions
    for path in re.findall(r"`(?:pytest|python) ([\w/.]+/[\w.]*)", contributing):
        assert (repository / path).exists(), path
    config = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {marker.partition(":")[0] for marker in config["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(re.findall(r"-m '?(\w+)", contributing)) <= markers
    assert (repository / ".ci" / "run").exists()


def test_ci_and_nox_run_the_test_command_of_the_readme(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    install, test = re.search(r"^ +(pip install -e '\.\[test\]') && (pytest.*?) *#", readme, re.MULTILINE).groups()
    script = (repository / ".ci" / "run").read_text(encoding="utf-8")
    assert install.replace("install", "install -q --no-compile") in script
    nox = (repository / "noxfile.py").read_text(encoding="utf-8")
    assert f"session.run({', '.join(json.dumps(word) for word in test.split())}" in nox
    default = ast.literal_eval(re.search(r"^nox.options.sessions = (.*)", nox, re.MULTILINE)[1])
    run = " ".join(re.findall(r"^nox -s ((?:\w+ )+)", script, re.MULTILINE)).split()
    assert sorted(run) == sorted(default)


def test_commit_hooks_are_local_and_need_no_network(repository):
    config = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    dev = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    programs = {re.split(r"[<>=\[;]", requirement)[0] for requirement in dev["dev"]}
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert len(hooks) >= 4
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0] in programs | {"python"}
    assert "pre-commit" in programs


def test_glossary_is_in_order_and_defines_each_word_once(contributing):
    table = contributing.partition("## Glossary")[2].partition("\n## ")[0]
    words = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    assert words == sorted(set(words), key=str.casefold)
    for word in ("run", "run folder", "job", "sweep", "search", "trial", "group", "option", "split", "micro-batch",
                 "block", "unit", "stage", "shortcut", "branch", "trunk", "head", "resident", "backend", "warm-up",
                 "logger", "epoch", "step", "resume"):  # fmt: skip
        assert word in words


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/design.md", "examples/README.md"]
)
def test_links_lead_to_files_of_the_repository(repository, page):
    path = repository / page
    for link in re.findall(r"\]\(([^):#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
