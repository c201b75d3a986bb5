"""resnet-eval RUN --data with keys that name no place: the run's own images, split as in training."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from resnet_cli.commands import eval as evaluation
from resnet_cli.commands.other_data import compose_other_data, describe_other_data, require_shards
from resnet_cli.commands.train.main import run as train
from resnet_cli.errors import InputError
from resnet_cli.runs.reading import read_run
from resnet_cli.runs.summary import summarise
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})


@pytest.fixture
def evaluated(place, capsys):
    """Evaluate a run: its figures, the names of the images, and the notes."""

    def run(path, *arguments):
        assert evaluation.run([path, *arguments, "--resamples", "0", "--format", "json"]) == 0
        captured = capsys.readouterr()
        folder = place / path / record_of(place / path)["evaluations"][-1]["folder"]
        with (folder / "predictions.csv").open(newline="") as file:
            names = {row["name"] for row in csv.DictReader(file)}
        return json.loads(captured.out), names, captured.err

    return run


def listed(run, split):
    folders = json.loads((run / "splits.json").read_text())[split]
    return {f"{folder}/{name}" for folder, names in folders.items() for name in names}


def reads_of_the_test_images(run):
    return summarise(read_run(run, run.name, []))["test_reads"]["evaluations"]


FORMS = [  # options, whether these prepare images or splits otherwise, whether images are decoded otherwise
    (["--split", "val", "--data", "eval_crop=0.875"], True, False),
    (["--split", "val", "--data", "interpolation=bicubic"], True, True),
    (["--split", "val", "--data", "eval_batch_size=5"], False, False),
    (["--split", "test", "--data", "workers=0"], False, False),
    (["--data", "workers=0", "--data", "backend=stream"], False, False),
    (["--data", "cache=null", "--data", "eval_crop=0.9"], True, False),
]


def test_the_split_is_that_of_training_by_folds_and_groups_and_reads_of_the_test_images_count(evaluated, place, capsys):
    options = ["data=image_folder", "data.root=photos", "data.image_size=8", "data.cache=null", "data.folds=4"]
    options += ["data.fold=2", "data.group=..png", "model=resnet8", "trainer.epochs=1", "hydra.run.dir=folds"]
    assert train(options) == 0
    capsys.readouterr()
    splits = {split: listed(place / "folds", split) for split in ("train", "val", "test")}
    for arguments, is_changed, is_decoded_otherwise in FORMS:
        found, names, notes = evaluated("folds", *arguments)
        split = "val" if "val" in arguments else "test"
        assert (found["split"], names) == (split, splits[split]), arguments
        words = "the validation images are prepared otherwise than in training; whether they have changed since is"
        assert ("data" in found, words in notes) == (is_changed, is_decoded_otherwise)
        assert "since training" not in notes
        assert "training image" not in notes
        entry = record_of(place / "folds")["evaluations"][-1]
        assert (entry["folder"] == f"eval/{split}", "data" in entry) == (not is_changed, is_changed)
    assert reads_of_the_test_images(place / "folds") == 3
    shutil.copy(place / "folds/checkpoints/best.pt", place / "alone.pt")  # whose split file is unknown
    capsys.readouterr()
    options = ["--split", "val", "--data", "interpolation=bicubic", "--out", "figures", "--resamples", "0"]
    assert evaluation.run(["alone.pt", *options]) == 0
    notes = capsys.readouterr().err
    assert words in notes
    assert "may have been trained on some of them" not in notes


def test_a_test_split_that_is_dealt_anew_names_its_training_images_and_the_way_to_the_former_one(
    evaluated, place, capsys
):
    shutil.copytree(place / "photos/square", place / "photos/zebra")
    known = ["--data", "classes=[circle,square,stripes]"]
    for split, options in (("test", []), ("test", ["--split", "test"]), ("val", ["--split", "val"])):
        assert evaluation.run(["run", *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        advice = f"--split {split} --data 'classes=[circle,square,stripes]' --data splits=run/splits.json"
        assert line.endswith(f"; leave them out with {advice}")
    for options in (known, ["--split", "test", *known]):
        found, names, notes = evaluated("run", *options)
        seen = len(names & listed(place / "run", "train"))
        assert seen > 1
        assert f"{seen} of these {found['samples']} images are training images of the run" in notes
        assert found["split"] == "test"
    _, names, notes = evaluated("run", "--split", "test", *known, "--data", "splits=run/splits.json")
    assert names == listed(place / "run", "test")
    assert "training image" not in notes
    assert reads_of_the_test_images(place / "run") == 3


def test_a_grown_folder_without_a_test_part_says_that_training_images_are_in_it(evaluated, place, capsys):
    for number in range(10):
        shutil.copy(place / f"photos/square/{number:03d}.png", place / f"photos/square/new{number}.png")
    _, names, notes = evaluated("run")
    seen = len(names & listed(place / "run", "train"))
    assert seen > 1
    assert f"the test images have changed since training: 12 images then, {len(names)} images now; {seen} of" in notes
    shutil.copy(place / "run/checkpoints/best.pt", place / "alone.pt")  # whose split file is unknown
    assert evaluation.run(["alone.pt", "--out", "figures", "--resamples", "0"]) == 0
    assert "images now; the run may have been trained on some of them" in capsys.readouterr().err


def test_a_temperature_is_not_fitted_to_images_that_are_prepared_otherwise(place, capsys):
    assert evaluation.run(["run", "--calibrate", "--data", "eval_crop=0.9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: --calibrate: fits to images prepared as in training; leave out --data eval_crop=0.9"
    assert evaluation.run(["run", "--calibrate", "--data", "workers=0", "--resamples", "0"]) == 0
    assert "on_other_images" not in record_of(place / "run")["temperature"]


def test_further_files_of_the_run_do_not_belong_to_other_images(place):
    trained = open_trained("run")

    def composed(node, given, **options):
        other = replace(trained, run=None, settings={**trained.settings, "data": node})
        return compose_other_data(other, given, **options)[1]

    keys = ("shards", "val_shards", "test_shards")
    shards = {"_target_": "resnet_cli.data.webdataset", **dict(zip(keys, ("a.tar", "b.tar", "c.tar"), strict=True))}
    found = composed(shards, [("shards", "new.tar")])
    assert [found[key] for key in keys] == ["new.tar", None, None]
    found = composed(shards, [("shards", "new.tar"), ("test_shards", "d.tar")])
    assert [found[key] for key in keys] == ["new.tar", None, "d.tar"]
    found = composed(shards, [("shards", "moved.tar")], keeps_split=True)
    assert [found[key] for key in keys] == ["moved.tar", "b.tar", "c.tar"]
    arrays = {"_target_": "resnet_cli.data.arrays", "file": "images.npy", "labels_file": "labels.npy"}
    assert composed(arrays, [("file", "new.npy")])["labels_file"] is None


def test_validation_or_test_shards_alone_are_not_all_images():
    for part in ("val", "test"):
        with pytest.raises(InputError, match=f"--data {part}_shards: name other shards with .*, or add --split {part}"):
            require_shards([(f"{part}_shards", "new.tar")], None)
        require_shards([(f"{part}_shards", "new.tar")], part)
        require_shards([("shards", "new.tar"), (f"{part}_shards", "more.tar")], None)


def test_a_table_whose_paths_start_from_the_folder_of_the_run_is_noted(place):
    trained = replace(open_trained("run"), data={})
    (note,) = describe_other_data(trained, [("file", "new.csv")], None, {"root": "photos", "file": "new.csv"})
    assert note.startswith("paths are relative to data.root=photos, as in the run")
    for given, root in (([("file", "new.csv")], None), ([("file", "new.csv"), ("root", "other")], "other")):
        assert describe_other_data(trained, given, None, {"root": root, "file": "new.csv"}) == []


def test_images_with_another_kind_of_labels_are_refused(place, capsys):
    lines = ["file,labels"]
    for image in sorted((place / "photos").rglob("*.png")):
        lines.append(f"{image.relative_to(place)},{image.parent.name}")
    (place / "images.csv").write_text("\n".join(lines) + "\n")
    options = ["--data", "data=csv", "--data", "file=images.csv", "--data", "root=.", "--data", "labels=multi"]
    for split in ([], ["--split", "test"]):
        assert evaluation.run(["run", *split, *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == "error: the images have several labels each, but those of the run one label"
