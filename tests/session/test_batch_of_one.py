"""Batches of one image, which some batch norms cannot train on: refused before the first step."""

import pytest
from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.session.batch_of_one import fails_on_one, require_micro_batches, require_no_batch_of_one
from tests.support.runs import tiny

VALUES = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
MAPS = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def fails(model, size):
    return lambda *, in_last_only: fails_on_one(model, (3, size, size))


@pytest.mark.parametrize(
    ("samples", "batch_size", "accumulate", "words"),
    [
        (
            129,
            128,
            1,
            "data.batch_size=128: with 129 training images, the last batch of an epoch has 1 image: .*drop_last",
        ),
        (100, 1, 1, "data.batch_size=1: .*use a larger one"),
        (1, 128, 1, "data: only 1 training image"),
        (129, 129, 65, "trainer.accumulate=65: leaves micro-batches of 1 image in a batch of 129"),
        (131, 128, 2, "trainer.accumulate=2: leaves micro-batches of 1 image in a batch of 3"),
    ],
)
def test_refused_with_what_would_do(samples, batch_size, accumulate, words):
    sizes = {"samples": samples, "batch_size": batch_size, "accumulate": accumulate, "num_batches": 200}
    with pytest.raises(InputError, match=words):
        require_no_batch_of_one(fails(VALUES, 2), **sizes)
    require_no_batch_of_one(fails(MAPS, 2), **sizes)  # four values of each channel
    with pytest.raises(InputError, match=words):
        require_no_batch_of_one(fails(MAPS, 1), **sizes)


@pytest.mark.parametrize(("samples", "batch_size", "accumulate"), [(128, 128, 1), (130, 128, 1), (128, 128, 64)])
def test_other_sizes_train(samples, batch_size, accumulate):
    sizes = {"samples": samples, "batch_size": batch_size, "accumulate": accumulate}
    require_no_batch_of_one(fails(VALUES, 2), num_batches=2, **sizes)


def test_a_batch_that_is_never_reached_does_not_count():
    require_no_batch_of_one(fails(VALUES, 2), samples=129, batch_size=128, num_batches=1, accumulate=1)


@pytest.mark.parametrize(
    "more", [["model=residual_mlp", "model.norm=batch"], ["model=torchvision", "model.name=resnet18"]]
)
def test_a_run_is_refused_before_anything_is_made(train, tmp_path, more):
    arguments = tiny(*more, "data.count=33", "data.batch_size=32", "data.val_fraction=0", "trainer.epochs=1")
    status, _, err = train(*arguments)
    assert status == 2
    assert err.startswith("error: data.batch_size=32: with 33 training images, the last batch of an epoch has 1 image")
    assert list(tmp_path.iterdir()) == []
    if more[0] == "model=residual_mlp":
        assert train(*arguments, "data.drop_last=true")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (1000, 64),
            "trainer.accumulate=1000: data.batch_size=64 has 64 images in a batch; "
            "use at most 64, or a larger data.batch_size",
        ),
        ((34, 65, 2), "trainer.accumulate=34: data.batch_size=65 on 2 processes gives each 33 images in a batch"),
        ((2, 1), "trainer.accumulate=2: data.batch_size=1 has 1 image in a batch"),
    ],
)
def test_more_micro_batches_than_images_are_refused(arguments, words):
    with pytest.raises(InputError, match=f"^{words}"):
        require_micro_batches(*arguments)
    accumulate, *others = arguments
    require_micro_batches(min(accumulate - 1, 64), *others)


@pytest.mark.slow
def test_a_new_run_is_refused_and_a_former_one_resumes(train, tmp_path, monkeypatch):
    many = tiny("model=residual_mlp", "trainer.accumulate=33", "trainer.epochs=1", "hydra.run.dir=a")
    status, _, err = train(*many)
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert err.startswith("error: trainer.accumulate=33: data.batch_size=32 has 32 images in a batch")
    with monkeypatch.context() as former:
        former.setattr("resnet_cli.session.batch_of_one.require_micro_batches", lambda *_: None)
        assert train(*many)[0] == 0
    assert train("reproduce=a", "hydra.run.dir=b")[0] == 0
    assert train("resume=a", "trainer.epochs=2")[0] == 0
    assert train(*many[:-1], "hydra.run.dir=c", "find=batch_size")[0] == 0  # which tries batches of 8 and 16


def test_sizes_that_differ_by_one_leave_no_single_image():
    sizes = {"samples": 64, "batch_size": 64, "accumulate": 10, "num_batches": 1}
    require_no_batch_of_one(fails(VALUES, 2), **sizes)
    with pytest.raises(InputError, match="leaves micro-batches of 1 image in a batch of 64"):
        require_no_batch_of_one(fails(VALUES, 2), **sizes, evenly=False)


def test_frozen_layers_train_on_one_image():
    assert fails_on_one(VALUES, (3, 2, 2))
    assert not fails_on_one(VALUES, (3, 2, 2), [VALUES[2]])
    assert VALUES[2].training


ONE_LEFT = ("data.count=33", "data.batch_size=32", "data.val_fraction=0", "data.image_size=8")


@pytest.mark.parametrize(
    ("schedule", "epochs", "is_refused"),
    [
        ("[[0,0.25],[1,0.25],[1,1]]", 2, True),  # 2x2, which the two strides of the net reduce to 1x1
        ("[[0,0.25],[50%,0.25],[50%,1]]", 1, False),  # the last batch has the full size
    ],
)
def test_the_smallest_images_that_single_ones_have_count(train, tmp_path, schedule, epochs, is_refused):
    sizes = (f"trainer.resolution={schedule}", "trainer.resolution_multiple=2", f"trainer.epochs={epochs}")
    status, _, err = train(*tiny(*ONE_LEFT, *sizes, "hydra.run.dir=run"))
    assert status == (2 if is_refused else 0), err
    if is_refused:
        assert err.startswith("error: data.batch_size=32: with 33 training images, the last batch of an epoch has 1")
        assert not (tmp_path / "run").exists()


def test_a_run_whose_batch_norms_never_train_takes_single_images(train):
    net = ("model=residual_mlp", "model.norm=batch", *ONE_LEFT, "trainer.epochs=1")
    status, _, err = train(*tiny(*net, "trainer.freeze=[{match: norm, until: 1 steps}]", "hydra.run.dir=a"))
    assert (status, err[:28]) == (2, "error: data.batch_size=32: w")
    assert train(*tiny(*net, "trainer.freeze=norm", "hydra.run.dir=b"))[0] == 0
