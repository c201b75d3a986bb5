"""`trainer.on_oom=halve` in a run: what is recorded, and that a resumed run keeps the size that was found."""

import json
from pathlib import Path

import pytest
import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import StoppedError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.models import CNN
from resnet_cli.session.context import RunContext
from resnet_cli.session.train import train as train_run
from resnet_cli.training.control import RunControl
from tests.support.runs import assert_same_end, record_of, tiny

NET = ["model=cnn", "model.channels=[4,6]", "model.pool_every=1", "model.hidden_dims=[8]", "name=x"]
HALVE = "trainer.on_oom=halve"


@pytest.fixture
def memory(monkeypatch):
    """Memory for so many training images; `parts` are the sizes of those that were trained on."""

    class Memory:
        images, parts = 1000, []

    forward = CNN.forward

    def limited(self, images):
        if self.training and len(images) > Memory.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.training and len(images) > 2:  # not the trial on two blank images
            Memory.parts.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(CNN, "forward", limited)
    Memory.parts = []
    return Memory


def test_a_run_goes_on_in_halves_and_says_so(train, tmp_path, memory):
    memory.images = 20
    status, out, err = train(*tiny(*NET, HALVE, "hydra.run.dir=run"))
    assert status == 0
    assert "out of memory in epoch 1, step 1: repeating it in micro-batches of at most 16 images" in out + err
    assert set(memory.parts) == {16, 11}  # 86 images: 32, 32 and 22
    assert record_of(tmp_path / "run")["out_of_memory"] == [{"epoch": 1, "step": 1, "micro_batch": 16}]
    assert (
        "out of memory in epoch 1, step 1: micro-batches of at most 16 images" in (tmp_path / "run/card.md").read_text()
    )


def test_by_default_the_run_ends(train, tmp_path, memory):
    memory.images = 20
    status, _, err = train(*tiny(*NET, "hydra.run.dir=run"))
    assert status == 1
    assert err.startswith("error: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.: try a smaller data.")
    assert err.count("\n") == 1
    memory.images = 1000
    assert train("resume=run", HALVE)[0] == 0  # may be added without resume_force
    assert "out_of_memory" not in record_of(tmp_path / "run")


@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_resumed_run_keeps_the_size_although_there_is_more_memory(tmp_path, monkeypatch, memory, stop_at):
    monkeypatch.chdir(tmp_path)
    settings = compose_settings(tiny(*NET, HALVE, "model.hidden_dropout=0.2", "trainer.averaging=ema")).settings

    def run(name, stop=None):
        polls = iter(range(1, 1000))
        control = RunControl(should_stop=lambda: 15 if next(polls) == stop else None)
        train_run(RunConfig(**{**settings, "resume": "auto"}), Path(name), RunContext(control=control))

    memory.images = 20
    run("whole")
    with pytest.raises(StoppedError):
        run("parts", stop_at)
    memory.images, memory.parts = 1000, []
    run("parts")
    assert max(memory.parts) == 16
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_reproduction_splits_the_same_steps_although_there_is_more_memory(train, tmp_path, memory):
    memory.images = 20
    assert train(*tiny(*NET, HALVE, "hydra.run.dir=whole"))[0] == 0
    memory.images, memory.parts = 1000, []
    status, _, err = train("reproduce=whole", "hydra.run.dir=again")
    assert (status, err) == (0, "")
    assert set(memory.parts) == {16, 11}
    assert record_of(tmp_path / "again")["reproduces"]["identical"]
    memory.images = 10
    status, _, err = train("reproduce=whole", "hydra.run.dir=smaller")
    if status:  # results need not differ, as the net has no batch norm
        assert "steps that ran out of memory: 1 (at most 16 images) -> 1 (at most 16 images), 1 (at most 8 " in err
    differences = record_of(tmp_path / "smaller")["reproduces"]["differences"]
    assert any(line.startswith("steps that ran out of memory") for line in differences)


def test_a_step_that_was_lost_is_no_longer_recorded(train, tmp_path, memory):
    """The step after which memory ran out is repeated from an older save, and this time there is enough."""
    assert train(*tiny(*NET, HALVE, "trainer.epochs=1", "hydra.run.dir=run"))[0] == 0
    checkpoint = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    memory.images = 20
    assert train("resume=run", "trainer.epochs=2")[0] == 0
    assert record_of(tmp_path / "run")["out_of_memory"]
    (tmp_path / "run/checkpoints/previous.pt").unlink()
    (tmp_path / "run/checkpoints/best.pt").unlink()
    (tmp_path / "run/checkpoints/last.pt").write_bytes(checkpoint)
    memory.images = 1000
    assert train("resume=run")[0] == 0
    assert record_of(tmp_path / "run")["out_of_memory"] is None
    assert "out of memory" not in (tmp_path / "run/card.md").read_text()


def test_the_state_is_saved_with_the_step_that_found_the_size(train, tmp_path, memory, monkeypatch):
    """A kill right after that step must not lose it: another process may have another amount of memory."""
    from resnet_cli.session.saver import RunSaver

    saved = []
    save = RunSaver.save_last
    monkeypatch.setattr(RunSaver, "save_last", lambda self, state: (saved.append(state.step), save(self, state)))
    memory.images = 20
    assert train(*tiny(*NET, HALVE, "trainer.epochs=1", "hydra.run.dir=run"))[0] == 0
    assert saved == [1, 3]


@pytest.mark.slow
def test_finding_a_batch_size_does_not_split_what_does_not_fit(train, tmp_path, memory, monkeypatch):
    from resnet_cli.session.find import batch_size

    monkeypatch.setattr(batch_size, "LEAST_SECONDS", 0.0)
    memory.images = 20
    assert train(*tiny(*NET, HALVE, "find=batch_size", "hydra.run.dir=found"))[0] == 0
    rows = json.loads((tmp_path / "found/find_batch_size.json").read_text())["rows"]
    assert [row["batch_size"] for row in rows if row["fits"]] == [8, 16]


def test_it_is_refused_where_it_cannot_work(train):
    status, _, err = train(*tiny(*NET, HALVE, "trainer.compile=step"))
    assert status == 2
    assert err.startswith("error: trainer.on_oom=halve: not supported with trainer.compile=step")
