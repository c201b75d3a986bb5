"""The user's own config files: what is wrong in one is a line, and of two with one name it is told which is used."""

import pytest

from tests.support.runs import tiny
from tests.support.wrong_yaml import WRONG_YAML

NET = "_target_: resnet_cli.models.CifarResNet\ndepth: 14\nwidth: 4\n"

HYDRA_CASES = {
    **WRONG_YAML,
    "alias": (b"a: 1\nb: *x\n", 2, "the alias *x has no anchor &x"),
    "anchor twice": (b"a: &x 1\nb: &x 2\n", 2, "the anchor &x occurs twice"),
    "reference": (b"a: 1\nb: ${oops\n", 2, "${oops: an incomplete reference"),
    "list": (b"- a\n", 1, "not a mapping of `key: value` lines"),
    "package": (b"# @package [\na: 1\n", 1, "not a dotted key"),
    "defaults of another kind": (b"a: 1\ndefaults: 3\n", 2, "defaults: not a list"),
    "item of two keys": (b"defaults: [{a: 1, b: 2}]\n", 1, "defaults: an item is neither"),
    "itself": (b"defaults: [mine]\n", 1, "the file names itself"),
}


@pytest.mark.parametrize("option", ["model=mine", "experiment=mine"])
@pytest.mark.parametrize(("content", "line", "words"), HYDRA_CASES.values(), ids=HYDRA_CASES)
def test_a_wrong_file_of_ones_own_is_told_with_file_and_line(train, tmp_path, option, content, line, words):
    file = tmp_path / "conf" / option.partition("=")[0] / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    status, out, err = train(option)
    assert (status, out) == (2, "")
    [message] = err.splitlines()
    assert message.startswith(f"error: {file.relative_to(tmp_path)}:{line}: ")
    assert words in message
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    "arguments", [["--config-dir", "own"], ["--config-dir=own"], ["hydra.searchpath=[file://{folder}/own]"]]
)
def test_a_wrong_file_in_another_folder_is_told_with_file_and_line(train, tmp_path, arguments):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("a: 1\n\tb: 2\n")
    status, _, err = train("model=mine", *(argument.format(folder=tmp_path) for argument in arguments))
    assert (status, err) == (2, "error: own/model/mine.yaml:2: a tab; YAML is indented with spaces\n")


def test_files_that_name_one_another_and_no_option_are_told(train, tmp_path):
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text("defaults: [two]\n")
    (folder / "two.yaml").write_text("defaults: [one]\n")
    (folder / "lost.yaml").write_text("defaults: [nowhere]\n")
    status, _, err = train("model=one")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "in a circle in their defaults lists" in err
    status, _, err = train("model=lost")
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: model=nowhere: no such option, named in the defaults of model/lost")


def shown(train, *arguments):
    status, out, err = train(*arguments, "--cfg", "job")
    assert status == 0
    return out, err


def test_a_file_of_ones_own_replaces_the_built_in_option_and_says_so(train, tmp_path):
    for folder in ("conf", "own"):
        (tmp_path / folder / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "resnet20.yaml").write_text(NET)
    out, err = shown(train, "model=resnet20")
    assert "depth: 14" in out
    assert err == (
        "note: model=resnet20: conf/model/resnet20.yaml is used, not the built-in model/resnet20; "
        "rename conf/model/resnet20.yaml to use both\n"
    )
    (tmp_path / "own" / "model" / "resnet20.yaml").write_text(NET.replace("14", "26"))
    for arguments in (["--config-dir", "own"], ["-cd", "own"], ["--config-dir=own"]):
        out, err = shown(train, "model=resnet20", *arguments)
        assert "depth: 26" in out
        assert "own/model/resnet20.yaml is used, not conf/model/resnet20.yaml nor the built-in" in err
        assert len(err.splitlines()) == 1
    out, err = shown(train, "model=resnet32")
    assert (err, "depth: 32" in out) == ("", True)


def test_a_file_of_hydras_search_path_gives_way_and_that_is_told(train, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "resnet20.yaml").write_text(NET)
    out, err = shown(train, "model=resnet20", f"hydra.searchpath=[file://{tmp_path}/own]")
    assert "depth: 20" in out
    assert "the built-in model/resnet20 is used, not own/model/resnet20.yaml; rename own/model/resnet20.yaml" in err


def test_a_primary_config_of_ones_own_has_no_effect_and_that_is_told(train, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("seed: 5\n")
    out, err = shown(train)
    assert "seed: 0" in out
    assert err == "note: conf/train.yaml has no effect; keys of your own go to a file in experiment/ beside it\n"


@pytest.mark.slow
def test_it_is_told_once_in_a_sweep_and_in_processes_of_a_launcher(train_command, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "resnet20.yaml").write_text(NET)
    done = train_command("-m", *tiny("model=resnet8,resnet20", "trainer.epochs=1", "hydra/launcher=joblib"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: ") == 1
    assert "conf/model/resnet20.yaml is used" in done.stderr
