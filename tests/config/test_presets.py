"""Presets: each has its line, the figures in it are those of the table in the documents, names are found."""

import re

import pytest

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.presets import find_preset, find_presets, preset_target, select_group
from resnet_cli.errors import InputError

PRESETS = find_presets([CONFIG_FOLDER])
ROW = re.compile(r"^\| `(\w+)` \| ([\d,]+) \| [\d.]+ \| (-|about [\d.]+|[\d.]+)", re.MULTILINE)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.override)
def test_each_preset_has_its_line(preset):
    assert 10 < len(preset.summary) < 280
    assert "\n" not in preset.summary


def test_the_lines_have_the_figures_of_the_table(repository):
    texts = [
        path.read_text(encoding="utf-8") for path in (repository / "README.md", *(repository / "docs").rglob("*.md"))
    ]
    rows = {found[1]: found for text in texts for found in ROW.finditer(text)}
    assert len(rows) > 20
    for name, found in rows.items():
        summary = find_preset(PRESETS, f"model={name}").summary
        if "parameters" in summary and "as many parameters" not in summary:
            assert found[2] in summary
        if found[3] != "-":
            assert f"; {found[3]} " in summary
            assert "% error on CIFAR-10 in the paper" in summary
        else:
            assert "in the paper" not in summary


def test_names_are_sorted_by_their_numbers():
    names = [preset.name for preset in select_group(PRESETS, "model") if preset.name.startswith("resnet")]
    assert names[:5] == ["resnet", "resnet8", "resnet18", "resnet20", "resnet32"]


@pytest.mark.parametrize("name", ["resnet20", "model=resnet20", "model/resnet20"])
def test_a_preset_is_found_by_each_of_its_names(name):
    preset = find_preset(PRESETS, name)
    assert (preset.group, preset.name) == ("model", "resnet20")
    assert preset_target(preset, PRESETS) == "resnet_cli.models.CifarResNet"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet21", "resnet21: no such preset; did you mean resnet20?"),
        ("modl=resnet20", "modl: no such group; did you mean model?"),
        ("data=resnet20", "data=resnet20: no such preset of data"),
    ],
)
def test_other_names_are_refused(name, problem):
    with pytest.raises(InputError) as error:
        find_preset(PRESETS, name)
    assert str(error.value.problems[0]).startswith(problem)


def test_a_users_file_comes_before_the_built_in_one(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "resnet20.yaml").write_text("depth: 3\n")
    (tmp_path / "model" / "mine.yaml").write_text("# Mine. And more.\n_target_: a.B\n")
    presets = find_presets([tmp_path, CONFIG_FOLDER])
    assert not find_preset(presets, "model=resnet20").is_built_in
    assert find_preset(presets, "mine").summary == "Mine"
    assert len(presets) == len(PRESETS) + 1
