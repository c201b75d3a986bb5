"""The warning that validation stays at chance, while training fits or to the end."""

from types import SimpleNamespace

import pytest
import torch

from resnet_cli.data.selection import Samples
from resnet_cli.session.chance import ChanceCheck, binomial_tail
from tests.support.loaders import small_loaders


def row(train, val, seconds=30.0):
    return {"train_accuracy": train, "val_accuracy": val, "seconds": seconds}


@pytest.fixture
def check():
    return ChanceCheck(small_loaders(val_fraction=0.5), epochs=100)


def test_it_is_said_once_after_a_minute(check, caplog):
    rows = [row(40, 33), row(60, 30), row(80, 35)]
    check.after_epoch(rows[:1])
    assert not caplog.records
    check.after_epoch(rows)
    [record] = caplog.records
    assert "at chance" in record.getMessage()
    assert "resnet-data" in record.getMessage()
    check.after_epoch([*rows, row(90, 33)])
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "rows",
    [
        [row(40, 33), row(60, 30), row(80, 90)],  # it learns
        [row(34, 33), row(33, 33), row(36, 33)],  # it does not fit either
        [row(40, 33, 5.0), row(60, 30, 5.0), row(80, 35, 5.0)],  # too early
    ],
)
def test_nothing_is_said_otherwise(check, rows, caplog):
    check.after_epoch(rows)
    assert not caplog.records


def test_a_first_epoch_far_above_chance_is_no_guess(check, caplog):
    check.after_epoch([row(40, 33 + 80), row(60, 30), row(80, 35)])
    assert not caplog.records


def test_half_of_a_short_run_is_enough(caplog):
    check = ChanceCheck(small_loaders(val_fraction=0.5), epochs=6)
    check.after_epoch([row(40, 33, 1.0), row(60, 30, 1.0), row(80, 35, 1.0)])
    assert len(caplog.records) == 1


def test_a_new_run_that_ends_without_having_learnt_anything_says_so(caplog):
    rows = [row(34, 33), row(33, 35), row(36, 33)]
    for counts, options, said in (
        ((50, 50, 50), {}, 1),
        ((50, 50, 50), {"is_new": False}, 0),
        ((50, 50, 50), {"epochs": 4}, 0),  # it goes on
        ((2, 2, 2), {}, 0),  # too few to tell
        ((180, 20), {}, 0),  # too unequal to tell
    ):
        caplog.clear()
        check = ChanceCheck(loaders_of(*counts), **{"epochs": 3, **options})
        for end in (2, 3):
            check.after_epoch(rows[:end])
        assert len(caplog.records) == said
        assert not said or "never left chance" in caplog.text
    caplog.clear()
    ChanceCheck(loaders_of(50, 50, 50), epochs=3).after_epoch([*rows[:2], row(36, 60)])
    ChanceCheck(loaders_of(180, 20), epochs=3).after_epoch([row(93, 92)] * 3)
    assert not caplog.records


def test_a_new_run_whose_training_accuracy_alone_left_chance_has_learnt_something(caplog):
    ChanceCheck(loaders_of(50, 50, 50), epochs=3).after_epoch([row(34, 33), row(33, 35), row(50, 33)])
    [record] = caplog.records
    assert "validation accuracy is at chance (35.0 %" in record.getMessage()
    assert "training accuracy is 50.0 %: the labels may be wrong" in record.getMessage()


def test_without_validation_images_nothing_is_said(caplog):
    ChanceCheck(small_loaders(val_fraction=0), epochs=6).after_epoch([row(99, 0)] * 6)
    assert not caplog.records


def test_epochs_without_validation_do_not_count(check, caplog):
    """A run may be resumed with validation images that it did not have."""
    before = [row(40, None), row(60, None)]
    for rows in (before, [*before, row(80, 35)], [*before, row(80, 35), row(80, 33)]):
        check.after_epoch(rows)
        assert not caplog.records
    check.after_epoch([*before, row(80, 35), row(80, 33), row(80, 30)])
    assert len(caplog.records) == 1


def test_a_real_run_on_random_labels_says_it(train, tmp_path):
    torch.manual_seed(0)
    status, out, err = train(
        "data=noise", "data.count=60", "data.image_size=8", "data.val_fraction=0.5", "model=resnet8",
        "trainer.epochs=16", "data.batch_size=10", "data.augment.flip=none",
    )  # fmt: skip
    assert status == 0
    assert "at chance" in out + err


def test_the_tail_of_a_binomial_distribution():
    assert binomial_tail(0, 5, 0.3) == pytest.approx(1)
    assert binomial_tail(5, 5, 0.5) == pytest.approx(1 / 32)
    assert binomial_tail(4, 5, 0.5) == pytest.approx(6 / 32)
    assert binomial_tail(3, 5, 1.0) == 1


def loaders_of(*counts):
    """Return loaders whose validation images have so many of each class."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    split = SimpleNamespace(labels=labels)
    return SimpleNamespace(
        samples={"val": Samples(split)}, has_label_sets=False, class_names=list(map(str, range(len(counts))))
    )


@pytest.mark.parametrize("counts", [(10, 3), (1, 1), (9, 0), (20, 1)])
def test_validation_images_that_guesses_may_have_right_say_nothing(counts, caplog):
    ChanceCheck(loaders_of(*counts), epochs=6).after_epoch([row(100, 100)] * 6)
    assert not caplog.records


def test_validation_images_too_few_to_tell_the_training_accuracy_from_guesses_say_nothing(caplog):
    for train, said in ((70.7, 0), (99, 1)):
        ChanceCheck(loaders_of(5, 5, 4), epochs=24).after_epoch([row(train, 57.1)] * 12)
        assert len(caplog.records) == said


def test_the_best_of_many_epochs_may_be_a_guess(caplog):
    ChanceCheck(loaders_of(12, 12), epochs=30).after_epoch([*[row(98, 50)] * 20, row(98, 70.8), *[row(98, 50)] * 9])
    assert len(caplog.records) == 1
    caplog.clear()
    ChanceCheck(loaders_of(12, 12), epochs=30).after_epoch([row(98, 50), row(98, 95.8), row(98, 95.8)])
    assert not caplog.records


def test_what_tells_the_classes_apart_equally_well_is_no_guess(caplog):
    for balanced, said in ((70.0, 0), (52.0, 1)):
        ChanceCheck(loaders_of(140, 70), epochs=4).after_epoch([{**row(99, 66), "val_balanced_accuracy": balanced}] * 4)
        assert len(caplog.records) == said
