"""Runs whose weights or teacher were trained on images that they validate or test on."""

import shutil

import pytest

from resnet_cli.data.split_file import listed_names
from tests.support.runs import record_of, tiny

FOLDS = ["data.folds=2", "trainer.epochs=1", "hydra.run.dir=tuned"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run `base`, which was trained on nine tenths of the training images."""
    from resnet_cli import train

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(tiny("trainer.epochs=1", "hydra.run.dir=base"))
    return folder


@pytest.fixture
def base(trained, tmp_path):
    return shutil.copytree(trained / "base", tmp_path / "base")


def lines_in(out):
    return [line for line in out.splitlines() if "that run was trained on" in line]


def test_validation_images_that_weights_and_teacher_have_learnt_are_counted_and_recorded(train, base, tmp_path):
    status, out, err = train(*tiny("init_from=base", "teacher=base/checkpoints/best.pt", *FOLDS))
    assert (status, err) == (0, "")
    learnt = listed_names(base / "splits.json", "train", are_numbers=True)
    seen = len(learnt & listed_names(tmp_path / "tuned/splits.json", "val", are_numbers=True))
    assert 0 < seen <= 48
    count = {"seen": seen, "images": 48}
    expected = {
        "init_from": {"run": "base", "val": count}, "teacher": {"run": "base/checkpoints/best.pt", "val": count}
    }  # fmt: skip
    assert record_of(tmp_path / "tuned")["seen_images"] == expected
    rest = f"that run was trained on {seen} of the 48 validation images of this run, whose figures on them are"
    assert lines_in(out) == [
        f"init_from=base: {rest} optimistic", f"teacher=base/checkpoints/best.pt: {rest} optimistic"
    ]  # fmt: skip


def test_a_resumed_run_keeps_what_was_recorded_although_the_other_run_is_gone(train, base, tmp_path):
    _, out, _ = train(*tiny("init_from=base", *FOLDS))
    before, lines = record_of(tmp_path / "tuned")["seen_images"], lines_in(out)
    assert len(lines) == 1
    shutil.rmtree(base)
    status, out, _ = train("resume=tuned", "trainer.epochs=2")
    assert (status, lines_in(out)) == (0, lines)
    assert record_of(tmp_path / "tuned")["seen_images"] == before


@pytest.mark.parametrize("options", [[], ["data.folds=2", "data.image_seed=1"]])
def test_the_same_split_and_other_images_with_these_numbers_are_not_warned_of(train, base, tmp_path, options):
    status, out, _ = train(*tiny("init_from=base", "trainer.epochs=1", *options, "hydra.run.dir=tuned"))
    assert (status, lines_in(out)) == (0, [])
    assert "seen_images" not in record_of(tmp_path / "tuned")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("splits.json", None),  # as in version 0.1.0
        ("splits.json", '{"train": {"train": [null]}}'),
        ("run.json", "damaged"),
        ("config.yaml", "data: 3"),
    ],
)
def test_a_run_whose_images_are_unknown_is_no_reason_to_warn_or_to_stop(train, base, tmp_path, file, text):
    (base / file).unlink()
    if text is not None:
        (base / file).write_text(text)
    status, out, _ = train(*tiny("init_from=base", *FOLDS))
    assert (status, lines_in(out)) == (0, [])
    assert "seen_images" not in record_of(tmp_path / "tuned")


def test_files_of_one_folder_are_compared_by_name_whatever_their_size(train, place):
    options = ["data=image_folder", "data.image_size=8", "data.cache=null", "model=resnet8", "trainer.epochs=1"]
    options += ["init_from=run", "data.val_fraction=0.5", "data.test_fraction=0.4"]
    status, out, _ = train(*options, "data.root=photos", "hydra.run.dir=tuned", cwd=place)
    assert status == 0
    learnt, found = listed_names(place / "run/splits.json", "train"), record_of(place / "tuned")["seen_images"]
    assert found["init_from"]["run"] == "run"
    for part in ("val", "test"):
        names = listed_names(place / "tuned/splits.json", part)
        assert found["init_from"][part] == {"seen": len(learnt & names), "images": len(names)}
    (line,) = lines_in(out)
    assert line.startswith(f"init_from=run: that run was trained on {found['init_from']['val']['seen']} of the ")
    assert f" validation images and {found['init_from']['test']['seen']} of the " in line
    shutil.copytree(place / "photos", place / "others")
    status, out, _ = train(*options, "data.root=others", "hydra.run.dir=other", cwd=place)
    assert (status, lines_in(out)) == (0, [])
