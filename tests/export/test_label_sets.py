"""Exported files of runs on images with several labels have the thresholds of the run."""

import json

import pytest
import torch

from resnet_cli import load_run
from resnet_cli.commands import export
from tests.support.runs import label_sets, record_of


def stored_thresholds(path):
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    (in_file, beside) = (
        json.loads(json.loads(extra["metadata.json"])["thresholds"]),
        json.loads(path.with_name(f"{path.name}.json").read_text())["thresholds"],
    )
    assert in_file == beside
    return beside


@pytest.mark.slow
def test_thresholds_are_in_the_metadata_and_the_report_for_the_exported_probabilities(train, tmp_path):
    assert train(*label_sets(tmp_path, "hydra.run.dir=run"))[0] == 0
    assert export.run(["run", "--out", "plain.pt2"]) == 0
    classifier = load_run("run")
    assert stored_thresholds(tmp_path / "plain.pt2") == classifier.thresholds
    assert len(set(classifier.thresholds)) > 1
    record = record_of(tmp_path / "run")
    epoch = record["best"]["epoch"]
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "temperature": {"value": 2.5, "epoch": epoch}}))
    assert export.run(["run", "--calibrated", "--out", "scaled.pt2"]) == 0
    scaled = stored_thresholds(tmp_path / "scaled.pt2")
    assert scaled == load_run("run", temperature=2.5).thresholds
    assert scaled != classifier.thresholds


def test_without_chosen_thresholds_they_are_one_half(train, tmp_path):
    assert train(*label_sets(tmp_path, "data.val_fraction=0", "hydra.run.dir=run"))[0] == 0
    assert export.run(["run", "--out", "a.pt2"]) == 0
    assert stored_thresholds(tmp_path / "a.pt2") == [0.5, 0.5, 0.5]


def test_images_with_one_label_have_no_thresholds(place):
    assert export.run(["run", "--out", "a.pt2"]) == 0
    assert "thresholds" not in json.loads((place / "a.pt2.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_axes_of_onnx_files_have_names(place, precision):
    onnx = pytest.importorskip("onnx", reason="needs the extra export")
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra export")
    assert export.run(["run", "--out", "a.onnx", "--precision", precision]) == 0
    graph = onnx.load(place / "a.onnx").graph
    axes = [[dim.dim_param or dim.dim_value for dim in found.type.tensor_type.shape.dim]
            for found in (graph.input[0], graph.output[0])]  # fmt: skip
    assert axes == [["batch", "height", "width", 3], ["batch", 3]]
