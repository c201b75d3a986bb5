"""Runs that version 0.1.0 made open, resume exactly, are reported on and go on as sweeps; see README.md beside this."""

import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from resnet_cli.commands import eval as eval_command
from resnet_cli.commands import report as report_command
from resnet_cli.config import former_names, signatures, stored
from resnet_cli.errors import InputError
from resnet_cli.evaluation.images import has_validation
from resnet_cli.runs import checkpoints
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of, rows_of

ARCHIVE = Path(__file__).with_name("runs_0.1.0.tar.gz")
CLOSE = {"rtol": 1e-3, "atol": 1e-3}  # the runs were made on another machine: other kernels round otherwise


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4 on
    return folder / "runs_0.1.0"


@pytest.fixture
def former(unpacked, tmp_path):
    """A copy of the runs of 0.1.0: tests go on with them in place."""
    return Path(shutil.copytree(unpacked, tmp_path / "runs"))


@pytest.fixture(autouse=True)
def forget_other_mynets(monkeypatch):
    """Other tests have modules of this name too."""
    signatures.forget_signatures()
    monkeypatch.setitem(sys.modules, "mynets", None)
    del sys.modules["mynets"]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)["state"]


@pytest.mark.parametrize("name", ["finished", "uninterrupted", "loggers", "interrupted"])
def test_a_run_opens_as_a_trained_model(former, name):
    run = open_trained(str(former / name))
    assert run.model(torch.zeros(2, *run.in_size)).shape == (2, len(run.class_names))


def test_a_run_with_a_users_class_opens_when_the_class_is_named(former, monkeypatch):
    monkeypatch.syspath_prepend(former)
    with pytest.raises(InputError, match=r"mynets\.Net is named only in a stored config"):
        open_trained(str(former / "own_class"))
    run = open_trained(str(former / "own_class"), named={"model": "mynets.Net"})
    assert run.model(torch.zeros(1, *run.in_size)).shape == (1, 3)


