"""Opening a trained run: the checkpoint that is taken, and runs that are refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from resnet_cli.data import Normalize
from resnet_cli.errors import InputError
from resnet_cli.session.trained import open_trained
from tests.support.runs import tiny


@pytest.fixture
def copied(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


def set_record(run, **fields):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **fields}))


def test_the_best_checkpoint_is_taken_unless_another_is_named(copied):
    assert open_trained(str(copied)).file == copied / "checkpoints" / "best.pt"
    assert open_trained(str(copied), checkpoint="last").file == copied / "checkpoints" / "last.pt"
    named = copied / "checkpoints" / "previous.pt"
    assert open_trained(str(copied), checkpoint=str(named)).file == named
    assert open_trained(str(named)).run.path == copied
    (copied / "checkpoints" / "best.pt").unlink()
    assert open_trained(str(copied)).file == copied / "checkpoints" / "last.pt"
    with pytest.raises(InputError, match=r"--checkpoint best: .* has no best\.pt"):
        open_trained(str(copied), checkpoint="best")
    with pytest.raises(InputError, match="--checkpoint bets: no such file; it takes best, last or a checkpoint"):
        open_trained(str(copied), checkpoint="bets")


def test_a_checkpoint_of_another_run_is_refused(copied, tmp_path):
    other = shutil.copytree(copied, tmp_path / "other")
    named = other / "checkpoints" / "last.pt"
    with pytest.raises(
        InputError, match=f"--checkpoint {named}: belongs to the run {other}; give it instead of {copied}"
    ):
        open_trained(str(copied), checkpoint=str(named))
    kept = shutil.copy(named, tmp_path / "epoch2.pt")
    assert open_trained(str(copied), checkpoint=str(kept)).run.path == copied
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 0\n", "\nseed: 7\n"))
    with pytest.raises(
        InputError, match=f"belongs to another run: seed=0, but {copied} has 7; give it instead of the run"
    ):
        open_trained(str(copied), checkpoint=str(kept))


def test_a_diverged_run_is_refused_unless_its_checkpoint_is_named(copied, caplog):
    set_record(copied, status="failed", reason="DivergedError: step 7: the loss is nan")
    with pytest.raises(InputError, match="the run diverged: step 7: the loss is nan; --checkpoint best or last"):
        open_trained(str(copied))
    assert open_trained(str(copied), checkpoint="last").epoch == 2
    set_record(copied, status="interrupted", reason=None)
    open_trained(str(copied))
    assert "the run is not finished (interrupted): the best checkpoint so far, its epoch" in caplog.text


def test_a_device_that_is_missing_is_refused_only_if_it_is_asked_for(copied):
    content = torch.load(copied / "checkpoints" / "best.pt", weights_only=True)
    assert content["config"]["trainer"]["device"] == "auto"
    with pytest.raises(InputError, match="--device: cuda:7 is not available"):
        open_trained(str(copied), device="cuda:7")


@pytest.mark.parametrize("options", [["ema", "model=cnn"], ["swa", "trainer.swa_start=0"]], ids=["ema", "swa"])
def test_an_average_is_what_is_opened(train, tmp_path, options):
    average, *others = options
    arguments = tiny(f"trainer.averaging={average}", *others, "data.val_fraction=0", "hydra.run.dir=d")
    assert train(*arguments)[0] == 0
    best, last = (open_trained(str(tmp_path / "d"), checkpoint=name).model.state_dict() for name in ("best", "last"))
    raw = torch.load(tmp_path / "d/checkpoints/last.pt", weights_only=True)["state"]["model"]
    assert all(torch.equal(best[name], last[name]) for name in best)
    assert not all(torch.equal(best[name], raw[name]) for name in best)


def test_the_data_of_a_run_are_found_from_another_folder(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaders = open_trained(str(trained_run)).loaders()
    assert loaders.counts == {"train": 36, "val": 12, "test": 12}


def test_images_that_have_another_size_than_in_training_are_refused(place):
    run = open_trained("run")
    changed = replace(run, settings={**run.settings, "data": {**run.settings["data"], "image_size": [4, 6]}})
    with pytest.raises(InputError, match=r"the run's images are 3x4x6 now, but the net takes 3x10x8 \(channels x"):
        changed.loaders()


def test_loaders_normalise_as_in_training_after_the_images_have_changed(place):
    for file in (place / "photos").rglob("*.*"):
        Image.new("RGB", (12, 10), "white").save(file)
    run = open_trained("run")
    loaders = run.loaders()
    assert (loaders.mean, loaders.std) == (tuple(run.data["mean"]), tuple(run.data["std"]))
    expected = Normalize(run.data["mean"], run.data["std"])
    for loader in (loaders.train, loaders.val, loaders.test):
        assert torch.equal(loader.normalize.shift_C, expected.shift_C)
    images, _ = next(iter(loaders.val))
    assert torch.equal(images[:1], expected(torch.full((1, 10, 8, 3), 255, dtype=torch.uint8)))
