"""Trackers: what they are told, that none ends a run, that each is as good after a resume; and the real ones."""

import json
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.config import stored, trust
from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.loggers import Logger, LoggerGroup, require_packages
from resnet_cli.loggers.base import flatten_scalars
from resnet_cli.session import build, trusted_kinds, verify
from resnet_cli.session import record as run_record
from resnet_cli.training.trainer import ClassifierTrainer
from tests.support.runs import tiny
from tests.support.settings import problems_of, settings_of

OWN = '''"""Writes what it is told to a file, and fails where it is told to."""
import builtins, json, logging, os, warnings
from resnet_cli.loggers import Logger

class Fake(Logger):
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
            raise getattr(builtins, self.kind)("broken\\nin two lines")

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


@pytest.fixture
def untrained(monkeypatch):
    """Runs that are all there but for training: one row, and the end."""

    def evaluate_test_set(prepared, *_):
        prepared.loggers.row(ROW)
        prepared.run.update_record(status="finished")

    monkeypatch.setattr(ClassifierTrainer, "fit", lambda *_, **__: None)
    monkeypatch.setattr(run_record, "evaluate_test_set", evaluate_test_set)


BASE = settings_of()
ROW = {"epoch": 1, "train_loss": 0.5, "seconds": 1.0, "lr": {"a": 0.1}}
FAKE = {"_target_": "faketracker.Fake", "file": "mine.txt"}


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_a_run_tells_its_trackers_of_start_rows_and_end_and_goes_on_with_them(train, tmp_path, own):
    arguments, told = own
    given = [*arguments(), *arguments("bad", fail="row")]
    status, out, err = train(*tiny("hydra.run.dir=d", "trainer.epochs=1", "schedule=constant", *given))
    assert (status, err) == (0, "")
    start, row, end = told()
    assert start[0:2] == ["start", "d"]
    assert start[3:] == [[], None]
    assert start[2]["trainer.epochs"] == 1
    assert not any(key.startswith("logger") for key in start[2])
    assert row == ["row", rows_of(tmp_path / "d")[0]]
    test = record_of(tmp_path / "d")["test"]
    assert end == ["end", "finished", {"test_accuracy": test["accuracy"], "test_loss": test["loss"]}, 1]
    assert record_of(tmp_path / "d")["trackers"] == {"mine": "id7", "bad": "id7"}
    lines = [line for line in (tmp_path / "d" / "train.log").read_text().splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0] in out.splitlines()
    named = [f"logger.{name}._target_=faketracker.Fake" for name in ("mine", "bad")]
    assert train("resume=d", "trainer.epochs=2", "logger.bad.fail=null", *named)[::2] == (0, "")
    start, row, end = told()[3:]
    assert start[3:] == [[1], "id7"]
    assert row[1]["epoch"] == 2
    assert end[1:4:2] == ["finished", 2]
    assert "FAKE_TRACKER" not in os.environ
    assert train("resume=d", "logger=null")[::2] == (0, "")
    assert len(told()) == 6


@pytest.mark.parametrize("kind", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("moment", ["start", "row", "end"])
def test_a_tracker_that_fails_is_told_in_a_line_and_left_alone(own, tmp_path, monkeypatch, caplog, capfd, moment, kind):
    _, told = own
    monkeypatch.chdir(tmp_path)
    bad = {"_target_": "faketracker.Fake", "file": "bad.txt", "fail": moment, "kind": kind}
    trackers = LoggerGroup(build.loggers({"bad": bad, "good": {"_target_": "faketracker.Fake", "file": "good.txt"}}))
    caplog.set_level(logging.INFO)
    ids = trackers.start(tmp_path, {}, [], {})
    for epoch in (1, 2):
        trackers.row({**ROW, "epoch": epoch})
    trackers.end({"status": "finished"}, 2)
    assert ids == ({"good": "id7"} if moment == "start" else {"bad": "id7", "good": "id7"})
    (line,) = caplog.messages  # none of the tracker's own
    assert line.startswith("warning: logger.bad failed (")
    assert line.endswith(f"{kind}: broken in two lines); the run continues without it")
    assert capfd.readouterr().err == ""
    assert [entry[0] for entry in told("good")] == ["start", "row", "row", "end"]
    assert [entry[0] for entry in told("bad")].count("row") == {"start": 0, "row": 1, "end": 2}[moment]
    assert [entry[0] for entry in told("bad")].count("end") == 1


def test_a_run_that_fails_is_told_to_its_tracker(train, own, monkeypatch):
    def fail(*_, **__):
        raise DivergedError("on purpose")

    arguments, told = own
    monkeypatch.setattr(ClassifierTrainer, "fit", fail)
    assert train(*tiny("hydra.run.dir=d", *arguments()))[0] == 3
    assert [entry[:3] for entry in told()[1:]] == [["end", "failed", {}]]


@pytest.mark.usefixtures("untrained")
def test_jobs_of_a_sweep_have_trackers_of_their_own_and_folders_that_do_not_name_them(train, tmp_path, own):
    arguments, told = own
    status, out, _ = train(*tiny("hydra.sweep.dir=s", "-m", "seed=0,1", *arguments(fail="row")))
    assert status == 0
    assert [entry[0] for entry in told()] == ["start", "row", "end"] * 2
    assert out.count("warning: logger.mine failed") == 2
    assert not [path for path in (tmp_path / "s").iterdir() if "logger" in path.name]


@pytest.mark.parametrize("before", [{}, {"logger": None}], ids=["absent", "null"])
def test_a_run_stored_without_trackers_takes_one(before):
    stored_run = {key: value for key, value in BASE.items() if key != "logger"} | {"seed": 5} | before
    given = [f"logger.mine.{key}" for key in FAKE]
    result = stored.overlaid(stored_run, {**BASE, "logger": {"mine": FAKE}}, given)
    assert result["logger"] == {"mine": FAKE}
    assert result["seed"] == 5


def test_an_override_below_a_stored_null_takes_the_node_as_composed_now_and_below_a_node_only_its_key():
    composed = {"a": {"b": {"x": 1, "y": {"z": 2}}}, "c": 3}
    for before in ({"a": None, "c": 0}, {"c": 0}, {"a": {"b": None}, "c": 0}, {"a": {}, "c": 0}):
        assert stored.overlaid(before, composed, ["a.b.x"]) == {"a": composed["a"], "c": 0}
    before = {"a": {"b": {"x": 7, "y": {"z": 8}}, "d": 9}, "c": 0}
    assert stored.overlaid(before, composed, ["a.b.x"]) == {"a": {"b": {"x": 1, "y": {"z": 8}}, "d": 9}, "c": 0}
    assert stored.overlaid({"a": 4, "c": 0}, composed, ["a.b.x"]) == {"a": 4, "c": 0}
    stored.overlaid({"a": None}, composed, ["a.b.x"])["a"]["b"]["x"] = 0
    assert composed["a"]["b"]["x"] == 1


def test_a_stored_tracker_from_outside_is_refused_unless_named():
    with pytest.raises(
        InputError, match=r"logger\.mine\._target_: faketracker\.Fake is named by a stored config alone"
    ):
        trust.check_names({**BASE, "logger": {"mine": FAKE}}, {})
    trust.check_names({**BASE, "logger": {"mine": FAKE}}, trust.targets({"logger": {"mine": FAKE}}))
    own = {name: {"_target_": f"resnet_cli.loggers.{name}"} for name in ("MLflow", "TensorBoard", "WeightsAndBiases")}
    trust.check_names({**BASE, "logger": own}, {})
    trusted_kinds.check_kinds({**BASE, "logger": own}, {})


def test_verify_resume_uses_no_loggers():
    config = RunConfig(**{**BASE, "verify_resume": True, "logger": {"mine": FAKE}})
    assert verify.shorten(config).logger is None


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("logger=wandbb", "logger=wandbb: no such option; did you mean wandb? (mlflow, tensorboard, wandb)"),
        ("logger=[wandbb]", "logger=wandbb: no such option; did you mean wandb? (mlflow, tensorboard, wandb)"),
        ("logger.wandb.project=x", "logger.wandb: is not selected; choose it with logger=wandb"),
        ("logger.mine=3", "logger: {'mine': 3} is not allowed; it takes a mapping to a mapping or null"),
        ("logger.mine._target_=nomod.X", "logger.mine._target_: there is no module named 'nomod'"),
        ("logger._target_=faketracker.Fake", "logger: holds loggers by name; begin the group file with the line "
         "`# @package logger.<name>`"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("own")
def test_wrong_input_is_told_in_a_line_and_leaves_nothing(train, tmp_path, override, problem):
    status, _, err = train(*tiny("hydra.run.dir=d", override))
    assert (status, err.splitlines()[-1]) == (2, f"error: {problem}")
    assert not (tmp_path / "d").exists()


@pytest.mark.usefixtures("own")
def test_what_makes_no_tracker_is_told():
    with pytest.raises(InputError, match=r"logger\.mine: str is no subclass of resnet_cli\.loggers\.Logger"):
        build.loggers({"mine": {"_target_": "os.getcwd"}})
    with pytest.raises(InputError, match=r"logger\.mine: bad value"):
        build.loggers({"mine": {**FAKE, "fail": "make"}})


@pytest.mark.parametrize("words", [["logger=wandb"], ["logger=[mlflow,tensorboard]", "-m", "seed=0,1"]])
def test_missing_packages_are_named_before_anything_is_made(train, tmp_path, monkeypatch, words):
    monkeypatch.setattr("resnet_cli.loggers.group._is_installed", lambda package: package == "alembic")
    status, out, err = train(*tiny(*words))
    assert (status, out) == (2, "")
    lines = {
        "wandb": "logger.wandb: wandb not installed: pip install 'resnet-cli[wandb]'",
        "mlflow": "logger.mlflow: mlflow, sqlalchemy not installed: pip install 'resnet-cli[mlflow]'",
        "tensorboard": "logger.tensorboard: tensorboard not installed: pip install 'resnet-cli[tensorboard]'",
    }
    jobs = "job 0 (seed=0) and 1 more: " if "-m" in words else ""
    assert err.splitlines() == [f"error: {jobs}{line}" for name, line in lines.items() if name in words[0]]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_package_and_no_package_is_imported(tmp_path, monkeypatch):
    class Needs(Logger):
        packages = ("xyzzy_tracker",)

    monkeypatch.setattr("resnet_cli.loggers.group.locate", lambda _: Needs)
    (tmp_path / "xyzzy_tracker").mkdir()  # wandb leaves such a folder behind
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"logger\.a: xyzzy_tracker not installed: pip install 'xyzzy_tracker'"):
        require_packages({"a": {"_target_": "x.Needs"}})
    (tmp_path / "xyzzy_tracker" / "__init__.py").write_text("raise SystemExit")
    import importlib

    importlib.invalidate_caches()
    require_packages({"a": {"_target_": "x.Needs"}})
    require_packages(None)


def test_several_compose_with_options_of_each():
    settings = settings_of("logger=[tensorboard,wandb,mlflow]", "logger.wandb.mode=offline", "logger.mlflow.uri=u")
    assert list(settings["logger"]) == ["tensorboard", "wandb", "mlflow"]
    assert problems_of(settings) == []
    assert settings_of()["logger"] is None
    settings["logger"]["wandb"] |= {"mode": "on", "projct": "x"}
    assert [problem.split(":")[0] for problem in problems_of(settings)] == ["logger.wandb.mode", "logger.wandb.projct"]


@pytest.mark.usefixtures("untrained")
def test_a_group_file_of_the_users_own(train, tmp_path, own):
    _, told = own
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    text = "# @package logger.mine\n_target_: faketracker.Fake\nfile: mine.txt\n"
    (tmp_path / "conf" / "logger" / "mine.yaml").write_text(text)
    assert train(*tiny("logger=mine"))[::2] == (0, "")
    assert len(told()) == 3


NODES = st.none() | st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"_target_": st.just("x.Y")}))


@settings(max_examples=20)
@given(NODES, NODES)
def test_trackers_never_make_another_run(before, after):
    assert stored.differences({**BASE, "logger": before}, {**BASE, "logger": after}) == []


def test_scalars_are_the_numbers_of_a_row_by_full_name():
    row = {"epoch": 3, "loss": 0.5, "val": None, "steps": 4, "word": "x", "lr": {"a": 0.1, "b": None, "c": {"d": 1.0}}}
    assert flatten_scalars(row) == {"loss": 0.5, "steps": 4, "lr.a": 0.1, "lr.c.d": 1.0}


def test_the_environment_is_put_back(monkeypatch):
    class Sets(Logger):
        def start(self, folder, parameters, rows, run_id):
            os.environ["TRACKER_NEW"] = "1"
            os.environ["TRACKER_OLD"] = "2"
            del os.environ["TRACKER_GONE"]
            warnings.warn("noise", stacklevel=1)

        def row(self, row):
            os.environ["TRACKER_OLD"] = "3"

        def end(self, status, test, epochs):
            os.environ["TRACKER_OLD"] = "4"

    monkeypatch.setenv("TRACKER_OLD", "0")
    monkeypatch.setenv("TRACKER_GONE", "0")
    before = dict(os.environ)
    trackers = LoggerGroup({"a": Sets()})
    assert trackers.start(None, {}, [], {"b": "x"}) == {"b": "x"}
    trackers.row({"epoch": 1})
    os.environ["OTHER"] = "kept"
    trackers.end({}, 1)
    assert os.environ.pop("OTHER") == "kept"
    assert dict(os.environ) == before


REAL = {
    "tensorboard": {"_target_": "resnet_cli.loggers.TensorBoard"},
    "wandb": {"_target_": "resnet_cli.loggers.WeightsAndBiases", "mode": "offline", "project": "p"},
    "mlflow": {"_target_": "resnet_cli.loggers.MLflow"},
}
KILLED, WHOLE = (dict(enumerate(losses, start=1)) for losses in ([0.75, 0.5], [0.75, 0.625, 0.25]))  # loss by epoch


def held_by_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    held = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return held, b"trainer.epochs" in events.PluginTagToContent("hparams")["_hparams_/session_start_info"], "finished"


def held_by_mlflow(run):
    from mlflow import MlflowClient

    with warnings.catch_warnings(action="ignore"):  # of SQLAlchemy 2.1, about MLflow's own tables
        client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("resnet-cli").experiment_id])
    (tracked,) = [one for one in found if one.info.run_name == run.name]
    keys = client.get_run(tracked.info.run_id).data.metrics
    histories = {key: client.get_metric_history(tracked.info.run_id, key) for key in keys}
    held = {key: [(point.step, point.value) for point in points] for key, points in histories.items()}
    return held, tracked.data.params.get("trainer.epochs") == "2", tracked.info.status.lower()


def records_of_wandb(file):
    """The records of a .wandb file: a LevelDB log, blocks of 32 KiB with pieces of records, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = file.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768  # what is left of a block is too short for a piece's head
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)  # after a checksum
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or its last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def held_by_wandb(run):
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    held, keys, status = {}, [], None
    for record in records_of_wandb(file):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                held.setdefault(name, []).append((record.history.step.num, row[name]))
        elif kind == "summary":
            for item in record.summary.update:
                name = item.key or ".".join(item.nested_key)
                if name.startswith("test_"):
                    held[name] = [(3, json.loads(item.value_json))]
        elif kind == "run":
            keys = [item.key or ".".join(item.nested_key) for item in record.run.config.update]
        elif kind == "exit":
            status = "finished" if record.exit.exit_code == 0 else "failed"
    return held, "trainer.epochs" in keys, status


HELD = {"tensorboard": held_by_tensorboard, "wandb": held_by_wandb, "mlflow": held_by_mlflow}


OWN_VARIABLES = ("PYTEST_CURRENT_TEST", "HYDRA_FULL_ERROR", "TORCHINDUCTOR_CACHE_DIR")  # of pytest, the command, torch


@pytest.fixture
def undisturbed():
    """Nothing of this process is other than before, once all is over."""

    def now():
        return {**os.environ, **dict.fromkeys(OWN_VARIABLES), "sys": (sys.exit, sys.excepthook)}.items()

    before, threads = now(), set(threading.enumerate())
    yield
    assert now() ^ before == set()
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("option", REAL)
@pytest.mark.usefixtures("undisturbed")
def test_the_real_ones_hold_one_point_an_epoch_after_a_resume(tmp_path, monkeypatch, caplog, option):
    """The last save of the first part was damaged: epoch 2 comes again, and is another."""
    pytest.importorskip(option)
    monkeypatch.chdir(tmp_path)
    run, ids = tmp_path / "d", {}
    run.mkdir()
    for part, done, status in ((KILLED, 0, "interrupted"), (WHOLE, 1, "finished")):
        rows = [{"epoch": epoch, "train_loss": loss, "seconds": 1.0, "lr": {"a": 0.5}} for epoch, loss in part.items()]
        trackers = LoggerGroup(build.loggers({option: REAL[option]}))
        ids = trackers.start(run, {"trainer.epochs": len(part), "seed": None}, rows[:done], ids)
        for row in rows[done:]:
            trackers.row(row)
        test = {"accuracy": 50.0, "loss": 0.125}
        trackers.end({"status": status, **({"test": test} if status == "finished" else {})}, len(part))
    assert caplog.messages == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held, has_parameters, status = HELD[option](run)
    first = KILLED if option == "mlflow" else {}  # it replaces nothing
    assert held["train_loss"] == list({**WHOLE, **first}.items())
    assert held["lr.a"] == [(epoch, 0.5) for epoch in WHOLE]
    assert (held["test_accuracy"][-1:], held["test_loss"][-1:]) == ([(3, 50.0)], [(3, 0.125)])
    assert (has_parameters, status) == (True, "finished")


@pytest.mark.usefixtures("untrained", "undisturbed")
def test_jobs_of_a_sweep_are_runs_of_their_own_in_the_real_ones(train, tmp_path):
    for option in ("tensorboard", "mlflow"):
        pytest.importorskip(option)
    status, out, err = train(*tiny("hydra.sweep.dir=s", "logger=[tensorboard,mlflow]", "-m", "seed=0,1"))
    assert (status, err) == (0, "")
    assert "warning" not in out
    jobs = sorted(path.parent for path in (tmp_path / "s").glob("*/run.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for job in jobs:
            for held in (held_by_tensorboard, held_by_mlflow):
                assert held(job)[0]["train_loss"] == [(1, 0.5)]
    first, second = [record_of(job)["trackers"] for job in jobs]
    assert list(first) == list(second) == ["mlflow"]
    assert first != second


OPEN = """
import logging, pathlib, sys, time
import mlflow.store.tracking.sqlalchemy_store
from resnet_cli.loggers import LoggerGroup, MLflow
logging.basicConfig()
me, other = map(pathlib.Path, sys.argv[1:])
me.touch()
while not other.exists():
    time.sleep(0.01)
trackers = LoggerGroup({"mlflow": MLflow()})
trackers.start(me, {"a": 1}, [{"epoch": 1, "train_loss": 0.5}], {})
trackers.end({"status": "finished"}, 1)
"""


def test_two_processes_that_make_one_database_are_both_in_it(tmp_path, monkeypatch, repository):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    jobs = [
        subprocess.Popen([sys.executable, "-c", OPEN, *names], env=environment, stderr=subprocess.PIPE, text=True)
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [job.communicate(timeout=300)[1] for job in jobs] == ["", ""]
    for name in ("a", "b"):
        assert held_by_mlflow(tmp_path / name)[0]["train_loss"] == [(1, 0.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "mlflow.db"]
