"""`trainer.time_budget` through the command: chosen, stored, kept on resuming, replaced by epochs."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml

from resnet_cli.config.run_config import RunConfig
from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import StoppedError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.session import prepare, time_budget
from resnet_cli.session import train as train_module
from resnet_cli.session.context import RunContext
from resnet_cli.session.saver import RunSaver
from resnet_cli.training.control import RunControl
from resnet_cli.training.measuring import Measurement
from tests.support.runs import record_of, rows_of, tiny

ROW = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "train_accuracy": 1.0, "val_accuracy": 1.0, "lr": 0.1}


def arguments(*others):
    return [argument for argument in tiny(*others) if not argument.startswith("trainer.epochs=2")]


def trainer_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())["trainer"]


def fake(monkeypatch, *, step):
    """Let each step have been measured with so many seconds; saving takes none. Return the calls."""
    calls = []

    def measured(trainer, dl_train, dl_val, **options):
        calls.append(options["seconds"])
        return Measurement(len(dl_train), step, 0.0, 7, ROW)

    monkeypatch.setattr(time_budget, "measure", measured)
    monkeypatch.setattr(time_budget, "_time_saving", lambda *arguments: (0.0, 0.0, 0.0))
    return calls


def test_the_choice_is_stored_and_a_resumed_run_keeps_it(train, tmp_path, monkeypatch):
    calls = fake(monkeypatch, step=100.0)
    budget = "trainer.time_budget=1000 s"  # 3 batches: an epoch of 300 s
    status, out, err = train(*arguments(budget, "hydra.run.dir=a"))
    assert (status, err, len(calls)) == (0, "", 1)
    assert re.search(r"budget  16 min 40 s: an epoch takes 5 min 0 s \(measured on 7 steps\); 3 epochs, end expec", out)
    assert re.search(r"epoch 2/3 .*  left [\d.]+ s", out)
    assert not re.search(r"epoch 3/3 .*  left", out)
    assert re.search(r"budget  16 min 40 s: took .* s \(\d+ %\)", out)
    record, trainer = record_of(tmp_path / "a"), trainer_of(tmp_path / "a")
    assert (trainer["epochs"], trainer["steps_per_epoch"], trainer["time_budget"]) == (3, None, "1000 s")
    assert record["time_budget"]["epochs"] == record["epochs"] == 3
    assert 0 < record["time_budget"]["taken_seconds"] < 1000
    stored = torch.load(tmp_path / "a" / "checkpoints" / "last.pt", weights_only=True)["config"]
    assert stored["trainer"]["epochs"] == 3
    assert train(*arguments("trainer.epochs=3", "hydra.run.dir=b"))[0] == 0
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b"), "the schedule spans what was chosen"

    for command in (["resume=a"], arguments("trainer.time_budget=1000", "hydra.run.dir=a", "resume=auto")):
        status, out, err = train(*command)
        assert (status, err, len(calls)) == (0, "", 1), "never measured again"
        assert "nothing to do: 3 epochs are done" in out
    status, out, err = train("resume=a", "trainer.time_budget=2000 s")
    assert (status, out) == (2, "")
    assert err == (
        "error: trainer.time_budget=2000 s: the run was started with 1000 s and keeps its number of epochs; "
        "trainer.epochs=N makes it longer\n"
    )
    assert train("resume=a", "trainer.epochs=5")[0] == 0, "made longer"
    assert trainer_of(tmp_path / "a")["epochs"] == len(rows_of(tmp_path / "a")) == 5
    assert record_of(tmp_path / "a")["time_budget"] is None


@pytest.mark.slow
def test_a_run_without_a_checkpoint_that_starts_anew_keeps_the_choice_unless_its_config_differs(
    train, tmp_path, monkeypatch
):
    calls = fake(monkeypatch, step=100.0)
    typed = arguments("trainer.time_budget=1000 s", "hydra.run.dir=a")
    assert train(*typed)[0] == 0

    def kill_before_the_first_save():
        shutil.rmtree(tmp_path / "a/checkpoints")
        (tmp_path / "a/metrics.jsonl").write_text("")

    kill_before_the_first_save()
    assert train(*typed, "resume=auto")[0] == 0
    assert len(calls) == 1
    kill_before_the_first_save()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    calls = fake(monkeypatch, step=200.0)
    assert train(*typed, "resume=auto", "model.width=8")[0] == 0
    assert len(calls) == 1, "another net takes another time"
    assert record_of(tmp_path / "a")["time_budget"]["epochs"] == trainer_of(tmp_path / "a")["epochs"] == 1


def test_below_one_epoch_the_steps_are_chosen_and_validation_stays_whole(train, tmp_path, monkeypatch):
    fake(monkeypatch, step=400.0)
    status, out, err = train(*arguments("trainer.time_budget=1000 s", "hydra.run.dir=a"))
    assert (status, err) == (0, "")
    assert "1 epoch of 2 of 3 steps, end expected" in out
    trainer = trainer_of(tmp_path / "a")
    assert (trainer["epochs"], trainer["steps_per_epoch"], trainer["max_batches"]) == (1, 2, None)
    assert rows_of(tmp_path / "a")[0]["step"] == 2


class SecondRank(Ranks):
    """The second of two ranks, which receives 40 seconds from the first."""

    rank, size = 1, 2

    def from_first(self, make):
        return 40.0


def test_the_first_rank_alone_times_the_decoding_of_the_test_images(monkeypatch):
    """Ranks may differ in what they have to decode: those that read the first one's clock would not match."""
    fake(monkeypatch, step=1.0)
    monkeypatch.setattr(time_budget, "decoding_seconds", lambda loader, clock: clock())
    state = SimpleNamespace(average=None)
    trainer = SimpleNamespace(
        ranks=SecondRank(), state=state, max_batches=None, overfit_batches=None, checkpoint_every=None
    )
    loaders = SimpleNamespace(train=[1, 2, 3], val=None, test=SimpleNamespace(samples=12))
    budget = time_budget.TimeBudget("1000 s", 1000.0, 0.0, clock=lambda: 0.0)
    config = SimpleNamespace(trainer={})
    times, steps = time_budget.measure_times(trainer, loaders, config, None, RunControl(), budget)
    assert (times.test, times.training, steps) == (40.0, 3.0, 7)


