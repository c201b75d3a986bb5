"""What is wrong in a stored config: one line with the file and the line in it."""

import pytest

from resnet_cli.config import stored
from resnet_cli.errors import InputError
from resnet_cli.runs.reading import load_config
from tests.support.wrong_yaml import WRONG_YAML

CASES = {**WRONG_YAML, "alias": (b"a: &x 1\nb: *x\n", 2, "aliases are not allowed")}


@pytest.mark.parametrize("read", [stored.read, load_config])
@pytest.mark.parametrize(("content", "line", "words"), CASES.values(), ids=CASES)
def test_a_wrong_stored_config_is_told_with_file_and_line(tmp_path, monkeypatch, read, content, line, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "config.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read(path)
    [problem] = raised.value.problems
    assert problem.startswith(f"run/config.yaml:{line}: not a ")
    assert words in problem


@pytest.mark.parametrize("read", [stored.read, load_config])
@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""', "!!timestamp a"])
def test_a_value_that_is_not_of_its_tag(tmp_path, read, value):
    path = tmp_path / "config.yaml"
    path.write_text(f"x: {value}\n")
    with pytest.raises(InputError, match="a value is not of the type that its tag names"):
        read(path)
