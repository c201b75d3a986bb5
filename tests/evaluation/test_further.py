"""resnet-eval's class-activation maps, features and unknown images, from the command."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnet_cli import load_run
from resnet_cli.commands import eval as command
from resnet_cli.errors import InputError
from resnet_cli.evaluation import blocks, evaluate, further
from resnet_cli.evaluation.collect import collect_outputs
from resnet_cli.evaluation.explain import grad_cam
from resnet_cli.evaluation.images import own_images
from resnet_cli.session.trained import open_trained
from tests.support.images import write_class_folders


def width(picture):
    return Image.open(io.BytesIO(picture.read_bytes())).size[0]


def test_the_table_says_how_well_unknown_images_are_told_apart(place, capsys, monkeypatch):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    monkeypatch.setattr("resnet_cli.evaluation.further.draw_unknown", lambda *_: b"")
    write_class_folders(place / "others", classes=("noise",), count=9, size=(5, 40))
    assert command.run(["run", "--split", "val", "--unknown", "others", "--resamples", "0"]) == 0
    out = capsys.readouterr().out
    found = json.loads((place / "run/eval/val/unknown.json").read_text())
    assert "\n9 images of unknown classes against 12 of the split:\n" in out
    for name, words in (("energy", "energy"), ("probability", "largest probability")):
        scores = found[name]
        assert f"  by {words}: AUROC {scores['auroc']:.2f} %, FPR95 {scores['fpr95']:.2f} %\n" in out


@pytest.mark.parametrize("options", [["--split", "val"], ["--data", "root=photos"]])
def test_unknown_images_are_prepared_like_those_they_are_compared_with(place, monkeypatch, options):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    monkeypatch.setattr(further, "draw_unknown", lambda *_: b"")
    crops, read = [], further.read_images

    def read_images(classifier, images):
        crops.append(classifier.preprocessing.eval_crop)
        return read(classifier, images)

    monkeypatch.setattr(further, "read_images", read_images)
    options = ["run", *options, "--data", "eval_crop=0.75", "--unknown", "photos/circle", "--resamples", "0"]
    assert command.run(options) == 0
    assert crops == [0.75]


@pytest.mark.draws
def test_maps_features_and_unknown_images_are_written(place, capsys):
    write_class_folders(place / "others", classes=("noise",), count=9, size=(5, 40))
    (place / "others/bad.png").write_bytes(b"no image")
    arguments = ["run", "--split", "val", "--explain", "50", "--embed", "--unknown", "others", "--resamples", "0"]
    assert command.run([*arguments, "--format", "json"]) == 0
    captured = capsys.readouterr()
    folder = place / "run/eval/val"
    assert width(folder / "explain.png") > 300
    assert "--explain 50: there are " in captured.err
    features = np.load(folder / "features.npz")
    names = [f"photos/{name}" for name in features["names"]]
    np.testing.assert_allclose(features["features"], load_run("run").features(names).numpy(), atol=1e-5)
    assert features["points"].shape == (12, 2)
    assert features["class_names"].tolist() == ["circle", "square", "stripes"]
    assert width(folder / "features.png") > 500
    metrics = json.loads(captured.out)["unknown"]
    assert metrics == json.loads((folder / "unknown.json").read_text())
    assert (metrics["images"], metrics["known"]) == (9, 12)
    assert 0 <= metrics["energy"]["auroc"] <= 100
    assert "--unknown: left out: others/bad.png: not an image" in captured.err
    rows = (folder / "unknown.csv").read_text().splitlines()
    assert rows[0] == "threshold,coverage,accuracy"
    assert rows[-1].split(",")[1] == "100"
    assert width(folder / "unknown.png") > 500
    assert command.run(["run", "--split", "val", "--resamples", "0"]) == 0  # which draws none of these
    assert not {"explain.png", "features.npz", "unknown.json"} & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unknown", "nowhere"], "--unknown: nowhere: no such file or folder"),
        (
            ["--explain", "0"],
            "argument --explain: 0 is not a whole number from 1 to 1000000 (--help lists the options)",
        ),
        (["--embed", "lda"], None),
    ],
)
def test_wrong_options_are_refused_in_one_line(place, capsys, arguments, message):
    assert command.run(["run", "--split", "val", "--resamples", "0", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message is None or line == f"error: {message}"
    assert not (place / "run/eval").exists()


def without_blocks():
    return nn.Sequential(nn.Flatten(), nn.Linear(240, 3))


def without_linear_layers():
    return nn.Sequential(nn.Conv2d(3, 3, (10, 8)), nn.Flatten())


@pytest.mark.parametrize(
    ("wanted", "changes", "message"),
    [
        ({"unknown": ["nowhere"]}, {}, "--unknown: nowhere: no such file or folder"),
        ({"embed": "umap"}, {}, "--embed umap: needs the package umap-learn"),
        ({"embed": "pca"}, {"model": without_linear_layers()}, "no linear layer that computes the logits"),
        ({"explain": 9}, {"labels": "multi"}, "--explain: the images have several labels"),
        ({"explain": 9}, {"model": without_blocks()}, "--explain: Sequential has no feature maps"),
        ({"delete_blocks": True}, {"labels": "multi"}, "--delete-blocks: the images have several labels"),
        ({"delete_blocks": True}, {"model": without_blocks()}, "--delete-blocks: this net has no residual blocks"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_images_are_read(trained_run, monkeypatch, wanted, changes, message):
    monkeypatch.setattr("resnet_cli.evaluation.embedding.find_spec", lambda name: None)
    monkeypatch.setattr(evaluate, "_images", lambda *_: pytest.fail("images are read"))
    run = open_trained(str(trained_run))
    data = {**run.data, **({"labels": changes["labels"]} if "labels" in changes else {})}
    run = replace(run, model=changes.get("model", run.model).eval(), data=data)
    with pytest.raises(InputError, match=message):
        evaluate.evaluate_run(run, evaluate.EvalOptions(further=further.Further(**wanted)))


@pytest.mark.slow
@pytest.mark.draws
def test_accuracies_with_blocks_deleted_are_written(train, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3"]
    assert train(*data, "model=preact20", "model.depth=14", "trainer.epochs=1", "hydra.run.dir=run")[0] == 0
    assert command.run(["run", "--resamples", "0", "--delete-blocks", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)["blocks"]
    folder = tmp_path / "run/eval/test"
    assert facts == json.loads((folder / "blocks.json").read_text())
    assert facts["accuracy"] == json.loads((tmp_path / "run/run.json").read_text())["test"]["accuracy"]
    assert list(facts["without"]) == [f"stages.{s}.{i}" for s in range(3) for i in range(2)]
    assert [row["count"] for row in facts["deleted"]] == [1, 2, 4]
    assert len((folder / "blocks.csv").read_text().splitlines()) == 7
    assert width(folder / "blocks.png") == 1000
    assert command.run(["run", "--resamples", "0", "--delete-blocks"]) == 0
    assert "without one block: accuracy " in capsys.readouterr().out
    assert train(*data, "model=cnn", "trainer.epochs=1", "hydra.run.dir=cnn")[0] == 0
    capsys.readouterr()
    assert command.run(["cnn", "--resamples", "0", "--delete-blocks"]) == 2
    assert capsys.readouterr().err.startswith("error: --delete-blocks: this net has no residual blocks")


def test_maps_are_computed_in_batches(place, monkeypatch):
    run = open_trained("run")
    images = own_images(run, "train")
    outputs = collect_outputs(run, images)
    drawn, sizes = [], []
    monkeypatch.setattr(further, "draw_contact_sheet", lambda tiles, *_, **__: drawn.append(tiles) or b"")
    monkeypatch.setattr(
        further, "grad_cam", lambda model, batch, of: sizes.append(len(batch)) or grad_cam(model, batch, of)
    )
    for size in (2, 100):
        monkeypatch.setattr(further, "EXPLAIN_BATCH", size)
        further.compute_further(run, images, outputs, further.Further(explain=5), "train")
    assert sizes == [2, 2, 1, 5]
    assert len(drawn[0]) == 10
    for tile, whole in zip(*drawn, strict=True):
        torch.testing.assert_close(tile.int(), whole.int(), atol=1, rtol=0)


def test_blocks_read_large_images_again_for_each_accuracy(monkeypatch):
    reads = []
    images = SimpleNamespace(names=["a", "b"], batches=lambda: reads.append(1) or iter([(torch.zeros(2, 3, 4, 4), 0)]))
    for most, expected in ((2 * 3 * 4 * 4 * 4, 1), (2 * 3 * 4 * 4 * 4 - 1, 3)):
        reads.clear()
        monkeypatch.setattr(blocks, "MOST_KEPT_BYTES", most)
        batches = blocks.repeatable(images, (3, 4, 4))
        assert [len(list(batches())) for _ in range(3)] == [1, 1, 1]
        assert len(reads) == expected


def test_images_without_a_label_have_none_in_the_map_of_features(place, monkeypatch):
    run = open_trained("run")
    images = own_images(run, "val")
    outputs = collect_outputs(run, images)
    labels = outputs.labels[:, None] == np.arange(3)
    labels[0] = False
    labels[1] = True
    given = []
    monkeypatch.setattr(further, "draw_embedding", lambda points, labels, *_, **__: given.append(labels) or b"")
    further.compute_further(run, images, replace(outputs, labels=labels), further.Further(embed="pca"), "val")
    assert given[0].tolist() == [-1, 0, *outputs.labels[2:].tolist()]


def test_how_images_are_prepared_is_said_only_where_files_are_read(place, monkeypatch, caplog):
    run = open_trained("run")
    images = own_images(run, "val")
    outputs = collect_outputs(run, images)
    run = replace(run, settings={**run.settings, "data": {"_target_": "own_data.shapes"}})
    for module, name in ((further, "draw_embedding"), (further, "draw_unknown"), (blocks, "draw_blocks")):
        monkeypatch.setattr(module, name, lambda *_, **__: b"")
    for name, nothing in (("single_deletions", {}), ("random_deletions", []), ("random_swaps", [])):
        monkeypatch.setattr(blocks, name, lambda *_, nothing=nothing: nothing)
    wanted = {"embed": "pca", "delete_blocks": True}
    for options, count in ((wanted, 0), ({**wanted, "unknown": ["photos/circle"]}, 1)):
        further.compute_further(run, images, outputs, further.Further(**options), "val")
        assert sum("images are prepared by the defaults alone" in line for line in caplog.messages) == count


@pytest.mark.parametrize(
    ("mistakes", "note"),
    [(0, "there are no mistakes"), (1, "there is only 1 mistake"), (2, "there are only 2 mistakes")],
)
def test_fewer_mistakes_than_asked_for_are_counted(mistakes, note):
    assert further.format_shortage(mistakes) == note
