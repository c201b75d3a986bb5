"""Data that changed between the start of a run and its resumption."""

import shutil

import pytest
from PIL import Image

from resnet_cli.data import Dataset
from resnet_cli.errors import InputError
from resnet_cli.session.run_data import data_changes, split_change
from resnet_cli.session.trained import open_trained
from tests.support import tiers
from tests.support.runs import record_of, rows_of

RUN = [
    "data=image_folder", "data.root=images", "data.batch_size=4", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]",
    "data.cache=null", "model=plain_mlp", "hydra.run.dir=run",
]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for label in "ab":
            for i in range(count):
                add(tmp_path / "images", f"{split}/{label}/{i}.png", 40 * i + (label == "b"))
    return tmp_path / "images"


def add(root, name, value):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, 7)).save(root / name)


def more_training_images(root):
    for i in range(3):
        add(root, f"train/a/more{i}.png", 99)


def other_validation_images(root):
    add(root, "val/a/0.png", 123)


def swapped_validation_labels(root):
    (root / "val/a").rename(root / "val/x")
    (root / "val/b").rename(root / "val/a")
    (root / "val/x").rename(root / "val/b")


def no_validation_split(root):
    shutil.rmtree(root / "val")


CHANGES = {
    more_training_images: "data, training split: 12 images -> 15 images: changed since the run was saved",
    other_validation_images: "data, validation split: images ",
    swapped_validation_labels: "data, validation split: images ",
    no_validation_split: "data, training split: 12 images -> ",
}


@pytest.mark.parametrize("change", tiers.mostly_slow(CHANGES, every=4), ids=lambda change: change.__name__)
def test_a_resume_with_other_data_is_refused_by_split_or_accepted_and_recorded(train, tmp_path, images, change):
    assert train(*RUN, "trainer.epochs=1")[0] == 0
    shutil.copytree(images, tmp_path / "same")
    assert train("resume=run", "trainer.epochs=2", "data.root=same")[0] == 0
    before = rows_of(tmp_path / "run")
    change(images)
    longer = ["resume=run", "trainer.epochs=3", "data.root=images"]
    status, _, err = train(*longer)
    assert status == 2
    assert CHANGES[change] in err
    assert "resume: these are not the data of the run; accept them with resume_force=true" in err
    assert rows_of(tmp_path / "run") == before
    assert train(*longer, "resume_force=true")[0] == 0
    assert any(line.startswith("data, ") for line in record_of(tmp_path / "run")["resumed_from"][-1]["changes"])


def test_a_new_run_refuses_statistics_on_the_scale_of_pixels_and_one_of_a_former_version_goes_on(
    train, tmp_path, images, monkeypatch
):
    own = [text for text in RUN if not text.startswith(("data.mean", "data.std"))]
    run = [*own, "data.mean=[123,116,103]", "data.std=[58,57,57]", "trainer.epochs=1"]
    status, _, err = train(*run)
    assert status == 2
    assert err.splitlines() == [
        "error: data.mean=[123,116,103]: each must be from 0 to 1, the scale of the images; divide by 255",
        "error: data.std=[58,57,57]: each must be from 0 to 1, the scale of the images; divide by 255",
    ]
    with monkeypatch.context() as as_before:
        as_before.setattr(Dataset, "validate_new", lambda _: None)
        assert train(*run)[0] == 0
    assert train("reproduce=run", "hydra.run.dir=again")[0] == 0
    assert train("resume=run", "trainer.epochs=2")[0] == 0
    assert len(rows_of(tmp_path / "run")) == 2
    assert open_trained(str(tmp_path / "run")).data["mean"] == [123, 116, 103]


def test_weights_matter_for_the_training_images_alone():
    """A table whose column of weights has gone."""
    facts = {"class_names": ["a"], "in_size": [3, 4, 4], "mean": [0.5], "std": [0.5]}
    bare = {"count": 4, "images": "i", "selection": "s", "labels": "l"}
    before = {split: {**bare, "weights": "w"} for split in ("train", "val", "test")}
    after = dict.fromkeys(before, bare)
    (change,) = data_changes({**facts, "splits": before}, {**facts, "splits": after}, force=True)
    assert (change.key, change.before, change.after) == ("data, training split", "weights w", "weights none")
    assert split_change(before, "test", bare) is None
    assert split_change(before, "test", {**bare, "labels": "x"}).line.endswith("labels l then, labels x now")


def test_checkpoints_of_earlier_versions_have_no_fingerprints():
    facts = {"class_names": ["a"], "in_size": [3, 4, 4], "mean": [0.5], "std": [0.5]}
    now = {**facts, "splits": {"train": {"count": 4}, "test": {"count": 2}}}
    assert data_changes(facts, now, force=False) == []
    with pytest.raises(InputError, match=r"data, training split: 5 images -> 4 images"):
        data_changes({**facts, "splits": {"train": {"count": 5}, "test": {"count": 2}}}, now, force=False)
