"""Empty values, as of shell variables that are not set: refused by their keys wherever a path is meant."""

import pytest

from resnet_cli.commands import data, export, info, predict, report
from resnet_cli.commands import eval as evaluate
from tests.support.runs import tiny

FOLDER = ("data=image_folder", "data.root=pictures")
TRAIN = {
    "data.root": ["data=mnist", "data.root="],
    "data.root of pictures": ["data=image_folder", "data.root="],
    "data.root of a table": ["data=csv", "data.file=x.csv", "data.root="],
    "data.file": ["data=csv", "data.file="],
    "data.file of arrays": ["data=arrays", "data.file="],
    "data.labels_file": ["data=arrays", "data.file=x.npy", "data.labels_file="],
    "data.cache": [*FOLDER, "data.cache="],
    "data.cache of spaces": [*FOLDER, "data.cache=' '"],
    "hydra.run.dir": tiny("hydra.run.dir="),
    "hydra.output_subdir": tiny("hydra.output_subdir="),
    "hydra.output_subdir of a sweep": ["-m", *tiny("seed=0,1", "hydra.output_subdir=")],
    "hydra.sweep.dir": ["-m", *tiny("seed=0,1", "hydra.sweep.dir=")],
    "hydra.sweep.subdir": ["-m", *tiny("seed=0,1", "hydra.sweep.subdir=")],
    "resume": tiny("resume="),
    "resume of a sweep": ["-m", "resume="],
    "init_from": tiny("init_from="),
    "logger.mlflow.uri": tiny("logger=mlflow", "logger.mlflow.uri="),
    "--config-dir": ["--config-dir", ""],
    "--config-dir=": ["--config-dir="],
}


def assert_empty_is_refused(tmp_path, status, err, key):
    assert status == 2, err
    [line] = err.splitlines()
    assert line.startswith(f"error: {key}")
    assert "empty" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", TRAIN)
def test_an_empty_path_is_refused_by_its_key(train, tmp_path, case):
    status, _, err = train(*TRAIN[case])
    assert_empty_is_refused(tmp_path, status, err, case.partition(" ")[0].rstrip("="))


@pytest.mark.parametrize(
    ("variable", "arguments", "key"),
    [
        ("RESNET_CLI_DATA", ["data=cifar10"], "data.root"),
        ("RESNET_CLI_DATA", ["data=mnist"], "data.root"),
        ("RESNET_CLI_CACHE", FOLDER, "data.cache"),
        ("RESNET_CLI_CACHE", ["data=flowers102"], "data.cache"),
    ],
)
def test_an_empty_environment_variable_is_refused_by_the_key_it_sets(
    train, tmp_path, monkeypatch, variable, arguments, key
):
    monkeypatch.setenv(variable, "")
    status, _, err = train(*arguments)
    assert_empty_is_refused(tmp_path, status, err, key)


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (info, ["--gradients", "--out="], "--out"),
        (info, ["--config-dir="], "--config-dir"),
        (info, [""], "RUN: "),
        (data, [""], "RUN: "),
        (predict, ["", "a.png"], "RUN: "),
        (evaluate, [""], "RUN: "),
        (evaluate, ["", "--out-of-fold"], "RUN: "),
        (export, [""], "RUN: "),
        (report, [".", "--out="], "--out"),
        (report, [""], "DIR: "),
    ],
)
def test_an_empty_path_of_another_command_is_refused(tmp_path, monkeypatch, capsys, command, arguments, words):
    monkeypatch.chdir(tmp_path)
    status = command.run(arguments)
    assert_empty_is_refused(tmp_path, status, capsys.readouterr().err, words)


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (predict, ["photos", "--checkpoint", ""], "--checkpoint: is empty; it takes best, last or a checkpoint"),
        (evaluate, ["--checkpoint="], "--checkpoint: is empty; it takes best, last or a checkpoint"),
        (export, ["--checkpoint="], "--checkpoint: is empty; it takes best, last or a checkpoint"),
        (predict, ["photos", "--device="], "--device: '' is not a device; it takes auto, cpu, cuda, cuda:1 or mps"),
        (evaluate, ["--device="], "--device: '' is not a device; it takes auto, cpu, cuda, cuda:1 or mps"),
        (predict, [""], "IMAGE: is empty; give a path, . for the working folder"),
        (predict, ["photos", " "], "IMAGE: is empty; give a path, . for the working folder"),
        (evaluate, ["--unknown="], "--unknown: is empty; give a path, . for the working folder"),
    ],
)
def test_an_empty_value_beside_a_run_is_refused_by_its_option(place, capsys, command, arguments, line):
    status = command.run(["run", *arguments])
    assert (status, capsys.readouterr().err.splitlines()[-1:]) == (2, [f"error: {line}"])
