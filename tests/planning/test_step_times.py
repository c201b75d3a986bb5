"""Rates of nets."""

import torch

from resnet_cli.optimizers import Muon
from resnet_cli.planning.step_times import images_per_second
from tests.support.settings import settings_of


def test_the_rate_is_that_of_the_fastest_step():
    times = iter([0, 0.5, 10, 10.25, 20, 21])
    settings = settings_of("model=resnet8", "optimizer=muon")
    state = torch.get_rng_state()
    rate = images_per_second(settings, (1, 8, 8), 3, batch_size=4, device="cpu", clock=lambda: next(times))
    assert rate == 4 / 0.25
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_has_the_update_of_the_optimizer(monkeypatch):
    steps = []
    monkeypatch.setattr(Muon, "step", lambda self: steps.append(self.param_groups[0]["lr"]))
    settings = settings_of("model=resnet8", "optimizer=muon", "optimizer.lr=0.02")
    images_per_second(settings, (1, 8, 8), 3, batch_size=4, device="cpu", clock=iter(range(0, 4000, 2)).__next__)
    assert set(steps) == {0.02}


def test_a_step_on_a_cpu_has_few_images_and_fewer_large_ones(monkeypatch):
    sizes = []
    forward = torch.nn.functional.cross_entropy
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda x, y: sizes.append(len(x)) or forward(x, y))
    settings = settings_of("model=plain_mlp")
    for side, batch_size in ((8, 256), (8, 16), (64, 256), (256, 256)):
        images_per_second(
            settings, (1, side, side), 3, batch_size=batch_size, device="cpu",
            clock=iter(range(0, 4000, 2)).__next__,
        )  # fmt: skip
    assert list(dict.fromkeys(sizes)) == [64, 16, 4]
