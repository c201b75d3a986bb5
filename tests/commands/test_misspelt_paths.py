"""A path that does not exist is reported with the most similar name in its folder."""

from pathlib import Path

import pytest

from resnet_cli.commands import data, info, report
from resnet_cli.commands import eval as evaluation

SHARDS = ("data=webdataset", "data.shards=shard.tra")
FOLDER = ("data=image_folder", "data.root=photo")


@pytest.mark.parametrize(("command", "arguments", "expected"), [
    (data, FOLDER, "data.root=photo does not exist; did you mean photos?"),
    (data, ("data=csv", "data.file=labels.csv", "data.root=photo"),
     "data.root=photo does not exist; did you mean photos?"),
    (data, ("data=huggingface", "data.root=photo"), "data.root=photo does not exist; did you mean photos?"),
    (data, SHARDS, "data.shards: shard.tra does not exist; did you mean shard.tar?"),
    (data, ("data.splits=split.json",), "data.splits=split.json: No such file or directory; did you mean splits.json?"),
    (info, ("--check", "conf/model/thn.yaml"),
     "--check conf/model/thn.yaml: no such file; did you mean conf/model/thin.yaml?"),
    (info, ("--config-dir", "cnf"), "--config-dir=cnf: no such folder; did you mean conf?"),
    (report, ("photo",), "photo: no such folder; did you mean photos?"),
    (evaluation, ("photo", "--out-of-fold"), "photo: no such folder; did you mean photos?"),
])  # fmt: skip
def test_missing_path_suggests_a_similar_one(tmp_path, monkeypatch, capsys, command, arguments, expected):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "conf/model"):
        Path(folder).mkdir(parents=True)
    for file in ("labels.csv", "splits.json", "shard.tar", "conf/model/thin.yaml"):
        Path(file).write_text("path,label\n1.png,cat\n", encoding="utf-8")
    assert command.run([*arguments]) == 2
    assert capsys.readouterr().err == f"error: {expected}\n"


def test_missing_sweep_suggests_a_similar_one(tmp_path, train):
    (tmp_path / "sweep").mkdir()
    status, _, err = train("-m", "resume=swep")
    assert (status, err) == (2, "error: resume=swep: no such sweep folder; did you mean sweep?\n")
