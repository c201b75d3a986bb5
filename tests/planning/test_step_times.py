"""Rates of nets."""

import torch

from resnet_cli.planning.step_times import images_per_second
from tests.support.settings import settings_of


def test_the_rate_is_that_of_the_fastest_step():
    times = iter([0, 0.5, 10, 10.25, 20, 21])
    model = settings_of("model=resnet8")["model"]
    state = torch.get_rng_state()
    rate = images_per_second(model, (1, 8, 8), 3, batch_size=4, device="cpu", clock=lambda: next(times))
    assert rate == 4 / 0.25
    assert torch.equal(torch.get_rng_state(), state)
