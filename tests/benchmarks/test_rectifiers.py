"""The program that counts epochs to a training error: its search, its stops, what it counts."""

import json
import shutil

import pytest

TINY = [
    "data=synthetic", "data.image_size=16", "data.count=64", "data.test_count=32", "data.classes=3",
    "data.noise=0.3",
]  # fmt: skip


@pytest.fixture
def rectifiers(load_program):
    return load_program("rectifiers")


def runs_of(rectifiers, tmp_path, deadline=float("inf")):
    return rectifiers.Runs(tmp_path / "runs", TINY, deadline, tmp_path / "out.json")


def test_epochs_between_two_are_on_a_straight_line(rectifiers):
    assert rectifiers.epochs_to_target([60.0, 40.0, 30.0, 20.0]) == 3.5
    assert rectifiers.epochs_to_target([25.0]) == 1
    assert rectifiers.epochs_to_target([60.0, 40.0]) is None


def test_the_grid_grows_until_its_edge_is_not_the_best(rectifiers, monkeypatch, tmp_path):
    def train(self, setting, seed, epochs):
        assert (seed, epochs) == (rectifiers.SEARCH_SEED, rectifiers.SEARCH_EPOCHS)
        _, init, lr = setting
        return [] if lr > 0.5 else [abs(lr - 0.3) + (init == "he")]  # a rate too large diverges

    monkeypatch.setattr(rectifiers.Runs, "train", train)
    errors = rectifiers.search(runs_of(rectifiers, tmp_path), "tanh")
    assert min(errors, key=errors.get) == ("tanh", "xavier", 0.3)
    assert errors["tanh", "xavier", 0.9] == 100
    assert ("tanh", "he", 0.3) not in errors, "only the better initialisation is followed beyond the grid"


@pytest.mark.slow
def test_a_run_is_stopped_once_its_answer_is_known_and_goes_on_for_more(rectifiers, tmp_path, capsys):
    setting = "relu", "he", 1e-5
    curve = runs_of(rectifiers, tmp_path).train(setting, 0, 2)
    assert len(curve) == 2
    [folder] = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] in ("interrupted", "stopped")
    assert record["test"] is None
    with pytest.raises(TimeoutError):
        runs_of(rectifiers, tmp_path, deadline=0.0).train(setting, 0, 30)
    before = rectifiers.errors_of(folder)
    assert runs_of(rectifiers, tmp_path).train(setting, 0, len(before)) == before
    assert capsys.readouterr().out.count("relu,he,1e-05,seed=0") == 2
    shutil.rmtree(folder)
    assert runs_of(rectifiers, tmp_path).train(setting, 0, 2) == curve, "the results file has it"