def test_thresholds_and_temperatures_are_chosen_on_the_validation_images_that_no_checkpoint_describes(
    former, monkeypatch, capsys
):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    run = str(former / "finished")
    positive = open_trained(run).class_names[1]
    options = ["--calibrate", "--at", "sensitivity=0.9", "--positive", positive, "--resamples", "0", "--format", "json"]
    assert eval_command.run([run, *options]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["operating_point"]["chosen_on"] == "the validation images"
    assert found["temperature"]["fitted_on"] == "val"
    assert "no validation images" not in captured.err
    shutil.copy(former / "finished/checkpoints/best.pt", former / "alone.pt")
    assert has_validation(open_trained(str(former / "alone.pt")))


def test_every_stored_name_has_a_present_one(unpacked, monkeypatch):
    monkeypatch.syspath_prepend(unpacked)
    for config in unpacked.rglob("config.yaml"):
        settings = stored.read(config)
        for target in (settings["trainer"]["_target_"], settings["schedule"]["_target_"]):
            assert target == "resnet_cli.ClassifierTrainer" or target.startswith("resnet_cli.schedules.")
        content = checkpoints.load(config.parent / "checkpoints" / "last.pt")
        assert former_names.with_present_names(content["config"]) != content["config"]
        assert stored.differences(content["config"], settings) == []


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_end_that_it_would_have_had(former, train, one_thread):
    """Muon, moving average and dropout: the optimizer's name and the schedule's have moved since.

    The first part was trained on another machine, so a whole run is trained here too: where it equals the stored one
    bit for bit, the resumed run must too.
    """
    command = record_of(former / "uninterrupted")["command"]
    status, out, err = train("resume=interrupted", cwd=former)
    assert (status, err) == (0, "")
    assert "resnet-cli 0.1.0" not in out  # a new version of this package alone makes no resume inexact
    assert "from    epoch 1 and 87 batches" in out
    status, _, err = train(*command_words(command, "hydra.run.dir=here"), cwd=former)
    assert (status, err) == (0, "")
    stored_end, resumed, here = (state_of(former / name) for name in ("uninterrupted", "interrupted", "here"))
    exact = all(torch.equal(stored_end["model"][key], here["model"][key]) for key in here["model"])
    for part in ("model", "average"):
        for key, value in tensors(stored_end[part]):
            found = dict(tensors(resumed[part]))[key]
            assert torch.equal(found, value) if exact else torch.allclose(found, value, **CLOSE), (part, key)
    rows, own = rows_of(former / "uninterrupted"), rows_of(former / "interrupted")
    assert [row["epoch"] for row in own] == [1, 2, 3]
    assert [row["val_accuracy"] for row in own] == pytest.approx([row["val_accuracy"] for row in rows], abs=1.0)
    assert not exact or rows == [{key: row[key] for key in rows[0]} for row in own]  # with what rows had in 0.1.0
    assert record_of(former / "interrupted")["status"] == "finished"


def command_words(command, *replacements):
    import shlex

    names = {word.partition("=")[0] for word in replacements}
    return [*(word for word in shlex.split(command)[1:] if word.partition("=")[0] not in names), *replacements]


def tensors(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{path}.{key}")


@pytest.mark.parametrize("name", ["finished", "loggers"])
def test_a_finished_run_takes_more_epochs(former, train, name):
    status, out, err = train(f"resume={name}", "trainer.epochs=3", "logger=null", cwd=former)
    assert (status, err) == (0, "")
    assert "resnet-cli 0.1.0" not in out  # a new version of this package alone makes no resume inexact
    assert [row["epoch"] for row in rows_of(former / name)] == [1, 2, 3]
    assert stored.read(former / name / "config.yaml")["trainer"]["_target_"] == "resnet_cli.ClassifierTrainer"


def test_a_logger_of_a_former_run_is_found_under_its_present_name(former, train):
    pytest.importorskip("tensorboard")
    status, _, err = train("resume=loggers", "trainer.epochs=3", cwd=former)
    assert (status, err) == (0, "")
    assert len(list((former / "loggers" / "tensorboard").iterdir())) == 2


def test_a_users_class_is_refused_unless_named(former, train, monkeypatch):
    monkeypatch.syspath_prepend(former)
    status, _, err = train("resume=own_class", "trainer.epochs=3", cwd=former)
    assert status == 2
    assert err.startswith("error: model._target_: mynets.Net")
    assert len(err.splitlines()) == 1
    status, _, err = train("resume=own_class", "model._target_=mynets.Net", "trainer.epochs=3", cwd=former)
    assert (status, err) == (0, "")
    assert [row["epoch"] for row in rows_of(former / "own_class")] == [1, 2, 3]


def test_nothing_is_left_to_do_for_a_finished_run(former, train):
    status, out, _ = train("resume=uninterrupted", cwd=former)
    assert status == 0
    assert "nothing to do" in out


def test_a_sweep_goes_on_in_the_folders_that_it_has(former, train):
    before = state_of(next(former.glob("sweep/*residual_mlp*seed=0*")))
    status, out, err = train("-m", "resume=sweep", "trainer.epochs=3", cwd=former)
    assert (status, err) == (0, "")
    assert "4 runs: 4 finished" in out
    jobs = [path for path in (former / "sweep").iterdir() if path.is_dir()]
    assert len(jobs) == 4
    after = state_of(next(former.glob("sweep/*residual_mlp*seed=0*")))
    assert all(torch.equal(before["model"][key], after["model"][key]) for key in before["model"])
    (resumed,) = former.glob("sweep/*residual_mlp*seed=1*")
    assert record_of(resumed)["resumed_from"][0]["step"] == 795


@pytest.mark.slow
def test_a_search_goes_on_from_the_trials_that_it_has(former, train):
    pytest.importorskip("optuna")
    status, out, err = train("-m", "resume=search", "hydra.sweeper.n_trials=3", cwd=former)
    assert (status, err) == (0, "")
    assert "3 trials: 3 complete" in out
    assert len([path for path in (former / "search").iterdir() if path.is_dir()]) == 3


def test_runs_of_both_versions_stand_in_one_report(former, train, capsys):
    command = record_of(former / "finished")["command"]
    assert train(*command_words(command, "hydra.run.dir=now", "seed=1"), cwd=former)[0] == 0
    status = report_command.run([str(former / "finished"), str(former / "now"), "--out", str(former / "r.csv")])
    assert (status, capsys.readouterr().err) == (0, "")
    text = (former / "r.csv").read_text()
    assert "_target_" not in text  # the same trainer, schedule and optimizer under both names
    assert len([line for line in text.splitlines() if line]) == 2  # a header, and one group of two seeds


def test_a_newer_format_is_refused_with_what_to_install(former):
    file = former / "finished" / "checkpoints" / "last.pt"
    content = torch.load(file, weights_only=True)
    content |= {"format": checkpoints.FORMAT + 1, "version": "0.9.0"}
    torch.save(content, file)
    with pytest.raises(InputError, match=r"format 2, written by resnet-cli 0\.9\.0.*pip install 'resnet-cli>=0\.9\.0'"):
        checkpoints.load(file)
    assert json.loads((former / "finished" / "run.json").read_text())["versions"]["resnet-cli"] == "0.1.0"
