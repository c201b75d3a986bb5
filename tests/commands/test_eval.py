"""resnet-eval: figures equal to those of training, its files and record, and wrong input."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from resnet_cli import load_run
from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import export, predict
from resnet_cli.evaluation.collect import collect_outputs
from resnet_cli.evaluation.images import own_images
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of, tiny


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Drawing takes longer than the rest, and has a test of its own."""
    if "draws" not in request.keywords:
        monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})


@pytest.fixture
def evaluated(place, capsys):
    def run(*arguments, path="run"):
        status = evaluation.run([path, *arguments, *([] if "--resamples" in arguments else ["--resamples", "0"])])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def rows_of(folder):
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def names_of(place, split):
    folders = json.loads((place / "run/splits.json").read_text())[split]
    return [f"{folder}/{name}" for folder, names in folders.items() for name in names]


def test_test_figures_equal_the_record_to_the_last_digit(evaluated, place):
    status, out, err = evaluated("--format", "json")
    assert (status, err) == (0, "")
    found, recorded = json.loads(out), record_of(place / "run")["test"]
    assert {key: found[key] for key in recorded} == recorded
    assert json.loads((place / "run/eval/test/metrics.json").read_text()) == found


@pytest.mark.slow
def test_a_run_without_a_record_gets_none_that_has_only_additions(evaluated, place):
    (place / "run/run.json").unlink()
    status, _, err = evaluated()
    assert (status, err) == (0, "note: not recorded in run/run.json: is missing\n")
    assert predict.run(["run", "photos", "--reject", "5%"]) == 0
    assert export.run(["run", "--format", "pt2"]) == 0
    assert not (place / "run/run.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not looked for there")
@pytest.mark.parametrize(
    ("command", "arguments"), [(evaluation, ["--resamples", "0"]), (export, ["--out", "a.pt2"])], ids=["eval", "export"]
)
def test_the_card_of_a_killed_run_still_says_so_afterwards(place, command, arguments):
    record = record_of(place / "run")
    (place / "run/run.json").write_text(json.dumps({**record, "status": "running"}))
    (place / "run/card.md").unlink()
    assert command.run(["run", *arguments]) == 0
    assert "\n**killed**: " in (place / "run/card.md").read_text()


def test_validation_figures_equal_the_row_of_the_best_epoch(evaluated, place):
    _, out, _ = evaluated("--split", "val", "--format", "json")
    found, best = json.loads(out), record_of(place / "run")["best"]
    assert {f"val_{key}": found[key] for key in ("loss", "accuracy", "balanced_accuracy")} == {
        key: best[key] for key in ("val_loss", "val_accuracy", "val_balanced_accuracy")
    }


def test_training_images_come_in_order_each_once(evaluated, place):
    assert evaluated("--split", "train")[0] == 0
    assert [row["name"] for row in rows_of(place / "run/eval/train")] == names_of(place, "train")


