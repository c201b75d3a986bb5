"""What only a CUDA device can show of a loop: that the host never waits in it, streams, generators, whole runs."""

import copy
import json

import pytest
import torch
from torch import nn

from resnet_cli.data import Augment, make_loaders, synthetic
from tests.support.runs import tiny
from tests.support.trainers import assert_same, blobs, loader, make_trainer, net, weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
CUDA = "cuda:0"
COMPILE = ("off", "model", "step")


def images(device=CUDA, count=512, **augment):
    dataset = synthetic(count=count, test_count=32, image_size=8, classes=3)
    return make_loaders(dataset, device=device, seed=0, augment=Augment(**augment) if augment else None)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def guard(train, monkeypatch):
    """Let torch raise where the host waits for the device, from the second batch of each epoch to its last."""
    make = train.epoch

    def guarded(*arguments, **options):
        try:
            for number, batch in enumerate(make(*arguments, **options)):
                if number:
                    torch.cuda.set_sync_debug_mode("error")
                yield batch
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(train, "epoch", guarded)


@pytest.mark.parametrize("compile", COMPILE)
@pytest.mark.parametrize(
    ("verbose", "augment"),
    [
        (True, {"crop": 1, "flip": "random", "cutout": 2, "brightness": 0.2, "mixup": 0.4}),
        (False, {"flip": "alternating", "policy": "randaugment", "resized_crop": (0.3, 1.0), "erase": 0.5}),
    ],
    ids=["drawn on the device", "drawn in main memory"],
)
def test_the_host_never_waits_inside_an_epoch(compile, verbose, augment, monkeypatch):  # noqa: A002
    """Of the whole loop: loader, augmentation, step, check of the loss, and the bar, which shows sums."""
    loaders = images(count=8192, **augment)
    trainer = make_trainer(small_net(), device=CUDA, compile=compile, precision="bf16", averaging="ema", seed=1)
    trainer.fit(loaders.train, None, num_epochs=1, verbose=False)
    guard(loaders.train, monkeypatch)
    trainer.fit(loaders.train, None, num_epochs=2, verbose=verbose)
    assert trainer.state.epoch == 3
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_the_guard_sees_a_host_that_waits(monkeypatch):
    loaders = images()
    guard(loaders.train, monkeypatch)
    epoch = loaders.train.epoch(0)
    next(epoch)[0].sum().item()
    batch, _ = next(epoch)
    with pytest.raises(RuntimeError, match="synchroniz"):
        batch.sum().item()
    epoch.close()
    assert torch.cuda.get_sync_debug_mode() == 0


@pytest.mark.parametrize("compile", ["off", "step"])
def test_steps_follow_the_stream_of_the_caller(compile):  # noqa: A002
    """The same weights on a stream of the caller's own, whose work is done when that stream has been waited for."""

    def train(stream):
        trainer = make_trainer(net(), device=CUDA, compile=compile, seed=1, deterministic=True)
        with torch.cuda.stream(stream):
            trainer.fit(loader(), None, num_epochs=3, verbose=False)
        stream.synchronize()
        return weights(trainer)

    assert_same(train(torch.cuda.default_stream(CUDA)), train(torch.cuda.Stream(CUDA)))


def test_pinned_batches_of_worker_processes_are_those_of_the_device():
    dataset = synthetic(count=128, test_count=32, image_size=8, classes=3)
    kinds = {
        kind: make_loaders(dataset, device=CUDA, seed=0, backend=kind, augment=Augment(flip="alternating"), workers=2)
        for kind in ("device", "stream")
    }
    batches = [list(made.train.epoch(1)) for made in kinds.values()]
    assert len(batches[0]) == len(batches[1]) > 0
    for (a, labels_a), (b, labels_b) in zip(*batches, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-5, atol=1e-5)
        assert torch.equal(labels_a.cpu(), labels_b.cpu())


def test_augmentation_draws_from_generators_of_its_own():
    """Batches are a function of (seed, epoch, batch), and the device's default generator is left as it was."""
    loaders = images(crop=1, flip="random", cutout=2, brightness=0.2, contrast=0.2, mixup=0.4, erase=0.5)
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    first = [tensor.clone() for batch in loaders.train.epoch(3) for tensor in batch]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.rand(7, device=CUDA)
    again = [tensor for batch in loaders.train.epoch(3) for tensor in batch]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = [tensor for batch in loaders.train.epoch(4) for tensor in batch]
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_recorded_dropout_draws_anew_in_each_replay_and_alike_in_each_run():
    def losses(seed):
        trainer = make_trainer(net(dropout=0.5), lr=0.0, device=CUDA, compile="step", seed=seed)
        return trainer.train_epoch(loader(blobs(count=32 * 8)), verbose=False).losses

    same = [(images, labels) for images, labels in loader(blobs(count=32))] * 6
    trainer = make_trainer(net(dropout=0.5), lr=0.0, device=CUDA, compile="step", seed=1)
    assert len(set(trainer.train_epoch(same, verbose=False).losses)) == 6
    assert losses(1) == losses(1) != losses(2)


def test_the_scaler_grows_and_is_resumed_with_its_count():
    trainer = make_trainer(net(), device=CUDA, precision="fp16", seed=1)
    scale = 256.0  # from which nothing overflows
    first = trainer.state.scaler.state_dict()
    trainer.state.scaler.load_state_dict({**first, "scale": scale, "growth_interval": 4})
    trainer.fit(loader(), None, num_epochs=1, verbose=False)  # three steps
    other = make_trainer(net(), device=CUDA, precision="fp16", seed=1)
    other.state.load_state_dict(copy.deepcopy(trainer.state.state_dict()))
    for one in (trainer, other):
        assert one.state.scaler.get_scale() == scale
        one.train_epoch(loader(), verbose=False)
        assert one.state.scaler.get_scale() == 2 * scale, "after the fourth step"
    assert_same(weights(trainer), weights(other))


def test_auto_is_bf16_on_cards_that_have_it_with_sums_in_float32():
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("a card without bf16")
    trainer = make_trainer(net(), device="auto", precision="auto", seed=1)
    assert (trainer.device.type, trainer.precision) == ("cuda", "bf16")
    seen = []
    trainer.model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    scores = trainer.evaluate(loader())
    assert set(seen) == {torch.bfloat16}
    assert trainer.state.totals.sums_2.dtype.itemsize >= 4
    assert 0 <= scores.accuracy <= 100


@pytest.mark.parametrize("compile", COMPILE)
def test_a_run_of_the_command_on_a_device_by_its_number(train, tmp_path, compile):  # noqa: A002
    """`trainer.device=cuda:N` for the last device there is: trained, tested and recorded, then read on the CPU."""
    from resnet_cli import load_run

    device = f"cuda:{torch.cuda.device_count() - 1}"
    status, _, err = train(*tiny(f"trainer.device={device}", f"trainer.compile={compile}", "hydra.run.dir=run"))
    assert status == 0, err
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["status"] == "finished"
    assert record["device"].startswith("cuda")
    classifier = load_run(tmp_path / "run", device="cpu")
    probabilities = classifier(synthetic(count=8, test_count=8, image_size=8, classes=3).test.images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
