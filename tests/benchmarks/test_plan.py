"""The programs that measure the plan: their small sets, what they hold out, and that they go on."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.images import write_class_folders


@pytest.fixture
def programs(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    for name in ("measuring", "small_sets", "plan", "plan_peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


@pytest.fixture
def photographs(tmp_path):
    classes = [f"class{k}" for k in range(3)]
    for part in ("train", "test"):
        write_class_folders(tmp_path / "source" / part, classes=classes, count=6, size=(8, 8))
    return tmp_path / "source"


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.glob("*/*/*")}


def test_a_part_has_the_wanted_images_of_each_class_and_is_drawn_once(programs, photographs, tmp_path, monkeypatch):
    small_sets = programs("small_sets")
    monkeypatch.setattr(small_sets, "COUNTS", {"fashion": None, "photographs, few": [4, 2, 1]})
    monkeypatch.setattr(small_sets, "TEST_IMAGES", 3)
    sources = small_sets.Sources(photographs=photographs)
    (folder,) = small_sets.write_sets(tmp_path / "sets", sources).values()
    counts = [[len(list(path.iterdir())) for path in sorted((folder / part).iterdir())] for part in ("train", "test")]
    assert counts == [[4, 2, 1], [3, 3, 3]]
    again = small_sets.write_sets(tmp_path / "other", sources)["photographs, few"]
    assert names_in(again) == names_in(folder)


def test_a_fifth_of_each_class_of_drawings_is_for_testing_without_copies_and_huge_files(
    programs, tmp_path, monkeypatch
):
    small_sets = programs("small_sets")
    monkeypatch.setattr(small_sets, "COUNTS", {"drawings": None})
    monkeypatch.setattr(small_sets, "DRAWINGS", ("food", "plants"))
    monkeypatch.setattr(small_sets, "MOST_PIXELS", 20 * 30)
    drawings = tmp_path / "png"
    write_class_folders(drawings, classes=["food", "food/fruit", "logos", "plants"], count=5, size=(20, 30))
    write_class_folders(drawings / "food", classes=["huge"], count=1, size=(21, 30))
    (drawings / "food/copies").mkdir()
    first, *_ = sorted((drawings / "food").glob("*.png"))
    shutil.copy(first, drawings / "food/copies/copy.png")
    for name in ("food", "plants"):
        Image.new("L", (20, 30)).save(drawings / name / "in_both.png")
    (folder,) = small_sets.write_sets(tmp_path / "sets", small_sets.Sources(drawings=drawings)).values()
    found = names_in(folder)
    assert len(found) == 15
    assert not any(name.endswith(("copy.png", "in_both.png")) or "huge" in name for name in found)
    parts = [f"{part}/{name}/" for part in ("train", "test") for name in ("food", "plants")]
    assert [sum(name.startswith(part) for name in found) for part in parts] == [8, 4, 2, 1]
    assert sum("/food/fruit-" in name for name in found) == 5


def test_a_tenth_is_held_out_of_the_training_images_alone(programs, photographs, tmp_path):
    held = programs("plan_peers").hold_out(photographs, tmp_path / "held")
    parts = {
        part: {name.partition("/")[2] for name in names_in(held) if name.startswith(part)}
        for part in ("train", "val", "test")
    }
    assert {part: len(names) for part, names in parts.items()} == {"train": 15, "val": 3, "test": 18}
    assert not parts["train"] & parts["val"]


def test_choices_are_tried_in_turn_until_the_time_is_up_and_again_later(programs, tmp_path, monkeypatch):
    plan = programs("plan")
    typed = []

    def train(overrides):
        typed.append(overrides)
        run_folder = Path(overrides[-2].partition("=")[2].strip("'"))
        run_folder.mkdir(parents=True)
        accuracy = 90.0 if "loss.label_smoothing=0.1" in overrides else 80.0
        (run_folder / "run.json").write_text('{"status": "finished"}')
        (run_folder / "metrics.jsonl").write_text(json.dumps({"val_balanced_accuracy": accuracy}))
        if len(typed) == 3:
            runs.deadline = -1.0

    monkeypatch.setattr(plan, "train", train)
    runs = plan.Runs(tmp_path / "runs", {"digits": tmp_path}, float("inf"), quick=False)
    found = {}
    with pytest.raises(TimeoutError):
        plan.measure(runs, ["label smoothing"], 2, found)
    assert found == {"label smoothing": {"digits": {"0.0": {"0": 80.0, "1": 80.0}, "0.1": {"0": 90.0}}}}
    runs.deadline = float("inf")
    plan.measure(runs, ["label smoothing"], 2, found)
    shutil.rmtree(tmp_path / "runs")
    plan.measure(runs, ["label smoothing"], 2, found)
    assert len(typed) == 4, "nothing is trained that was found before"
    assert plan.as_table("label smoothing", found["label smoothing"]).endswith(
        "| digits | 80.0 ± 0.0 (n=2) | 90.0 ± 0.0 (n=2) |"
    )
    assert all("plan=good" in overrides and "data.val_fraction=0.2" in overrides for overrides in typed)


def test_every_rule_of_a_trial_is_one_of_the_plan(programs):
    from resnet_cli.planning.rules import read_rules

    trials = {name.partition(",")[0] for name in programs("plan").TRIALS}
    others = {"batch size", "image size", "image size and net", "learning rate", "net"}
    assert trials <= {rule["about"] for rule in read_rules()["rules"]} | others


def test_all_evidence_is_of_trials_that_can_be_repeated(programs, repository):
    plan = programs("plan")
    stored = json.loads((repository / "benchmarks/results/plan.json").read_text(encoding="utf-8"))["rules"]
    for rule, by_set in stored.items():
        names, choices = plan.TRIALS[rule]
        assert by_set.keys() <= set(names), rule
        assert {choice for by_choice in by_set.values() for choice in by_choice} <= choices.keys(), rule


def test_reduced_images_are_those_of_the_same_folder(programs, tmp_path):
    sets = programs("plan").with_reduced({"fashion, 2000": tmp_path / "a", "digits": tmp_path / "b"})
    assert sets["fashion, 2000, 24 pixels"] == sets["fashion, 2000"] == tmp_path / "a"
    assert len(sets) == 3


def test_nets_that_are_compared_in_the_same_time_get_epochs_by_their_speed(programs):
    choices = programs("plan").nets_in_time_of(80, ["optimizer=muon"])
    assert choices["resnet20 model.width=2"] == [
        "model=resnet20",
        "model.width=2",
        "trainer.epochs=30",
        "optimizer=muon",
    ]
    assert choices["resnet20"][1] == "trainer.epochs=80"
