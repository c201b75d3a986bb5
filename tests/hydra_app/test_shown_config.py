"""--cfg PART -p KEY shows a node of the config, or says which key is meant."""

import re

import pytest

from resnet_cli.commands.train.main import run
from resnet_cli.hydra_app.shown_config import missing_package_explained, with_whole_config


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--cfg job -p trainr", "-p trainr: no such key; did you mean trainer?"),
        ("--cfg=job --package=model.dept", "-p model.dept: no such key; did you mean model.depth?"),
        ("-c job -p hydra.run.dir", "-p hydra.run.dir: is not in --cfg job; use --cfg hydra"),
        ("--cfg hydra -p model", "-p model: is not in --cfg hydra; use --cfg job"),
    ],
)
def test_a_key_that_is_not_shown_is_a_wrong_command(options, line, capsys):
    assert run([*options.split(), "model=resnet8"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {line}\n")


@pytest.mark.parametrize("option", ["--cfg=hydra", "--cfg hydra", "-c hydra", "--cfg all"])
def test_folders_of_hydra_refer_to_the_whole_config(option, capsys):
    for key, pattern in [
        ("hydra.run.dir", r"outputs/\S+-resnet8-\w{4}\n"),
        ("hydra.sweep.dir", r"multirun/\S+-resnet8\n"),
    ]:
        assert run([*option.split(), "-p", key, "model=resnet8"]) == 0
        captured = capsys.readouterr()
        assert re.fullmatch(pattern, captured.out)
        assert captured.err == ""


def test_a_value_of_null_is_printed(capsys):
    assert run(["--cfg", "job", "-p", "optimizer.head_lr", "model=resnet8"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("null\n", "")


@pytest.mark.parametrize("arguments", [[], ["--cfg", "job"], ["model=resnet8", "-p"]])
def test_other_arguments_stay_as_they_are(arguments):
    assert with_whole_config(arguments) == arguments
    with missing_package_explained(arguments):
        pass
