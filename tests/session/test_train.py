"""The hook by which a network sees training images before the first step, through the command."""

import json

import pytest
import torch

from resnet_cli.data import make_loaders, synthetic
from resnet_cli.session import build
from tests.support import tiers
from tests.support.runs import tiny

CNN = ["model=cnn", "model.channels=[4,6]", "model.pool_every=1", "model.hidden_dims=[8]"]
STILL = ["optimizer.lr=1e-30", "optimizer.weight_decay=0", "trainer.epochs=1"]  # weights stay as they start


def weights(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)["state"]["model"]


def said(run):
    """What `train.log` says of the initialisation."""
    lines = (run / "train.log").read_text().splitlines()
    return [line.removeprefix("init    ") for line in lines if line.startswith("init ")]


def equal(a, b):
    return a.keys() == b.keys() and all((a[name] - b[name]).abs().max() < 1e-28 for name in a)


@pytest.mark.parametrize("init", tiers.mostly_slow(["lsuv", "whitening"], every=2))
def test_training_starts_from_what_the_images_made(train, tmp_path, init):
    runs = {
        "device": ["data.backend=device"],
        "stream": ["data.backend=stream", "data.workers=0", "trainer.averaging=ema", "data.augment.flip=random"],
    }
    for name, options in runs.items():
        arguments = [*CNN, *STILL, f"model.init={init}", "seed=3", f"hydra.run.dir={name}", *options]
        status, out, err = train(*tiny(*arguments))
        assert (status, err) == (0, "")
        assert f"init    {said(tmp_path / name)[0]}\n" in out
    loaders = make_loaders(
        synthetic(count=96, test_count=32, classes=3, image_size=8), device="cpu", seed=3, batch_size=32
    )
    node = {
        "_target_": "resnet_cli.models.CNN", "channels": [4, 6], "pool_every": 1, "hidden_dims": [8], "init": init,
    }  # fmt: skip
    model = build.model(node, in_size=(3, 8, 8), num_classes=3, seed=3)
    drawn = {name: p.clone() for name, p in model.state_dict().items()}
    lines = model.initialise_from_data(loaders.train.sample(5000))
    assert not equal(drawn, model.state_dict())
    for name in runs:
        run = tmp_path / name
        assert said(run) == lines
        assert lines[0].startswith(f"{init} on {loaders.counts['train']} images: ")
        assert equal(weights(run), model.state_dict())
        assert equal(weights(run, "best"), model.state_dict()), "the average starts there too"


def test_a_resumed_run_is_not_initialised_again(train, tmp_path):
    common = [*CNN, "model.init=lsuv"]
    assert train(*tiny(*common, "hydra.run.dir=whole", "schedule=constant"))[0] == 0
    assert train(*tiny(*common, "hydra.run.dir=parts", "schedule=constant", "trainer.epochs=1"))[0] == 0
    assert train("resume=parts", "trainer.epochs=2")[0] == 0
    assert len(said(tmp_path / "parts")) == 1
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert train(*tiny(*CNN, *STILL, "model.init=lsuv", "init_from=whole", "hydra.run.dir=other"))[0] == 0
    assert said(tmp_path / "other") == []
    assert equal(weights(tmp_path / "whole", "best"), weights(tmp_path / "other"))


def test_initialisations_that_look_at_no_images_say_nothing(train, tmp_path, monkeypatch):
    from resnet_cli.data.loading.batch_loader import BatchLoader

    monkeypatch.setattr(BatchLoader, "sample", None)
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1"))[0] == 0
    assert said(tmp_path / "d") == []


def test_images_that_do_not_suit_leave_no_folder(train, tmp_path):
    arguments = [*CNN, "model.init=whitening", "model.conv_params={kernel_size: 9, padding: 4}", "hydra.run.dir=d"]
    status, _, err = train(*tiny(*arguments))
    assert status == 2
    assert err.startswith("error: model.init=whitening: images of 3x8x8 have no patches of 3x9x9")
    assert not (tmp_path / "d").exists()


OWN_NET = """import torch

class Net(torch.nn.Module):
    init_images = 5

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(in_channels, 1, 1))
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))

    def initialise_from_data(self, images):
        self.shift.data = -images.mean((0, 2, 3))[:, None, None]
        return [f"shifted by {len(images)} images"]

    def forward(self, x):
        return self.layers(x + self.shift)
"""


def test_a_users_own_network_sees_training_images_too(train, tmp_path, monkeypatch):
    (tmp_path / "seeing.py").write_text(OWN_NET)
    monkeypatch.syspath_prepend(tmp_path)
    status, _, err = train(*tiny("model._target_=seeing.Net", "hydra.run.dir=d", *STILL))
    assert (status, err) == (0, "")
    assert said(tmp_path / "d") == ["shifted by 5 images"]
    assert weights(tmp_path / "d")["shift"].abs().sum() > 0
    assert json.loads((tmp_path / "d" / "run.json").read_text())["start"] == "scratch"


def test_slow_weights_that_would_never_move_are_refused_before_the_run(train, tmp_path):
    options = ["trainer.averaging=lookahead", "trainer.lookahead_k=50", "hydra.run.dir=d"]
    status, _, err = train(*tiny(*options))
    assert status == 2
    assert "trainer.lookahead_k=50: the slow weights" in err
    assert not (tmp_path / "d").exists()
