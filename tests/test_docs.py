"""The generated pages of the documentation hold every key, option, flag and former name, and the notebook."""

import importlib
import json
import re
import tomllib

import pytest

from docs._ext.generated import GENERATORS, notebook_page
from docs._ext.key_reference import takes
from resnet_cli.config.config_schema import config_schema
from resnet_cli.config.messages import TEMPLATES
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.presets import find_presets
from resnet_cli.config.stored import SAFE_TO_CHANGE


def test_every_key_has_its_row():
    schema = config_schema([preset for preset in find_presets([CONFIG_FOLDER]) if preset.is_built_in])
    rows = set(re.findall(r"^\| `([^`]+)` \|", GENERATORS["keys"](), re.MULTILINE))
    for group, definition in schema["$defs"].items():
        for condition in definition["allOf"]:
            for key in set(condition["then"]["properties"]) - {"_target_"}:
                assert (key if group == "node" else f"{group}.{key}") in rows
    groups = {"model", "optimizer", "schedule", "loss", "data", "trainer", "logger"}
    assert {key.replace("seed_", "seed.") for key in schema["properties"]} - groups <= rows
    assert "trainer.averaging_decay" in rows
    assert "trainer.averaging_deca" not in rows


def test_every_key_has_a_meaning_but_those_of_torch_that_no_option_sets():
    empty = re.findall(r"^\| `([^`]+)` \|.*\|  \|$", GENERATORS["keys"](), re.MULTILINE)
    rare = ("maximize", "capturable", "differentiable", "decoupled_weight_decay")
    assert set(empty) <= {f"optimizer.{key}" for key in rare}


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("trainer.device", "`auto`"),
        ("trainer.precision", "`auto`"),  # the signature has fp32
        ("trainer.epochs", "`20`"),
        ("model.depth", "of the option"),
        ("model.order", "of the option"),  # preactivation in an option that inherits from another
        ("data.file", "required"),
        ("seed", "`0`"),
    ],
)
def test_default_of_a_key_is_that_of_the_options(key, default):
    rows = re.findall(rf"^\| `{re.escape(key)}` \|(.*)", GENERATORS["keys"](), re.MULTILINE)
    assert rows
    assert all(f"| {default} |" in row for row in rows if key != "model.depth" or "8, 14" in row)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number ≥ 0 and < 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "integer ≥ 1 or null"),
        ({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, "integer ≥ 0 and ≤ 2⁶³ - 1"),
        ({"enum": ["auto", None, 3]}, "`auto`, `null`, `3`"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]}, "[number, string]"),
    ],
)
def test_what_a_key_takes_is_said_in_words(schema, words):
    assert takes(schema) == words


def test_every_option_has_its_row():
    text = GENERATORS["options"]()
    assert all(f"| `{preset.override}` | {preset.summary[:5]}" in text for preset in find_presets([CONFIG_FOLDER]))


def test_every_flag_of_every_command_has_its_row(repository):
    sections = dict(
        re.findall(r"^## (resnet-\w+)\n(.*?)(?=^## |\Z)", GENERATORS["commands"](), re.MULTILINE | re.DOTALL)
    )
    scripts = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(sections) == set(scripts)
    for name in set(scripts) - {"resnet-train"}:
        parser = importlib.import_module(scripts[name].partition(":")[0])._parser()
        for flag in (flag for action in parser._actions for flag in action.option_strings):
            assert re.search(rf"^\| .*`{flag}[ `]", sections[name], re.MULTILINE), flag
    assert "| `--multirun`, `-m` |" in sections["resnet-train"]


def test_glossary_has_the_words_of_contributing():
    rows = GENERATORS["glossary"]().splitlines()
    assert rows[0].startswith("| word |")
    assert sum(row.startswith(("| key |", "| node |", "| option |", "| group |")) for row in rows) == 4


def test_notebook_is_a_page_with_its_outputs_and_nothing_is_run(repository, tmp_path):
    path = repository / "docs" / "residual_networks.ipynb"
    text = notebook_page(path, tmp_path / "pictures")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    pictures = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(list((tmp_path / "pictures").iterdir())) == len(pictures) == text.count("/_built/")
    assert all("".join(cell["source"]) in text for cell in cells)


def test_the_page_on_resuming_lists_every_key_that_may_change(repository):
    page = (repository / "docs" / "understand" / "exact_resume.md").read_text(encoding="utf-8")
    listed = re.findall(r"`([\w.]+)`", page.partition("\n## What you may change\n")[2])
    assert sorted(listed) == sorted({*SAFE_TO_CHANGE, "teacher"})  # the weights of a teacher are compared instead


def test_every_kind_of_problem_has_its_entry_with_a_line_that_is_printed_so(repository):
    section = (repository / "docs" / "errors.md").read_text(encoding="utf-8").partition("## Problems of a config")[2]
    entries = dict(re.findall(r"^### ([\w ]+)\n\n(.*?)(?=^##)", section, re.MULTILINE | re.DOTALL))
    assert set(entries) == set(TEMPLATES)
    for kind, entry in entries.items():
        (line,) = re.findall(r"^    error: [\w.]+: (.*)$", entry, re.MULTILINE)
        parts = re.split(r"(?<!\{)\{\w+\}", TEMPLATES[kind])
        words = [re.escape(part.replace("{{", "{").replace("}}", "}")) for part in parts]
        assert re.fullmatch(".*".join(words), line), kind
        assert "Cause" in entry, kind
        assert re.search("(Fix|fix):", entry), kind