class FakeClock:
    """A clock that goes on when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class KilledError(BaseException):
    """In the place of SIGKILL."""


@pytest.mark.parametrize("how", ["signal", "kill"])
def test_the_time_before_a_stop_counts_to_the_last_save(train, tmp_path, monkeypatch, how):
    fake(monkeypatch, step=100.0)
    clock, save = FakeClock(), RunSaver.save_last
    for module in (time_budget, prepare, train_module):
        monkeypatch.setattr(module, "monotonic", clock)
    monkeypatch.setattr(Ranks, "clock", lambda self: clock())

    def saved(self, state):
        clock.now += 100
        save(self, state)
        if state.step == 5 and how == "kill" and not (tmp_path / "killed").exists():
            shutil.copytree(tmp_path / "a", tmp_path / "killed", ignore=lambda *_: {".lock"})
            raise KilledError

    monkeypatch.setattr(RunSaver, "save_last", saved)
    options = arguments("trainer.time_budget=1000 s", "trainer.checkpoint_every=1", "hydra.run.dir=a", "name=x")
    settings = compose_settings(options).settings
    polls = iter(range(100))
    should_stop = lambda: 15 if how == "signal" and next(polls) == 5 else None  # noqa: E731
    monkeypatch.chdir(tmp_path)
    with pytest.raises((StoppedError, KilledError)):
        train_module.train(RunConfig(**settings), tmp_path / "a", RunContext(control=RunControl(should_stop)))
    run = tmp_path / ("killed" if how == "kill" else "a")
    before = record_of(run)["time_budget"]["taken_seconds"]
    assert before >= 500
    clock.now += 10_000
    assert train(f"resume={run}")[0] == 0
    taken = record_of(run)["time_budget"]["taken_seconds"]
    assert taken > before + 300
    assert taken < 3000, "not the time in which it was stopped"
    clock.now += 10_000
    monkeypatch.setattr(train_module, "monotonic", lambda: clock.now - 50.0)  # its start takes long
    assert train(f"resume={run}")[0] == 0
    assert record_of(run)["time_budget"]["taken_seconds"] == taken, "nothing was done"


@pytest.mark.slow
def test_jobs_of_a_sweep_have_a_budget_each_and_are_not_repeated(train, tmp_path, monkeypatch):
    calls = fake(monkeypatch, step=150.0)
    sweep = arguments("-m", "seed=0,1", "trainer.time_budget=1000 s", "hydra.sweep.dir=s")
    assert train(*sweep)[0] == 0
    assert [len(rows_of(run)) for run in sorted((tmp_path / "s").glob("*seed=*"))] == [2, 2]
    assert len(calls) == 2
    assert train("-m", "resume=s")[0] == 0
    assert len(calls) == 2, "finished"
    status, _, err = train("-m", "resume=s", "trainer.epochs=3")
    assert (status, err) == (0, "")
    assert [len(rows_of(run)) for run in sorted((tmp_path / "s").glob("*seed=*"))] == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "steps"), [(150.0, None), (500.0, 1)])
def test_jobs_whose_budget_is_in_a_file_are_made_longer(train, tmp_path, monkeypatch, step, steps):
    """The budget is longer than an epoch, or shorter."""
    fake(monkeypatch, step=step)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ntrainer: {time_budget: 1000 s}\n"
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    assert train(*arguments("-m", "experiment=own", "seed=0", "hydra.sweep.dir=s"))[0] == 0
    for words in (["trainer.epochs=3"], []):
        status, out, err = train("-m", "resume=s", *words)
        assert (status, err) == (0, "")
    assert out.count("already finished") == 1
    [run] = [path.parent for path in (tmp_path / "s").glob("*/run.json")]
    assert len(rows_of(run)) == 3
    assert trainer_of(run)["steps_per_epoch"] == steps