def test_predictions_are_those_of_the_classifier_image_by_image(evaluated, place):
    assert evaluated()[0] == 0
    rows = rows_of(place / "run/eval/test")
    probabilities = load_run(place / "run")([place / "photos" / row["name"] for row in rows])
    names = ("circle", "square", "stripes")
    assert [row["prediction"] for row in rows] == [names[k] for k in probabilities.argmax(1).tolist()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(probabilities.amax(1).tolist(), abs=1e-5)
    assert [row["label"] for row in rows] == [row["name"].split("/")[0] for row in rows]
    counts = json.loads((place / "run/eval/test/confusion.json").read_text())["counts"]
    pairs = [(row["label"], row["prediction"]) for row in rows]
    assert counts == [[pairs.count((label, predicted)) for predicted in names] for label in names]


def test_each_evaluation_is_recorded_and_in_the_card(evaluated, place):
    before = record_of(place / "run")
    evaluated()
    evaluated("--split", "val", "--checkpoint", "last", "--tta", "flip")
    record = record_of(place / "run")
    first, second = record.pop("evaluations")
    assert record == before
    assert (first["split"], first["checkpoint"], first["folder"]) == ("test", "best.pt", "eval/test")
    assert first["accuracy"] == before["test"]["accuracy"]
    assert (second["split"], second["checkpoint"], second["tta"]) == ("val", "last.pt", "flip")
    assert "once by evaluations" in (place / "run/card.md").read_text()


def test_table_has_intervals_and_figures_with_mirrored_images_beside(evaluated):
    _, out, _ = evaluated("--tta", "flip_translate", "--resamples", "200")
    header = next(line for line in out.splitlines() if "95 % interval" in line)
    assert header.split() == ["value", "95", "%", "interval", "with", "tta"]
    row = next(line for line in out.splitlines() if line.startswith("accuracy"))
    low, high = (float(row.split()[i]) for i in (3, 5))
    assert low <= float(row.split()[1]) <= high
    assert row.count("%") == 2


@pytest.mark.draws
def test_pictures_are_drawn_and_the_sheet_of_a_net_without_mistakes_goes(evaluated, place, monkeypatch):
    folder = place / "run/eval/test"
    evaluated()
    for name in ("confusion", "calibration", "mistakes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200
    monkeypatch.setattr("resnet_cli.evaluation.pictures.most_confident_mistakes", lambda *_: [])
    evaluated()
    assert not (folder / "mistakes.png").exists()


@pytest.mark.draws
def test_mistakes_are_the_images_that_are_wrong_with_the_highest_probability(evaluated, place, monkeypatch):
    drawn = {}
    monkeypatch.setattr("resnet_cli.evaluation.pictures.draw_confusion", lambda *_, **__: b"")
    monkeypatch.setattr("resnet_cli.evaluation.pictures.draw_reliability", lambda *_, **__: b"")

    def draw(pixels, captions, **_):
        drawn.update(zip([caption[-1] for caption in captions], pixels, strict=True))
        return b""

    monkeypatch.setattr("resnet_cli.evaluation.pictures.draw_contact_sheet", draw)
    evaluated("--split", "train")
    rows = rows_of(place / "run/eval/train")
    wrong = sorted(
        (row for row in rows if row["label"] != row["prediction"]), key=lambda row: -float(row["probability"])
    )
    assert list(drawn) == [row["name"] for row in wrong[:32]]
    run = load_run(place / "run")
    for name, pixels in drawn.items():
        assert (run.preprocessing.read(place / "photos" / name).int() - pixels.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere: no such run folder"]),
        (["photos"], ["photos: not a run folder"]),
        (["run", "--spilt", "val"], ["--spilt"]),
        (["run", "--split", "vall"], ["vall"]),
        (["run", "--checkpoint", "none.pt"], ["none.pt"]),
        (["run", "--resamples", "10"], ["200"]),
        (["sweep"], ["sweep: a sweep", "resnet-report"]),
    ],
)
def test_wrong_input_is_one_line(place, capsys, arguments, words):
    (place / "sweep").mkdir()
    (place / "sweep/sweep.json").write_text("{}")
    assert evaluation.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert all(word in captured.err for word in words)
    assert not (place / "run/eval").exists()


def test_other_classes_in_the_folder_than_those_of_the_run_are_refused(evaluated, place):
    shutil.copytree(place / "photos/circle", place / "photos/zebra")
    status, _, err = evaluated()
    assert status == 2
    assert err.splitlines() == [err.strip()]
    assert "zebra" in err
    assert "classes=[circle,square,stripes]" in err


def test_figures_equal_the_record_also_of_averaged_weights_few_batches_and_a_weighted_loss(train, tmp_path, capsys):
    options = [
        "trainer.averaging=ema", "trainer.max_batches=2", "loss.class_weights=[1,2,3]", "data.eval_batch_size=10",
        "data.val_fraction=0", "trainer.epochs=1", "hydra.run.dir=run",
    ]  # fmt: skip
    assert train(*tiny(*options))[0] == 0
    assert evaluation.run(["run", "--resamples", "0", "--format", "json"]) == 0
    captured = capsys.readouterr()
    found, recorded = json.loads(captured.out), record_of(tmp_path / "run")["test"]
    assert {key: found[key] for key in recorded} == recorded
    assert recorded["samples"] == 20
    assert found["loss"] != pytest.approx(found["negative_log_likelihood"], rel=1e-3)
    assert "only the first 2 batches" in captured.err
    assert evaluation.run(["run", "--split", "val"]) == 2
    assert capsys.readouterr().err == "error: --split val: there are no validation images (data.val_fraction=0)\n"


def test_figures_of_images_with_several_labels_equal_the_record(train, tmp_path, capsys):
    lines = ["file,labels"]
    for number in range(60):
        Image.new("RGB", (8, 8), (200 * (number % 2), 200 * (number % 3 == 0), 9)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(['odd'] * (number % 2) + ['third'] * (number % 3 == 0))}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    assert train(
        "data=csv", "data.file=images.csv", "data.root=.", "data.labels=multi", "data.image_size=8",
        "data.batch_size=16", "data.cache=null", "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run",
    )[0] == 0  # fmt: skip
    assert evaluation.run(["run", "--resamples", "0", "--format", "json"]) == 0
    found, recorded = json.loads(capsys.readouterr().out), record_of(tmp_path / "run")["test"]
    assert {key: found.get(key) for key in recorded} == recorded
    rows = rows_of(tmp_path / "run/eval/test")
    assert {row["label"] for row in rows} <= {"", "odd", "third", "odd|third"}
    right = sum(row["label"] == row["prediction"] for row in rows)
    share = found.get("accuracy_with_thresholds", found["accuracy"])
    assert share == pytest.approx(100 * right / len(rows))


def other_folder(place, name, classes):
    """Copies of the run's images, so that what the run says of each is known."""
    for kind in classes:
        shutil.copytree(place / "photos" / kind, place / name / kind)


def test_other_images_are_all_evaluated_with_the_run_s_classes_and_normalisation(evaluated, place):
    other_folder(place, "other", ["square", "stripes"])
    status, out, err = evaluated("--data", "root=other", "--format", "json")
    found = json.loads(out)
    assert (status, err) == (0, "note: no images of 1 class (circle) of the run\n")
    assert (found["split"], found["data"], found["samples"]) == ("all", {"root": "other"}, 40)
    assert [row["support"] for row in found["classes"]] == [0, 20, 20]
    entry = record_of(place / "run")["evaluations"][-1]
    rows = rows_of(place / "run" / entry["folder"])
    assert sorted(row["name"] for row in rows) == sorted(
        f"{path.parent.name}/{path.name}" for path in (place / "other").rglob("*.png")
    )
    expected = load_run(place / "run")([place / "other" / row["name"] for row in rows])
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.amax(1).tolist(), abs=1e-4)
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert found["accuracy"] == pytest.approx(100 * right / 40)
    assert all(row["name"].startswith(row["label"]) for row in rows)
    assert evaluated("--data", "root=other", "--split", "test")[0] == 0
    assert "by evaluations after it" not in (place / "run/card.md").read_text()


