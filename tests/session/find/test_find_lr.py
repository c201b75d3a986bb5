"""`find=lr` as it is typed: files, suggestion, nothing trained, and what it does not go with."""

import csv
import json

import pytest

from tests.support.runs import tiny

FILES = ["find_lr.csv", "find_lr.json", "find_lr.png"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.draws
def test_find_lr_suggests_an_override_and_leaves_three_files(train, tmp_path):
    status, out, err = train("find=lr", "data=digits", "model=resnet8", "hydra.run.dir=found")
    assert (status, err) == (0, "")
    assert names(tmp_path / "found") == FILES
    assert (tmp_path / "found/find_lr.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    assert f"type    {found['override']}  ({found['rule']})" in out
    assert found["override"] == f"optimizer.lr={found['suggestion']:g}"
    assert 0.01 <= found["suggestion"] <= 1  # the preset's is 0.1
    rows = list(csv.DictReader((tmp_path / "found/find_lr.csv").read_text().splitlines()))
    assert len(rows) == found["steps"] == len(found["rows"])
    assert float(rows[7]["loss"]) == found["rows"][7]["loss"]
    assert "next:" not in out


def test_what_is_found_depends_on_the_seed_alone(train, tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_cli.training.lr_range.STEPS", 30)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(*tiny("find=lr", f"seed={seed}", "model.dropout=0.2", f"hydra.run.dir={name}"))[0] == 0
    a, b, c = ((tmp_path / name / "find_lr.csv").read_text() for name in "abc")
    assert a == b != c


def test_a_batch_of_all_training_images_is_named_with_their_number(train, tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_cli.training.lr_range.STEPS", 20)
    status, out, _ = train(*tiny("find=lr", "data.count=20", "data.batch_size=64", "hydra.run.dir=found"))
    assert status == 0
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    assert found["batch_size"] < 20
    assert f"on batches of {found['batch_size']}," in out


def test_groups_with_rates_of_their_own_are_named(train, tmp_path):
    status, out, _ = train(*tiny("find=lr", "+optimizer.groups.bias.lr=0.01", "hydra.run.dir=found"))
    assert status == 0
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    (other,) = found["groups"].values()
    assert other == pytest.approx(found["suggestion"] / 10)
    assert "in the same proportion: bias " in out


def test_groups_with_an_optimizer_of_their_own_rise_in_proportion_to_the_key_that_is_suggested(train, tmp_path):
    own = "+optimizer.groups.weight={optimizer: {_target_: torch.optim.Adam, lr: 0.001}}"
    status, _, err = train(*tiny("find=lr", own, "optimizer.lr=0.1", "hydra.run.dir=found"))
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    assert found["configured_lr"] == 0.1
    assert found["groups"]["weight"] == pytest.approx(found["suggestion"] / 100)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["find=epochs"], "find: epochs is not allowed; it takes one of lr, batch_size or null"),
        (["find=lr", "verify_resume=true"], "verify_resume: cannot be combined with find=lr"),
        (["-m", "find=lr", "seed=0,1"], "find: cannot be used in a sweep"),
        (["-m", "find=lr,batch_size"], "find: cannot be used in a sweep"),
        (["find=lr", "optimizer.weight_decay=x"], "optimizer.weight_decay: x is not allowed"),
    ],
)
def test_what_find_does_not_go_with_is_one_line(train, tmp_path, arguments, problem):
    status, _, err = train(*tiny(*arguments))
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {problem}")
    assert not list(tmp_path.iterdir())


def test_a_run_is_neither_resumed_nor_overwritten(train, tmp_path):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=run"))[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for arguments in (["resume=run"], tiny("hydra.run.dir=run"), tiny("hydra.run.dir=run", "resume=auto")):
        status, _, err = train(*arguments, "find=lr")
        assert status == 2
        assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_time_budget_is_not_measured(train, tmp_path):
    assert train(*tiny("find=lr", "~trainer.epochs", "trainer.time_budget=1 h", "hydra.run.dir=found"))[0] == 0
    assert names(tmp_path / "found") == FILES


@pytest.mark.slow
@pytest.mark.draws
def test_every_learning_rate_that_has_a_key_is_in_the_line_to_type(train, tmp_path):
    """Groups that follow one of them, by depth, are not listed."""
    start = tiny("model=resnet8", "model.width=4", "optimizer.lr=0.1", "optimizer.head_lr=0.3", "find=lr")
    status, out, err = train(*start, "optimizer.layer_decay=0.5", "trainer.freeze=stem", "hydra.run.dir=found")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    lr, head_lr = (float(text.partition("=")[2]) for text in found["override"].split())
    assert found["override"].startswith("optimizer.lr=")
    assert head_lr == pytest.approx(3 * lr, rel=0.01)
    assert f"type    {found['override']}  (" in out
    assert found["groups"] == {}


@pytest.mark.slow
@pytest.mark.draws
def test_the_rate_of_muons_other_parameters_is_in_the_line_too(train, tmp_path):
    options = ["optimizer=muon", "optimizer.lr=0.05", "optimizer.sgd_lr=0.1", "model=resnet8", "model.width=4"]
    assert train(*tiny(*options, "find=lr", "hydra.run.dir=found"))[0] == 0
    found = json.loads((tmp_path / "found/find_lr.json").read_text())
    rates = dict(text.split("=") for text in found["override"].split())
    assert float(rates["optimizer.sgd_lr"]) == pytest.approx(2 * float(rates["optimizer.lr"]), rel=0.01)
