"""Draws of samples: functions of (seed, epoch, sample) alone, uniform, and different for copies of an image."""

import pytest
import torch
from scipy import stats

from resnet_cli.data.loading.draws import COPY_STRIDE, SampleDraws, number_copies, repeat_samples


def draws(samples=range(2000), seed=0, epoch=0):
    return SampleDraws(torch.tensor(samples), seed, epoch)


def test_draws_do_not_depend_on_the_other_samples_of_a_batch():
    everything = draws().bits("a", 3)
    chosen = [7, 1999, 3, 3]
    assert torch.equal(draws(chosen).bits("a", 3), everything[chosen])
    assert torch.equal(draws(chosen).bits("a", 2), everything[chosen, :2])
    assert torch.equal(draws().subset(torch.tensor(chosen)).bits("a", 3), everything[chosen])


GOLDEN = [
    [2217466492760326521, 3671290710890026656],
    [-439951316458123101, -3373935633901623618],
    [-5568804486233430485, -4558594602598368102],
]


def test_draws_are_the_same_on_every_machine():
    assert draws([0, 1, COPY_STRIDE]).bits("a", 2).tolist() == GOLDEN


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"samples": range(2000, 4000)}])
def test_draws_are_independent_of_those_of_other_seeds_epochs_and_samples(other):
    a, b = draws().uniform("a", 1)[:, 0], draws(**other).uniform("a", 1)[:, 0]
    assert stats.pearsonr(a, b).pvalue > 0.01
    assert len(set(a.tolist()) | set(b.tolist())) == 4000
    assert stats.pearsonr(a, draws().uniform("b", 1)[:, 0]).pvalue > 0.01


def test_draws_are_uniform():
    values = draws(range(5000)).uniform("a", 4)
    assert values.dtype == torch.float64
    for column in values.T:
        assert stats.kstest(column, "uniform").pvalue > 0.01
    assert stats.kstest(values.flatten()[1:] - values.flatten()[:-1], stats.triang(0.5, -1, 2).cdf).pvalue > 0.01
    between = draws().between("c", -3, 5)
    assert stats.kstest(between, stats.uniform(-3, 8).cdf).pvalue > 0.01
    assert 540 < len(draws().chosen("d", 0.3)) < 660
    assert len(draws().chosen("d", 0.0)) == 0
    assert len(draws().chosen("d", 1.0)) == 2000


def test_every_bit_is_set_in_half_of_the_draws():
    bits = draws(range(4000)).bits("a", 1)
    counts = torch.stack([(bits >> i & 1).sum() for i in range(64)])
    assert ((counts - 2000).abs() < 4.5 * 4000**0.5 / 2).all()


def test_copies_of_an_image_are_numbered():
    numbers = number_copies(torch.tensor([5, 2, 5, 0, 5, 2]))
    assert numbers.tolist() == [5, 2, 5 + COPY_STRIDE, 0, 5 + 2 * COPY_STRIDE, 2 + COPY_STRIDE]
    order = torch.randperm(50)
    assert torch.equal(number_copies(order), order)
    assert number_copies(order[:0]).tolist() == []


@pytest.mark.parametrize(("count", "repeats", "batch_size"), [(24, 3, 6), (25, 3, 6), (7, 2, 4), (5, 4, 8), (10, 3, 4)])
def test_repeated_samples_fill_an_epoch_of_the_same_length(count, repeats, batch_size):
    order = torch.randperm(count)
    repeated = repeat_samples(order, repeats, batch_size)
    assert len(repeated) == count
    assert sorted(repeated.tolist()) == sorted([i for i in order.tolist() for _ in range(repeats)][:count])
    for batch in torch.split(repeated, batch_size):
        if len(set(batch.tolist())) > 2:
            assert (batch != batch.roll(1)).all()  # mixup does not blend an image with itself


def test_each_batch_holds_the_copies_of_its_images():
    for batch in torch.split(repeat_samples(torch.arange(24), 3, 6), 6):
        assert batch.bincount(minlength=24).unique().tolist() == [0, 3]