def test_other_images_of_a_class_that_the_run_does_not_know_are_left_out(evaluated, place):
    other_folder(place, "other", ["circle", "square"])
    assert evaluated("--data", "root=other")[0] == 0
    known = rows_of(place / "run" / record_of(place / "run")["evaluations"][-1]["folder"])
    shutil.copytree(place / "photos/stripes", place / "other/zebra")
    status, out, err = evaluated("--data", "root=other", "--format", "json")
    found = json.loads(out)
    assert (status, found["samples"], found["left_out"]) == (0, 40, {"images": 20, "classes": ["zebra"]})
    assert "note: 20 images left out, of 1 class (zebra) that the run does not know\n" in err
    assert "note: no images of 1 class (stripes) of the run\n" in err
    entry = record_of(place / "run")["evaluations"][-1]
    facts = [[row[key] for key in ("name", "label", "prediction")] for row in known]
    rows = rows_of(place / "run" / entry["folder"])
    assert sorted(facts) == sorted([row[key] for key in ("name", "label", "prediction")] for row in rows)
    assert entry["left_out"] == found["left_out"]
    status, out, _ = evaluated("--data", "root=other", "--split", "test", "--format", "json")
    found = json.loads(out)
    assert (status, found["samples"] + found["left_out"]["images"]) == (0, 12)


def test_other_images_of_no_class_that_the_run_knows_are_refused(evaluated, place):
    for kind in ("zebra", "yak"):
        shutil.copytree(place / "photos/stripes", place / "other" / kind)
    status, _, err = evaluated("--data", "root=other")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "the run knows none of the images' classes: 2 classes (yak, zebra)" in err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("root=nowhere", ["nowhere"]),
        ("rooot=photos", ["rooot"]),
        ("root", ["KEY=VALUE"]),
        ("image_size=[4,4]", ["3x4x4", "3x10x8"]),
        ("batch_size=0", ["batch_size"]),
    ],
)
def test_wrong_overrides_of_other_images_are_one_line(evaluated, place, override, words):
    status, out, err = evaluated("--data", override)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert all(word in err for word in words)
    assert not (place / "run/eval").exists()


