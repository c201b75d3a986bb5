"""Measuring leaves no trace, and what is chosen fits into the budget."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.session.comparison import first_difference
from resnet_cli.training.lookahead import LookaheadOptions
from resnet_cli.training.measuring import measure
from resnet_cli.training.monitor import FitMonitor
from resnet_cli.training.time_budget import EpochTimes, RunLength, budget_seconds, choose_length, expected_seconds
from resnet_cli.training.time_left import TimeLeft
from tests.support.trainers import CountingLoss, RunningMean, loader, make_trainer, net


class Clock:
    """A clock that each reading advances by a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_whole_epochs_fit_into_the_budget_with_validation_saving_and_test():
    times = EpochTimes(10, 8.0, validation=1.0, saving=1.0, test=2.0)
    assert choose_length(times, 42.0) == RunLength(4)
    assert choose_length(times, 41.9) == RunLength(3)
    assert expected_seconds(times, RunLength(4)) == 42.0


def test_below_one_epoch_the_steps_are_chosen():
    times = EpochTimes(10, 8.0, validation=1.0, saving=1.0, test=2.0)
    assert choose_length(times, 8.1) == RunLength(1, 5)
    assert expected_seconds(times, RunLength(1, 5)) == 8.0
    assert choose_length(times, -3.0) == RunLength(1, 1)


def test_curves_are_drawn_once_a_second_and_checkpoints_as_set():
    assert EpochTimes(1, 0.25, drawing=0.4).epoch == pytest.approx(0.35)
    assert EpochTimes(1, 2.0, drawing=0.4).epoch == pytest.approx(2.4)
    assert EpochTimes(10, 2.0, checkpoint=1.0, checkpoint_every=2).epoch == pytest.approx(7.0)


def test_a_budget_is_read_in_seconds():
    assert (budget_seconds("1 min"), budget_seconds(5), budget_seconds()) == (60.0, 5.0, None)


def test_the_first_epoch_counts_only_while_it_is_alone():
    left = TimeLeft()
    assert left.estimate(3) is None
    left.add(10.0)
    assert left.estimate(3) == 30.0
    left.add(2.0)
    left.add(4.0)
    assert left.estimate(2) == 6.0


def test_the_rest_of_a_resumed_epoch_tells_nothing_of_whole_ones(monkeypatch):
    clock = iter([0.0, 100.0, 125.0])
    monkeypatch.setattr("resnet_cli.training.monitor.monotonic", lambda: next(clock))
    state = SimpleNamespace(epoch=3, batches=385)
    monitor = FitMonitor(state, None, None, verbose=False)
    monitor.start_epoch(10, 391)
    assert monitor.time_left(10) is None
    state.epoch, state.batches = 4, 0
    monitor.start_epoch(10, 391)
    assert monitor.time_left(10) == 6 * 25.0


def test_a_first_epoch_of_a_few_seconds_gives_no_estimate():
    left = TimeLeft()
    left.add(9.0)  # mostly warm-up: the estimate was up to three times too long
    assert left.estimate(3) is None
    left.add(1.0)
    assert left.estimate(3) == 3.0


OPTIONS = {
    "plain": {},
    "a loss with a state": {"loss_fn": CountingLoss},
    "a buffer that is replaced": {"model": lambda: nn.Sequential(RunningMean(), *net()), "averaging": "ema"},
    "average, norms and micro-batches": {"averaging": "ema", "log_gradients": True, "accumulate": 2, "clip_norm": 1.0},
    "lookahead": {"averaging": "lookahead", "lookahead": LookaheadOptions(k=2, final_alpha=0.2, buffers=True)},
    "first batches again": {"overfit_batches": 1},
    "state from the start": {"optimizer": partial(torch.optim.Adagrad, initial_accumulator_value=0.1)},
    "compiled": {"compile": "step", "averaging": "ema"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "compiled" else []) for name in OPTIONS]
)
def test_measuring_leaves_no_trace(name):
    """A run after a measurement ends as one without it, and the random state is not touched."""
    results = []
    for measures in (True, False):
        torch.manual_seed(0)
        options = {"seed": 3, "epochs": 2, "schedule": lambda step: 1 / (1 + step), **OPTIONS[name]}
        model = options.pop("model", partial(net, dropout=0.3))()
        optimizer = options.pop("optimizer", lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
        loss_fn = options.pop("loss_fn", lambda: None)()
        trainer = ClassifierTrainer(model, loss_fn, optimizer(model.parameters()), **options)
        if measures:
            before, random = copy.deepcopy(trainer.state.state_dict()), torch.get_rng_state()
            found = measure(trainer, loader(), loader(), seconds=3.0, clock=Clock())
            assert found.steps >= 3
            assert found.step > 0 < found.image
            after = trainer.state.state_dict()
            names = ("model", "average", "step", "epoch", "batches", "rows", "totals", "optimizer")
            assert first_difference(*({name: state[name] for name in names} for state in (before, after))) is None
            assert torch.equal(random, torch.get_rng_state())
            assert "loss" not in after
        trainer.fit(loader(), loader(), verbose=False)
        end = trainer.state.state_dict()
        results.append(copy.deepcopy({name: end[name] for name in ("model", "optimizer", "average", "gradients")}))
    assert first_difference(*results) is None


def test_steps_per_epoch_end_an_epoch_and_not_the_validation():
    trainer = make_trainer(net(), epochs=2, steps_per_epoch=1)
    trainer.fit(loader(batch_size=32), loader(batch_size=32), verbose=False)
    assert [row["step"] for row in trainer.state.rows] == [1, 2]
    assert trainer.train_limit(5) == 1
