"""Rates of nets."""

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.optimizers import Muon
from resnet_cli.planning.step_times import (
    _images_of_step,
    images_per_second,
    parts_of_batch,
    teacher_images_per_second,
)
from tests.support.settings import settings_of

CPU = torch.device("cpu")


def test_the_rate_is_that_of_the_fastest_gradients_and_update():
    gradients, updates = [0, 0.5, 10, 10.25, 20, 21], [30, 30.5, 40, 40.125, 50, 51]
    times = iter([*gradients, *updates])
    settings = settings_of("model=resnet8", "optimizer=muon")
    state = torch.get_rng_state()
    rate = images_per_second(
        settings, (1, 8, 8), 3, batch_size=4, device=CPU, precision="fp32", clock=lambda: next(times)
    )
    assert rate == 4 / (0.25 + 0.125)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_update_of_a_large_batch_takes_as_long_as_that_of_a_small_one():
    times = iter([0, 8, 8, 12])
    settings = settings_of("model=plain_mlp")
    rate = images_per_second(
        settings, (1, 8, 8), 3, batch_size=256, device=CPU, precision="fp32", clock=lambda: next(times)
    )
    assert rate == 1 / (8 / 64 + 4 / 256)


def test_a_step_has_the_update_of_the_optimizer(monkeypatch):
    steps = []
    monkeypatch.setattr(Muon, "step", lambda self: steps.append(self.param_groups[0]["lr"]))
    settings = settings_of("model=resnet8", "optimizer=muon", "optimizer.lr=0.02")
    images_per_second(
        settings, (1, 8, 8), 3, batch_size=4, device=CPU, precision="fp32", clock=iter(range(0, 4000, 2)).__next__
    )
    assert set(steps) == {0.02}


def test_an_optimizer_that_fails_in_a_step_is_refused_in_a_line():
    optimizer = {"_target_": "torch.optim.SparseAdam", "lr": 0.1}
    nodes = {"model": settings_of("model=plain_mlp")["model"], "optimizer": optimizer}
    with pytest.raises(InputError, match=r"^optimizer: torch\.optim\.SparseAdam fails in its first step: "):
        images_per_second(nodes, (1, 8, 8), 3, batch_size=4, device=CPU, precision="fp32")


def test_a_net_whose_last_features_are_single_pixels_is_timed_for_batches_of_one_image():
    nodes = settings_of("model=resnet8")
    rate = images_per_second(nodes, (3, 4, 4), 3, batch_size=1, device=CPU, precision="fp32", seconds=0.001)
    assert rate > 0


def test_a_step_on_a_cpu_has_few_images_and_fewer_large_ones(monkeypatch):
    sizes = []
    forward = torch.nn.functional.cross_entropy
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda x, y: sizes.append(len(x)) or forward(x, y))
    settings = settings_of("model=plain_mlp")
    for side, batch_size in ((8, 256), (8, 16), (64, 256), (256, 256)):
        images_per_second(
            settings, (1, side, side), 3, batch_size=batch_size, device=CPU, precision="fp32",
            clock=iter(range(0, 4000, 2)).__next__,
        )  # fmt: skip
    assert list(dict.fromkeys(sizes)) == [64, 16, 4]


def test_a_step_that_does_not_fit_into_memory_has_no_rate(monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    settings = settings_of("model=plain_mlp")
    monkeypatch.setattr("torch.nn.functional.cross_entropy", run_out)
    assert images_per_second(settings, (1, 8, 8), 3, batch_size=4, device=CPU, precision="fp32") == 0


def test_a_step_on_a_gpu_has_the_images_of_a_micro_batch():
    trainer, gpu = {"accumulate": 8, "processes": 2}, torch.device("cuda")
    assert (parts_of_batch(trainer, gpu), parts_of_batch({}, gpu), parts_of_batch(trainer, CPU)) == (16, 1, 1)
    assert _images_of_step(1000, (3, 224, 224), gpu, 16) == 63


def test_a_teacher_takes_the_time_of_its_fastest_prediction():
    times, sizes = iter([0, 1, 10, 10.5, 20, 21]), []
    teacher = torch.nn.Flatten()
    teacher.register_forward_hook(lambda module, images, scores: sizes.append(len(scores)))
    rate = teacher_images_per_second(
        teacher, (1, 8, 8), batch_size=256, device=CPU, precision="fp32", clock=lambda: next(times)
    )
    assert rate == 64 / 0.5
    assert set(sizes) == {64}


def test_other_errors_of_a_step_are_raised(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("defect")

    monkeypatch.setattr("torch.nn.functional.cross_entropy", fail)
    with pytest.raises(RuntimeError, match="defect"):
        images_per_second(settings_of("model=plain_mlp"), (1, 8, 8), 3, batch_size=4, device=CPU, precision="fp32")
