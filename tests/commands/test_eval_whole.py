"""resnet-eval RUN --data reads other images whole: nothing is held out of them, and one class is enough."""

import json
import shutil
from dataclasses import replace

import pytest

from resnet_cli.commands import eval as evaluation
from resnet_cli.commands.other_data import compose_other_data
from resnet_cli.session.trained import open_trained


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})


@pytest.fixture
def evaluated(place, capsys, caplog):
    """Evaluate folders with so many images of each class: (status, metrics, lines of notes and warnings)."""

    def run(counts, *options):
        for path, count in counts.items():
            (place / "other" / path).mkdir(parents=True)
            for file in sorted((place / "photos/square").iterdir())[:count]:
                shutil.copy(file, place / "other" / path)
        arguments = ["run", "--data", "root=other", "--resamples", "0", "--format", "json", *options]
        status = evaluation.run(arguments)
        out, err = capsys.readouterr()
        lines = [*err.splitlines(), *(record.getMessage() for record in caplog.records)]
        return status, json.loads(out) if status == 0 else None, lines

    return run


def test_images_of_one_class_are_enough_for_its_recall(evaluated):
    status, metrics, lines = evaluated({"square": 7})
    assert (status, metrics["samples"]) == (0, 7)
    assert [found["support"] for found in metrics["classes"]] == [0, 7, 0]
    assert lines == ["note: no images of 2 classes (circle, stripes) of the run"]


def test_classes_with_one_image_each_are_evaluated_without_notes_on_splits(evaluated):
    status, metrics, lines = evaluated({"circle": 1, "square": 1, "stripes": 1, "zebra": 1})
    assert (status, metrics["samples"]) == (0, 3)
    assert lines == ["note: 1 image left out, of 1 class (zebra) that the run does not know"]


def test_images_of_all_splits_are_evaluated_once(evaluated):
    folders = {f"{part}/{name}": 2 for part in ("train", "val", "test") for name in ("circle", "square")}
    status, metrics, _ = evaluated(folders)
    assert (status, metrics["samples"]) == (0, 12)


def test_validation_images_are_among_all_of_a_run_without_validation(evaluated, place):
    folders = {f"{part}/{name}": 2 for part in ("train", "val", "test") for name in ("circle", "square")}
    _, metrics, _ = evaluated(folders, "--data", "val_fraction=0")
    assert metrics["samples"] == 12


@pytest.mark.parametrize(
    ("counts", "option", "supports"),
    [
        ({"square": 4, "zebra": 3}, "classes=[circle,square]", [0, 4, 0]),
        ({"square": 4}, "classes=[circle,square]", [0, 4, 0]),
        ({"square": 4}, "merge={stripes:[zebra,yak]}", [0, 4, 0]),
        ({"square": 4, "stripes": 2, "zebra": 3}, "merge={stripes:[zebra,yak]}", [0, 4, 5]),
    ],
)
def test_classes_that_the_images_lack_may_be_chosen_and_merged(evaluated, counts, option, supports):
    status, metrics, _ = evaluated(counts, "--data", option)
    assert status == 0
    assert [found["support"] for found in metrics["classes"]] == supports


def test_images_of_no_chosen_class_are_refused(evaluated, capsys):
    status, _, lines = evaluated({"zebra": 3}, "--data", "classes=[circle,square]")
    assert status == 2
    assert lines[0].startswith("error: data.classes: no class is named circle")


@pytest.mark.parametrize("given", [[], ["--data", "resize=squash"]])
def test_another_kind_of_data_set_prepares_images_like_that_of_the_run(evaluated, place, given):
    """With `data=`, whose options would otherwise be the defaults."""
    wanted = {"resize": "squash" if given else "pad", "image_size": [10, 8], "background": "black", "eval_crop": 0.9}
    trained = open_trained("run")
    trained = replace(trained, settings={"data": {**trained.settings["data"], **wanted, "resize": "pad"}})
    rows = "".join(f"photos/{kind}/{name.name},{kind}\n" for kind in ("circle", "square")
                   for name in sorted((place / "photos" / kind).iterdir()))  # fmt: skip
    (place / "other.csv").write_text(f"path,label\n{rows}")
    values = [("data", "csv"), ("file", "other.csv"), *(tuple(one.split("=")) for one in given[1:])]
    _, node = compose_other_data(trained, values)
    assert {key: node[key] for key in wanted} == wanted
    assert node["_target_"] == "resnet_cli.data.csv"
    _, node = compose_other_data(trained, [("root", "photos")])
    assert node["_target_"] == "resnet_cli.data.image_folder"


def test_a_checkpoint_outside_of_a_run_folder_is_evaluated_on_other_images(place, capsys):
    shutil.copy(place / "run/checkpoints/best.pt", place / "lone.pt")
    assert evaluation.run(["run", "--data", "root=photos", "--resamples", "0", "--format", "json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    shutil.rmtree(place / "run")
    arguments = ["lone.pt", "--data", "root=photos", "--resamples", "0", "--out", "figures", "--format", "json"]
    assert evaluation.run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["loss"]) == (expected["samples"], expected["loss"])
    assert evaluation.run([*arguments[:2], "rooot=photos", *arguments[3:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.rooot" in line


def test_a_class_without_images_in_the_split_is_not_said_to_be_left_out(evaluated):
    folders = {"train/circle": 9, "train/square": 9, "train/zebra": 2, "test/circle": 3, "test/square": 3}
    status, metrics, lines = evaluated(folders, "--split", "test")
    assert (status, metrics["samples"]) == (0, 6)
    assert not any("left out" in line for line in lines)


def test_a_named_split_is_still_held_out(evaluated):
    status, metrics, _ = evaluated({"circle": 10, "square": 10}, "--split", "test")
    assert (status, metrics["samples"]) == (0, 4)


@pytest.mark.parametrize("rows", ["square,test", "square,"])
def test_tables_of_one_class_or_of_test_rows_are_evaluated(place, capsys, rows):
    (place / "other.csv").write_text("path,label,split\n" + "".join(f"square/{i:03d}.png,{rows}\n" for i in range(5)))
    arguments = ["run", "--data", "data=csv", "--data", "file=other.csv", "--data", "root=photos"]
    arguments += ["--data", "image_size=[10,8]", "--data", "cache=null", "--resamples", "0", "--format", "json"]
    assert evaluation.run(arguments) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert [found["support"] for found in metrics["classes"]] == [0, 5, 0]


def test_splits_without_chosen_classes_are_left_out(evaluated):
    folders = {"train/zebra": 3, "train/yak": 3, "test/circle": 2, "val/square": 1}
    status, metrics, _ = evaluated(folders, "--data", "classes=[circle,square]")
    assert (status, metrics["samples"]) == (0, 3)