def test_images_that_changed_since_training_are_said(evaluated, place):
    (place / "photos" / names_of(place, "test")[0]).unlink()
    status, _, err = evaluated()
    assert status == 0
    assert "have changed since training" in err


@pytest.mark.parametrize("options", [["--calibrate"], ["--at", "sensitivity=0.9", "--positive", "circle"]])
def test_a_choice_on_validation_images_says_that_they_have_changed(evaluated, place, options):
    (place / "photos" / names_of(place, "train")[0]).unlink()
    status, _, err = evaluated(*options)
    assert status == 0
    (line,) = [line for line in err.splitlines() if "validation images have changed since training" in line]
    assert re.search(r"; [1-9]\d* of these 12 images (is a training image|are training images) of the run$", line)
    status, _, err = evaluated("--split", "val", *options)
    assert (status, err.count("validation images have changed since training")) == (0, 1)


def test_a_loss_with_class_weights_is_the_likelihood_once_a_class_is_gone(evaluated, place):
    shutil.rmtree(place / "photos/square")
    run = open_trained("run")
    weighted = {"_target_": "resnet_cli.losses.CrossEntropy", "class_weights": "balanced"}
    run = replace(run, settings={**run.settings, "loss": weighted})
    images = own_images(run, "test")
    outputs = collect_outputs(run, images)
    logits, labels = torch.from_numpy(outputs.logits_NK), torch.from_numpy(outputs.labels)
    assert outputs.scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert set(outputs.labels.tolist()) == {0, 2}
    assert any(note.startswith("the loss is the negative log-likelihood") for note in images.notes)


def test_checkpoint_without_a_run_folder_needs_a_place(evaluated, place, capsys):
    shutil.copy(place / "run/checkpoints/best.pt", place / "alone.pt")
    status, _, err = evaluated(path="alone.pt")
    assert (status, "--out" in err) == (2, True)
    status, _, _ = evaluated("--out", "figures", path="alone.pt")
    assert status == 0
    assert (place / "figures/metrics.json").is_file()


def test_folders_of_one_name_in_two_places_have_an_evaluation_each(evaluated, place, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(place / "photos", tmp_path / "elsewhere/other")
    shutil.copytree(place / "photos", place / "other")
    assert evaluated("--data", "root=other")[0] == 0
    assert evaluated("--data", f"root={place / 'other'}")[0] == 0
    assert len([*(place / "run/eval").iterdir()]) == 1
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluated("--data", "root=other", path=str(place / "run"))[0] == 0
    assert len([*(place / "run/eval").glob("all-other-*")]) == 2


def test_files_do_not_go_into_a_run_folder_itself(evaluated, place):
    before = (place / "run/curves.png").read_bytes()
    status, _, err = evaluated("--out", "run")
    line = "error: --out=run: is a run folder, which has files of its own; name a folder in it\n"
    assert (status, err) == (2, line)
    assert (place / "run/curves.png").read_bytes() == before


def test_diverged_run_is_refused_and_unfinished_one_warned_of(evaluated, place, caplog):
    record = record_of(place / "run")
    file = place / "run/run.json"
    file.write_text(json.dumps({**record, "status": "failed", "reason": "DivergedError: the loss is nan"}))
    status, _, err = evaluated()
    assert (status, "diverged" in err) == (2, True)
    file.write_text(json.dumps({**record, "status": "interrupted"}))
    assert evaluated()[0] == 0
    assert "not finished" in caplog.text


def test_views_are_averaged_in_float32_as_in_training(place):
    run = open_trained("run", device="cpu", precision="bf16")
    outputs = collect_outputs(run, own_images(run, "test"), tta="flip")
    logits, views = torch.from_numpy(outputs.logits_NK), torch.from_numpy(outputs.views_NK)
    assert torch.equal(logits, logits.bfloat16().float())  # the net computes in bf16
    assert not torch.equal(views, views.bfloat16().float())
