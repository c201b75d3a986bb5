"""The public names are frozen: a name that users import or a config stores neither moves nor vanishes unnoticed."""

import importlib
import re
from pathlib import Path
from types import UnionType

import pytest
import yaml

import resnet_cli
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.signatures import locate
from tests.support.public_names import METHODS, PLUGIN_TARGETS, PUBLIC, TARGETS


def targets_in(value):
    if isinstance(value, dict):
        yield from ([value["_target_"]] if "_target_" in value else [])
        for item in value.values():
            yield from targets_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from targets_in(item)


@pytest.mark.parametrize("module", [module for module in PUBLIC if hasattr(importlib.import_module(module), "__all__")])
def test_public_names_are_those_of_all(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module])


@pytest.mark.parametrize("name", [f"{module}.{name}" for module, names in PUBLIC.items() for name in names])
def test_public_name_can_be_imported(name):
    found = locate(name)
    assert callable(found) or isinstance(found, UnionType)  # an annotation, which Python 3.14 does not let call


def test_names_that_are_imported_on_first_access_are_listed():
    assert set(PUBLIC["resnet_cli"]) <= set(dir(resnet_cli))


@pytest.mark.parametrize("group", TARGETS)
def test_targets_of_a_group_are_frozen(group):
    nodes = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CONFIG_FOLDER / group).glob("*.yaml")]
    assert sorted({node["_target_"] for node in nodes if "_target_" in node}) == sorted(TARGETS[group])


def test_every_target_in_the_config_is_public():
    found = {
        target
        for path in CONFIG_FOLDER.rglob("*.yaml")
        for target in targets_in(yaml.safe_load(path.read_text(encoding="utf-8")))
    }
    public = {f"{module}.{name}" for module, names in PUBLIC.items() for name in names}
    ours = {target for target in found if not target.startswith("torch.")}
    assert ours - public == PLUGIN_TARGETS


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_the_teaching_interface_exist(name):
    assert [method for method in METHODS[name] if not hasattr(locate(name), method)] == []


def test_version_is_that_of_the_distribution_and_of_the_changelog(repository):
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0] == resnet_cli.__version__
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == resnet_cli.__version__
    pyproject = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert 'path = "resnet_cli/__init__.py"' in pyproject.partition("[tool.hatch.version]")[2]
    assert (Path(resnet_cli.__file__).parent / "py.typed").exists()
