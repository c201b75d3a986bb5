"""Runs whose number of epochs is not whole: the last epoch ends early, and everything is counted by its steps."""

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.config.run_length import total_steps
from resnet_cli.errors import InputError
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.lookahead import LookaheadOptions
from tests.support.trainers import blobs, loader

BATCHES = 4


def batches():
    return loader(blobs(count=BATCHES * 32))


def make(epochs, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return ClassifierTrainer(net, None, torch.optim.SGD(net.parameters(), lr=0.1), seed=1, epochs=epochs, **options)


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(9.9, 48, 476), (37, 48, 1776), (9.9, 50, 495), (0.1, 3, 1), (2.5, 4, 10), (8, 25, 200)],
)
def test_parts_of_a_step_count_as_one(epochs, steps, expected):
    assert total_steps(epochs, steps) == expected


@pytest.mark.parametrize(("epochs", "by_epoch"), [(2, [4, 8]), (2.5, [4, 8, 10]), (2.01, [4, 8, 9]), (0.5, [2])])
def test_the_last_epoch_ends_early_and_is_evaluated(epochs, by_epoch):
    trainer = make(epochs)
    trainer.fit(batches(), batches(), verbose=False)
    assert [row["step"] for row in trainer.state.rows] == by_epoch
    assert all(row["val_accuracy"] is not None for row in trainer.state.rows)
    assert trainer.state.is_done(epochs, None)
    trainer.fit(batches(), batches(), verbose=False)
    assert trainer.state.step == by_epoch[-1]


def test_more_epochs_begin_where_the_part_has_ended():
    trainer = make(1.5)
    trainer.fit(batches(), None, verbose=False)
    trainer.epochs = 3
    trainer.fit(batches(), None, verbose=False)
    assert [row["step"] for row in trainer.state.rows] == [4, 6, 10]


def test_averages_over_the_run_know_its_length():
    trainer = make(2.5, averaging="lookahead", lookahead=LookaheadOptions(k=5, alpha=1.0, final_alpha=0.2))
    trainer.fit(batches(), None, verbose=False)
    assert trainer.state.average.weight(10) == pytest.approx(0.2)
    assert trainer.state.average.weight(5) == pytest.approx(0.6)


def test_a_part_of_an_epoch_of_unknown_length_is_refused():
    with pytest.raises(InputError, match=r"trainer\.epochs=1\.5: the loader has no length; set trainer\.max_batches"):
        EpochIterator(iter([]), epochs=1.5).limit_of(1)
    assert EpochIterator(iter([]), epochs=1.5, limit=4).limit_of(1) == 2
    assert EpochIterator(iter([]), epochs=2).limit_of(1) is None
