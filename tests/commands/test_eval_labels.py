"""resnet-eval of images with several labels: which thresholds its figures use."""

import csv
import json

import pytest

from resnet_cli import load_run
from resnet_cli.commands import eval as evaluation
from tests.support.runs import label_sets


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})


def test_figures_of_classes_name_their_thresholds(train, tmp_path, capsys):
    assert train(*label_sets(tmp_path, "hydra.run.dir=run"))[0] == 0
    assert evaluation.run(["run", "--resamples", "0"]) == 0
    out = capsys.readouterr().out
    thresholds = load_run("run").thresholds
    assert "classes at the thresholds chosen on the validation images; rows above without 'chosen " in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("green ")]
    header = next(line.split() for line in out.splitlines() if line.startswith("class "))
    assert row[header.index("threshold")] == f"{thresholds[1]:.4f}"
    metrics = json.loads((tmp_path / "run/eval/test/metrics.json").read_text())
    assert metrics["thresholds"] == {"chosen_on": "val", "values": thresholds}
    assert [found["threshold"] for found in metrics["classes"]] == thresholds
    rows = list(csv.DictReader((tmp_path / "run/eval/test/per_class.csv").read_text().splitlines()))
    assert [float(found["threshold"]) for found in rows] == pytest.approx(thresholds, rel=1e-5)


def test_without_chosen_thresholds_all_figures_are_at_one_half(train, tmp_path, capsys):
    assert train(*label_sets(tmp_path, "data.val_fraction=0", "hydra.run.dir=run"))[0] == 0
    assert evaluation.run(["run", "--resamples", "0"]) == 0
    assert "\nclasses at a threshold of 0.5\n" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run/eval/test/metrics.json").read_text())
    assert metrics["thresholds"] == {"chosen_on": None, "values": [0.5, 0.5, 0.5]}


def test_images_with_one_label_have_no_thresholds(place, capsys):
    assert evaluation.run(["run", "--resamples", "0"]) == 0
    assert "threshold" not in capsys.readouterr().out
    assert "thresholds" not in json.loads((place / "run/eval/test/metrics.json").read_text())
