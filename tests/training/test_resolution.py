"""Progressive resolution: sizes by step, what a step is trained on, and what it leaves alone."""

from functools import partial

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.measuring import without_trace
from resnet_cli.training.resolution import Resolution, resize
from tests.support.trainers import MemorySaver, assert_same, weights


def grown(size=(32, 32), knots=((0, 0.5), (6, 1.0)), multiple=8, total_steps=10, **options):
    return Resolution(size, tuple(knots), multiple, total_steps, **options)


def images(count=48):
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (count,), generator=source)
    pixels = labels.view(-1, 1, 1, 1) + torch.randn(count, 1, 16, 16, generator=source)
    return [(pixels[i : i + 16], labels[i : i + 16]) for i in range(0, count, 16)]


class Net(nn.Module):
    """A net for images of any size, which notes the sizes that it is trained and evaluated on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(4, 3)
        self.seen = {True: [], False: []}

    def forward(self, x):
        self.seen[self.training].append(tuple(x.shape[2:]))
        return self.head(self.layers(x).mean((2, 3)))


def trainer_with(resolution, **options):
    net = Net()
    trainer = ClassifierTrainer(net, None, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), seed=1, **options)
    trainer.stepper.resolution = resolution
    return trainer


def test_the_size_grows_in_steps_and_stays():
    assert grown().sizes() == [(0, 16, 16), (2, 24, 24), (5, 32, 32)]
    assert [grown().size_at(step)[0] for step in range(8)] == [16, 16, 24, 24, 24, 32, 32, 32]
    assert grown().size_at(1000) == (32, 32)


def test_two_points_at_one_position_are_a_jump():
    assert grown(knots=((0, 0.5), (4, 0.5), (4, 1.0))).sizes() == [(0, 16, 16), (4, 32, 32)]


def test_whole_images_keep_a_size_that_is_no_multiple():
    found = grown(size=(28, 30), knots=((0, 0.1), (3, 0.9), (6, 1.0)), multiple=8).sizes()
    assert found[0] == (0, 8, 8)
    assert found[-1][1:] == (28, 30)
    assert all(height % 8 == 0 or height == 28 for _, height, _ in found)


def test_smaller_images_are_means_over_the_whole_ones():
    whole = torch.arange(64.0).view(1, 1, 8, 8)
    assert resize(whole, (8, 8)) is whole
    smaller = resize(whole, (4, 4))
    assert smaller.shape == (1, 1, 4, 4)
    assert smaller.mean().item() == pytest.approx(whole.mean().item())
    assert smaller[0, 0, 1, 1].item() == pytest.approx(whole[0, 0, 2:4, 2:4].mean().item(), rel=0.01)
    channels_last = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert resize(channels_last, (4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_training_sees_small_images_and_evaluation_whole_ones():
    trainer = trainer_with(grown((16, 16), multiple=4, total_steps=6, knots=((0, 0.5), (4, 1.0))), epochs=2)
    trainer.fit(images(), images(), verbose=False)
    assert trainer.model.seen[True] == [(8, 8), (8, 8), (12, 12), (16, 16), (16, 16), (16, 16)]
    assert set(trainer.model.seen[False]) == {(16, 16)}


def test_averaged_epochs_have_batch_norm_statistics_of_whole_images():
    trainer = trainer_with(grown((16, 16), knots=((0, 0.5),), total_steps=6), epochs=2, averaging="swa", swa_start=0)
    trainer.fit(images(), None, verbose=False)
    assert trainer.model.seen[True] == 2 * [*3 * [(8, 8)], *3 * [(16, 16)]]


def test_a_run_stopped_between_two_sizes_goes_on_exactly():
    make = partial(
        trainer_with, grown((16, 16), multiple=4, total_steps=9, knots=((0, 0.5), (8, 1.0))), epochs=3, averaging="ema"
    )
    whole, kept = make(), MemorySaver()
    whole.fit(images(), None, verbose=False, saver=kept)
    resumed = make()
    resumed.state.load_state_dict(kept.states[0])
    resumed.fit(images(), None, verbose=False)
    assert_same(weights(whole), weights(resumed))
    assert whole.model.seen[True][3:] == resumed.model.seen[True]


def test_a_measurement_has_the_sizes_of_the_whole_run():
    resolution = grown((16, 16), knots=((0, 0.5), (500, 0.5), (500, 1.0)), total_steps=1000)
    trainer = trainer_with(resolution)
    with without_trace(trainer.stepper):
        for batch in 4 * images():
            trainer.stepper.run_step(batch)
    sides = [height for height, _ in trainer.model.seen[True]]
    assert sides.count(8) == sides.count(16) == 6
    assert trainer.stepper.resolution is resolution


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning", "ignore::UserWarning:torch")
def test_every_size_is_compiled_before_the_first_step(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    resolution = grown((16, 16), multiple=4, total_steps=6, knots=((0, 0.5), (4, 1.0)))
    compiled, eager = (trainer_with(resolution, epochs=2, compile=kind) for kind in ("step", "off"))
    for trainer in (compiled, eager):
        trainer.model.layers[3].p = 0.0
    compiled.stepper.warm_up(EpochIterator(images()).iterate_sizes(0))
    shapes = set(compiled.stepper._recordings)
    assert {shape[0][2] for shape in shapes} == {8, 12, 16}
    for trainer in (compiled, eager):
        trainer.fit(images(), None, verbose=False)
    assert set(compiled.stepper._recordings) == shapes
    losses = [[row["train_loss"] for row in trainer.state.rows] for trainer in (compiled, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch._dynamo.reset()


def test_a_graph_may_be_compiled_for_every_size():
    """Past torch's limit steps are eager, which round otherwise; a resumed run would reach it at another step."""
    model = Net()
    trainer = ClassifierTrainer(model, None, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.allow_graphs()
    assert trainer.backend.max_graphs == 64
    trainer.stepper.resolution = grown((224, 224), [(0, 0.25), (400, 1.0)], multiple=4, total_steps=500)
    trainer.allow_graphs()
    sizes = {found[1:] for found in trainer.stepper.resolution.sizes()}
    assert len(sizes) == 43
    assert trainer.backend.max_graphs >= 4 * (len(sizes) + 1)
