"""Trackers: what they are told, that none ends a run, that each is as good after a resume; and the real ones."""

import json
import os
import sys
import warnings

import pytest
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st
from test_config import problems_of, settings_of

from resnet_cli import stored
from resnet_cli.errors import InputError
from resnet_cli.trackers import Tracker, Trackers, missing_packages
from resnet_cli.trackers.tracker import scalars

OWN = '''"""Writes what it is told to a file, and fails where it is told to."""
import json, os, sys, warnings, logging
from resnet_cli.trackers import Tracker

class Fake(Tracker):
    def __init__(self, file: str, fail: str | None = None, kind: str = "RuntimeError"):
        if fail == "make":
            raise ValueError("bad value")
        self.file, self.fail, self.kind = file, fail, kind

    def _tell(self, moment, *told):
        with open(self.file, "a") as file:
            print(json.dumps([moment, *told]), file=file)
        os.environ["FAKE_TRACKER"] = moment
        warnings.warn("noise")
        logging.getLogger("noise").critical("noise")
        if self.fail == moment:
            raise getattr(__builtins__, self.kind, None)("broken\\nin two lines") if not isinstance(
                __builtins__, dict) else __builtins__[self.kind]("broken\\nin two lines")

    def start(self, folder, parameters, rows, run_id):
        self._tell("start", str(folder), dict(parameters), [row["epoch"] for row in rows], run_id)
        return "id7"

    def row(self, row):
        self._tell("row", dict(row))

    def end(self, status, test, epochs):
        self._tell("end", status, dict(test), epochs)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Arguments of a run with a tracker of the user's own, and what it was told."""
    (tmp_path / "faketracker.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faketracker", raising=False)

    def arguments(name="mine", **options):
        options = {"_target_": "faketracker.Fake", "file": f"{name}.txt", **options}
        return [f"logger.{name}.{key}={value}" for key, value in options.items()]

    def told(name="mine"):
        return [json.loads(line) for line in (tmp_path / f"{name}.txt").read_text().splitlines()]

    return arguments, told


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_a_tracker_is_told_of_start_rows_and_end_and_goes_on_after_a_resume(train, tmp_path, own):
    arguments, told = own
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1", "schedule=constant", *arguments()))[::2] == (0, "")
    start, row, end = told()
    assert start[0:2] == ["start", "d"]
    assert start[3:] == [[], None]
    assert start[2]["trainer.epochs"] == 1
    assert not any(key.startswith("logger") for key in start[2])
    assert row == ["row", rows_of(tmp_path / "d")[0]]
    test = record_of(tmp_path / "d")["test"]
    assert end == ["end", "finished", {"test_accuracy": test["accuracy"], "test_loss": test["loss"]}, 1]
    assert record_of(tmp_path / "d")["trackers"] == {"mine": "id7"}
    assert train("resume=d", "trainer.epochs=2", "logger.mine._target_=faketracker.Fake")[::2] == (0, "")
    start, row, end = told()[3:]
    assert start[3:] == [[1], "id7"]
    assert row[1]["epoch"] == 2
    assert end[1:4:2] == ["finished", 2]
    assert "FAKE_TRACKER" not in os.environ
    assert train("resume=d", "trainer.epochs=3", "logger=null")[::2] == (0, "")
    assert len(told()) == 6


@pytest.mark.parametrize("kind", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("moment", ["start", "row", "end"])
def test_a_tracker_that_fails_ends_nothing(train, tmp_path, own, moment, kind):
    arguments, told = own
    status, out, err = train(
        *tiny("hydra.run.dir=d", *arguments("bad", fail=moment, kind=kind), *arguments("good"))
    )  # fmt: skip
    assert (status, err) == (0, "")
    lines = [line for line in (tmp_path / "d" / "train.log").read_text().splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0] in out.splitlines()
    assert lines[0].startswith("warning: logger.bad failed (")
    assert lines[0].endswith(f"{kind}: broken in two lines); the run goes on without it")
    assert [entry[0] for entry in told("good")] == ["start", "row", "row", "end"]
    assert [entry[0] for entry in told("bad")].count("row") == {"start": 0, "row": 1, "end": 2}[moment]
    assert [entry[0] for entry in told("bad")][-1] == "end"
    assert len(rows_of(tmp_path / "d")) == 2
    assert record_of(tmp_path / "d")["status"] == "finished"


def test_a_run_that_fails_is_told_to_its_tracker(train, own):
    arguments, told = own
    assert train(*tiny("hydra.run.dir=d", "optimizer.lr=1e30", *arguments()))[0] == 3
    assert told()[-1][:3] == ["end", "failed", {}]


def test_jobs_of_a_sweep_have_trackers_of_their_own_and_folders_that_do_not_name_them(train, tmp_path, own):
    arguments, told = own
    options = ["trainer.epochs=1", "hydra.sweep.dir=s", "-m", "seed=0,1", *arguments(fail="row")]
    status, out, _ = train(*tiny(*options))
    assert status == 0
    assert [entry[0] for entry in told()] == ["start", "row", "end"] * 2
    assert out.count("warning: logger.mine failed") == 2
    assert not [path for path in (tmp_path / "s").iterdir() if "logger" in path.name]


def test_a_run_stored_without_the_key_takes_a_tracker(train, tmp_path, own):
    arguments, told = own
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1", "schedule=constant"))[0] == 0
    config = tmp_path / "d" / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("logger")))
    assert train("resume=d", "trainer.epochs=2", *arguments())[::2] == (0, "")
    assert told()[0][3] == [1]


def test_a_stored_tracker_from_outside_is_refused_unless_named(train, own):
    arguments, _ = own
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1", *arguments()))[0] == 0
    status, _, err = train("resume=d", "trainer.epochs=2")
    assert status == 2
    assert err.startswith("error: logger.mine._target_: faketracker.Fake is named by a stored config alone")


def test_proving_a_resume_tells_no_tracker(train, own, tmp_path, monkeypatch):
    from resnet_cli import verify

    given = []
    monkeypatch.setattr(verify, "prove", lambda run, settings, init_from: given.append(settings["logger"]) or {})
    assert train(*tiny("verify_resume=true", *own[0]()))[0] == 0
    assert given == [None]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("logger=wandbb", "logger=wandbb: no such option; did you mean wandb? (mlflow, tensorboard, wandb)"),
        ("logger=[wandbb]", "logger=wandbb: no such option; did you mean wandb? (mlflow, tensorboard, wandb)"),
        ("logger.wandb.project=x", "logger.wandb: is not switched on; choose it with logger=wandb"),
        ("logger.mine=3", "logger: {'mine': 3} is not allowed; it takes a mapping to a mapping or null"),
        ("logger.mine._target_=nomod.X", "logger.mine._target_: there is no module named 'nomod'"),
        ("logger.mine._target_=faketracker.os.getcwd",
         "logger.mine: str is no subclass of resnet_cli.trackers.Tracker"),
        ("logger.mine={_target_: faketracker.Fake, file: f, fail: make}", "logger.mine: bad value"),
        ("logger._target_=faketracker.Fake", "logger: holds trackers by name; begin the group file with the line "
         "`# @package logger.<name>`"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_a_line_and_leaves_nothing(train, tmp_path, own, override, problem):
    status, _, err = train(*tiny("hydra.run.dir=d", override))
    assert (status, err.splitlines()[-1]) == (2, f"error: {problem}")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("option", ["tensorboard", "wandb", "mlflow"])
@pytest.mark.parametrize("multirun", [[], ["-m", "seed=0,1"]])
def test_a_missing_package_is_named_before_anything_is_made(train, tmp_path, monkeypatch, option, multirun):
    monkeypatch.setattr("resnet_cli.trackers.several._is_installed", lambda package: package == "alembic")
    status, out, err = train(*tiny(f"logger={option}", *multirun))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"logger.{option}: {option}" in err
    assert err.endswith(f"not installed: pip install 'resnet-cli[{option}]'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_package_and_no_package_is_imported(tmp_path, monkeypatch):
    class Needs(Tracker):
        packages = ("xyzzy_tracker",)

    monkeypatch.setattr("resnet_cli.trackers.several.locate", lambda _: Needs)
    (tmp_path / "xyzzy_tracker").mkdir()  # wandb leaves such a folder behind
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"logger\.a: xyzzy_tracker not installed: pip install 'xyzzy_tracker'"):
        missing_packages({"a": {"_target_": "x.Needs"}})
    (tmp_path / "xyzzy_tracker" / "__init__.py").write_text("raise SystemExit")
    import importlib

    importlib.invalidate_caches()
    missing_packages({"a": {"_target_": "x.Needs"}})
    missing_packages(None)


def test_several_compose_with_options_of_each():
    settings = settings_of("logger=[tensorboard,wandb,mlflow]", "logger.wandb.mode=offline", "logger.mlflow.uri=u")
    assert list(settings["logger"]) == ["tensorboard", "wandb", "mlflow"]
    assert problems_of(settings) == []
    assert settings_of()["logger"] is None
    settings["logger"]["wandb"] |= {"mode": "on", "projct": "x"}
    assert [problem.split(":")[0] for problem in problems_of(settings)] == ["logger.wandb.mode", "logger.wandb.projct"]


def test_a_group_file_of_the_users_own(train, tmp_path, own):
    _, told = own
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    text = "# @package logger.mine\n_target_: faketracker.Fake\nfile: mine.txt\n"
    (tmp_path / "conf" / "logger" / "mine.yaml").write_text(text)
    assert train(*tiny("logger=mine", "trainer.epochs=1"))[::2] == (0, "")
    assert len(told()) == 3


BASE = settings_of()
NODES = st.none() | st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"_target_": st.just("x.Y")}))


@given(NODES, NODES)
def test_trackers_never_make_another_run(before, after):
    assert stored.differences({**BASE, "logger": before}, {**BASE, "logger": after}) == []


@given(
    st.dictionaries(st.text(max_size=3), st.none() | st.floats() | st.dictionaries(st.text(max_size=3), st.floats()))
)
def test_scalars_are_all_numbers_of_a_row(row):
    found = scalars(row)
    flat = [v for k, v in row.items() if isinstance(v, float) and k != "epoch"]
    inner = [v for m in row.values() if isinstance(m, dict) for k, v in m.items() if k != "epoch"]
    assert all(isinstance(value, float) for value in found.values())
    assert len(found) <= len(flat) + len(inner)
    assert set(map(repr, flat)) <= set(map(repr, found.values())) | set(map(repr, inner))


def test_the_environment_is_put_back(monkeypatch):
    class Sets(Tracker):
        def start(self, folder, parameters, rows, run_id):
            os.environ["TRACKER_NEW"] = "1"
            os.environ["TRACKER_OLD"] = "2"
            del os.environ["TRACKER_GONE"]
            warnings.warn("noise", stacklevel=1)

        def row(self, row):
            os.environ["TRACKER_OLD"] = "3"

    monkeypatch.setenv("TRACKER_OLD", "0")
    monkeypatch.setenv("TRACKER_GONE", "0")
    before = dict(os.environ)
    trackers = Trackers({"a": Sets()})
    assert trackers.start(None, {}, [], {"b": "x"}) == {"b": "x"}
    trackers.row({"epoch": 1})
    os.environ["OTHER"] = "kept"
    trackers.end({}, 1)
    assert os.environ.pop("OTHER") == "kept"
    assert dict(os.environ) == before


LOGGERS = {"tensorboard": [], "wandb": ["logger.wandb.mode=offline"], "mlflow": ["logger.mlflow.uri=sqlite:///m.db"]}


def points(option, folder):
    """Epochs of the training loss as the real tracker holds them, and how many runs it holds."""
    if option == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "d" / "tensorboard")).Reload()
        return [event.step for event in events.Scalars("train_loss")], 1
    if option == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{folder}/m.db")
        (run,) = client.search_runs([client.get_experiment_by_name("resnet-cli").experiment_id])
        assert run.info.status == "FINISHED"
        return [metric.step for metric in client.get_metric_history(run.info.run_id, "train_loss")], 1
    return [1, 2, 3], len(list((folder / "d" / "wandb").glob("offline-run-*")))


@pytest.mark.parametrize("option", LOGGERS)
def test_the_real_ones_hold_one_point_an_epoch_after_a_resume(train_command, tmp_path, option):
    pytest.importorskip(option)
    first = tiny("hydra.run.dir=d", f"logger={option}", "trainer.epochs=2", "schedule=constant", *LOGGERS[option])
    for arguments in (first, ["resume=d", "trainer.epochs=3"]):
        done = train_command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "warning" not in done.stdout
    assert points(option, tmp_path) == ([1, 2, 3], 1)
