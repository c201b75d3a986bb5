"""`resnet_cli.train` from Python: what the command does, with exceptions of the same words."""

import os
import random
import signal
import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import torch

import resnet_cli
from resnet_cli.commands.train import python
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.training import progress
from tests.support.runs import assert_same_end, record_of, tiny


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_is_the_one_of_the_command(train, tmp_path):
    assert train(*tiny("hydra.run.dir=command"))[0] == 0
    run = resnet_cli.train(tiny("hydra.run.dir=python"))
    assert_same_end(tmp_path / "command", tmp_path / "python")
    assert str(run.path) == "python"
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert run.record["test"] == record_of(tmp_path / "command")["test"]
    assert run.record["command"].startswith("resnet-train data=synthetic")
    assert run.record["overrides"] == record_of(tmp_path / "command")["overrides"][:-1] or run.record["overrides"]
    assert run.load().class_names == ("class 0", "class 1", "class 2")


def test_runs_get_folders_of_their_own(tmp_path):
    paths = {resnet_cli.train(tiny("trainer.epochs=1")).path for _ in range(2)}
    assert len(paths) == 2
    assert all(path.parts[0] == "outputs" for path in paths)


def test_a_run_is_resumed(tmp_path):
    run = resnet_cli.train(tiny("hydra.run.dir=d"))
    longer = resnet_cli.train([f"resume={run.path}", "trainer.epochs=3"])
    assert longer.path == run.path
    assert len(longer.rows) == 3
    record = record_of(tmp_path / "d")
    for path in (run.path, f"{run.path}/checkpoints/last.pt"):  # the command takes no path either
        with pytest.raises(InputError, match=rf"^train: {path}: takes settings only; resume=d continues this run$"):
            resnet_cli.train([path, "trainer.epochs=4"])
    assert record_of(tmp_path / "d") == record


def test_the_random_state_of_the_caller_is_kept():
    torch.manual_seed(3)
    before, python = torch.get_rng_state(), random.getstate()
    run = resnet_cli.train(tiny("trainer.epochs=1"))
    assert torch.equal(torch.get_rng_state(), before)
    run.load()
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    with pytest.raises(InputError, match="nearest"):
        resnet_cli.train(tiny("model.depth=21"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.depht=20"], r"model\.depht: unknown key; did you mean model\.depth\?"),
        (["data=cifar11"], "data=cifar11"),
        (["-m", "seed=0,1"], "train: -m: takes settings only; a sweep is a loop of calls, or resnet-train -m"),
        (["seed=0,1"], "seed=0,1: a sweep; set one value"),
        (["resume=nowhere"], "nowhere"),
        (["hydra.run.dir="], r"^hydra\.run\.dir: is empty; give a folder$"),
        (
            ["experiment=degradation"],
            r"^this experiment sweeps over model\.residual, model\.depth: add -m, or set each",
        ),
        (["verify_resume=true"], "verify_resume: needs processes of its own"),
        ("model=resnet20", r'takes a list of settings, such as \["model=resnet20"\]'),
        ([3], r'^train: 3: settings are strings, such as "trainer\.epochs=5"$'),
        ([None], r"^train: None: settings are strings"),
        ([["model=resnet20"]], r"^train: \['model=resnet20'\]: settings are strings"),
        (3, r'^train: takes a list of settings, such as \["model=resnet20"\]; this is of type int$'),
        (None, r"^train: takes a list of settings, .* of type NoneType$"),
        ({"model": "resnet20"}, r"^train: takes a list of settings, .* of type dict$"),
        (b"model=resnet20", r"^train: takes a list of settings, .* of type bytes$"),
    ],
)
def test_wrong_settings_raise_the_errors_of_the_command(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        resnet_cli.train(arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_own_groups_is_a_path(tmp_path):
    (tmp_path / "own" / "trainer").mkdir(parents=True)
    (tmp_path / "own" / "trainer" / "short.yaml").write_text("defaults: [default, _self_]\nepochs: 1\n")
    for name, folder in (("a", tmp_path / "own"), ("b", "own")):
        arguments = [text for text in tiny("trainer=short") if not text.startswith("trainer.epochs")]
        run = resnet_cli.train([*arguments, f"hydra.run.dir={name}"], config_dir=folder)
        assert len(run.rows) == 1
    with pytest.raises(InputError, match=r"^train: config_dir=3: must be the path of a folder$"):
        resnet_cli.train(tiny(), config_dir=3)


@pytest.mark.parametrize("path", [3, None, ["run"], b"run"])
def test_a_run_to_load_is_a_path(path):
    with pytest.raises(InputError, match=r"^load_run: .*: must be the path of a run folder or of a checkpoint$"):
        resnet_cli.load_run(path)


@pytest.mark.parametrize(
    "overrides", [["model=resnt20"], ["data=csv", "data.train=nowhere.csv"], tiny("trainer.epochs=0")]
)
def test_tracebacks_of_wrong_settings_are_short(overrides):
    with pytest.raises(InputError) as raised:
        resnet_cli.train(overrides)
    assert len(raised.traceback) == 2  # the line here and the one that raises


def test_defects_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(python, "train_run", lambda *args: {}["defect"])
    with pytest.raises(KeyError) as raised:
        resnet_cli.train(tiny("hydra.run.dir=d"))
    assert raised.traceback[-1].name == "<lambda>"


def test_a_diverged_run_raises():
    with pytest.raises(DivergedError):
        resnet_cli.train(tiny("optimizer.lr=1e30", "hydra.run.dir=d"))


def test_an_interrupt_saves_and_raises(tmp_path, monkeypatch):
    from resnet_cli.session.saver import RunSaver

    write = RunSaver.write_metrics

    def interrupt(self, rows):
        write(self, rows)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunSaver, "write_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT"):
        resnet_cli.train(tiny("hydra.run.dir=d", "trainer.epochs=3"))
    assert record_of(tmp_path / "d")["status"] == "interrupted"
    assert torch.load(tmp_path / "d/checkpoints/last.pt", weights_only=True)["state"]["epoch"] >= 1


def test_a_second_interrupt_raises_and_leaves_the_process_alone(tmp_path, monkeypatch):
    from resnet_cli.session import signals
    from resnet_cli.session.saver import RunSaver

    def interrupt(self, rows):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    started = []
    monkeypatch.setattr(signals._thread, "start_new_thread", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(RunSaver, "write_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt):
        resnet_cli.train(tiny("hydra.run.dir=d", "trainer.epochs=3"))
    assert started == []
    assert record_of(tmp_path / "d")["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_notebook_gets_a_bar(monkeypatch):
    made = []
    assert not progress.in_notebook()
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(progress, "tqdm", lambda **options: made.append(options))
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    progress.Progress("epoch 1/2", batches=3, done=0)
    assert made[0]["total"] == 3


def test_the_bar_of_a_finished_epoch_is_full_when_it_closes(monkeypatch):
    """A notebook keeps a bar that is not, in red, below the line of the epoch."""
    bar = MagicMock(n=0)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(progress, "_bar_type", lambda: lambda **options: bar)
    with progress.Progress("epoch 1/2", batches=2, done=0) as shown:
        for _ in range(2):
            shown.step(MagicMock(count=0))
    assert (bar.update.called, bar.n) == (False, 2)
    bar.close.assert_called_once()
