"""The range test: rates that rise in proportion, an end where the loss diverges, and what curves suggest."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.optimizers import Muon
from resnet_cli.training.lr_range import (
    A_TENTH,
    FIRST_LR,
    LAST_LR,
    STEEPEST,
    STEPS,
    LrPoint,
    run_range_test,
    suggest_lr,
)
from tests.support.trainers import loader, make_trainer, net


def points(smoothed):
    return [LrPoint(i, 10 ** (i / 10 - 6), loss, loss) for i, loss in enumerate(smoothed)]


def curve(*, rises):
    """Flat, falling from step 30 to 50, fastest at 40, then flat or rising."""
    flat, end = [2.0] * 30, [0.7] * 9
    fall = [2.0 - 1.3 / (1 + 2.718 ** (40 - i)) for i in range(30, 50)]
    return [*flat, *fall, 0.65, *([3.0] * 5 if rises else end)]


def test_the_rates_rise_by_the_same_factor_over_the_whole_range():
    found, diverged_at = run_range_test(make_trainer(net(), lr=0.05), loader(), 0.05)
    lrs = [point.lr for point in found]
    assert lrs[0] == FIRST_LR
    ratios = [b / a for a, b in pairwise(lrs)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert len(found) == STEPS or diverged_at >= lrs[-1]
    assert diverged_at is not None or lrs[-1] == pytest.approx(LAST_LR)


def test_the_same_seed_gives_the_same_points():
    first, second, other = (
        run_range_test(make_trainer(net(dropout=0.5), seed=seed), loader(), 0.1) for seed in (3, 3, 4)
    )
    assert first == second != other


def test_all_groups_rise_in_proportion_and_the_model_learns_at_those_rates():
    model, rates = net(), []
    groups = [{"params": model[1].parameters()}, {"params": model[4].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
    found, _ = run_range_test(ClassifierTrainer(model, None, optimizer), loader(), 0.1)
    assert [a for a, _ in rates] == pytest.approx([point.lr for point in found], rel=1e-6)
    assert [b / a for a, b in rates] == pytest.approx([0.2] * len(rates))


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, Muon])
def test_every_optimizer_learns_somewhere_in_the_range(factory):
    model = net()
    trainer = ClassifierTrainer(model, None, factory(model.parameters(), lr=0.003), seed=0)
    suggestion = suggest_lr(*run_range_test(trainer, loader(), 0.003))
    assert 1e-5 < suggestion.lr < 1


def test_a_loss_that_is_not_finite_ends_the_test():
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.steps = net(), 0

        def forward(self, x):
            self.steps += self.training
            return self.layer(x) * (float("nan") if self.steps > 20 else 1.0)

    found, diverged_at = run_range_test(make_trainer(Exploding()), loader(), 0.1)
    assert len(found) == 20
    assert diverged_at > found[-1].lr


def test_a_lowest_point_suggests_a_tenth_of_its_rate():
    suggestion = suggest_lr(points(curve(rises=True)), None)
    assert suggestion.rule == A_TENTH
    assert suggestion.lowest.step == 50
    assert suggestion.lr == pytest.approx(10**-2)
    assert suggestion.steepest.step in (40, 41)


def test_a_loss_that_only_falls_suggests_where_it_falls_fastest():
    suggestion = suggest_lr(points(curve(rises=False)), None)
    assert suggestion.rule == STEEPEST
    assert suggestion.lr == pytest.approx(10**-2, rel=0.3)


def test_the_first_few_losses_do_not_count_as_the_fastest_fall():
    losses = curve(rises=True)
    noisy = [4.0, 3.0, 2.5, *losses[3:]]
    assert suggest_lr(points(noisy), None).steepest.step in (40, 41)


def test_a_first_loss_that_happens_to_be_the_lowest_is_no_minimum():
    rising = [2.0, *[2.3] * 60, *(2.3 * 1.1**step for step in range(20))]
    assert suggest_lr(points(rising), 1.0).lr is None
    falling = [1.0, *curve(rises=True)]
    assert suggest_lr(points(falling), None).lowest.step == 1 + suggest_lr(points(curve(rises=True)), None).lowest.step
    assert suggest_lr(points([2.0, 1.0, 3.0]), 1.0).lr is None


def test_a_loss_that_does_not_fall_suggests_nothing():
    assert suggest_lr(points([2.0] * 60 + [9.0]), 1.0).lr is None
