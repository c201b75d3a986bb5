"""Loggers: which calls they get, that none ends a run, and that a resumed run continues its loggers' runs."""

import json
import logging
import os
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.config import stored, trust
from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.loggers import Logger, LoggerGroup, require_packages
from resnet_cli.loggers.base import flatten_scalars
from resnet_cli.session import build, trusted_kinds, verify
from resnet_cli.training.trainer import ClassifierTrainer
from tests.support.loggers import ROW
from tests.support.runs import record_of, tiny
from tests.support.settings import problems_of, settings_of

OWN = '''"""A logger that writes its calls to a file, and fails in a chosen one."""
import builtins, json, logging, os, warnings
from resnet_cli.loggers import Logger

class Fake(Logger):
    def __init__(self, file: str, fail: str | None = None, kind: str = "RuntimeError"):
        if fail == "make":
            raise ValueError("bad value")
        self.file, self.fail, self.kind = file, fail, kind

    def _note(self, method, *arguments):
        with open(self.file, "a") as file:
            print(json.dumps([method, *arguments]), file=file)
        os.environ["FAKE_LOGGER"] = method
        warnings.warn("noise")
        logging.getLogger("noise").critical("noise")
        if self.fail == method:
            raise getattr(builtins, self.kind)("broken\\nin two lines")

    def start(self, folder, parameters, rows, run_id):
        self._note("start", str(folder), dict(parameters), [row["epoch"] for row in rows], run_id)
        return "id7"

    def row(self, row):
        self._note("row", dict(row))

    def end(self, status, test, epochs):
        self._note("end", status, dict(test), epochs)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Functions that return the arguments of a run with a user's own logger, and the calls that it got."""
    (tmp_path / "fake_logger.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_logger", raising=False)

    def arguments(name="mine", **options):
        options = {"_target_": "fake_logger.Fake", "file": f"{name}.txt", **options}
        return [f"logger.{name}.{key}={value}" for key, value in options.items()]

    def calls(name="mine"):
        return [json.loads(line) for line in (tmp_path / f"{name}.txt").read_text().splitlines()]

    return arguments, calls


BASE = settings_of()
FAKE = {"_target_": "fake_logger.Fake", "file": "mine.txt"}


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_calls_its_loggers_and_continues_them_when_resumed(train, tmp_path, own):
    arguments, calls = own
    given = [*arguments(), *arguments("bad", fail="row")]
    status, out, err = train(*tiny("hydra.run.dir=d", "trainer.epochs=1", "schedule=constant", *given))
    assert (status, err) == (0, "")
    start, row, end = calls()
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
    named = [f"logger.{name}._target_=fake_logger.Fake" for name in ("mine", "bad")]
    assert train("resume=d", "trainer.epochs=2", "logger.bad.fail=null", *named)[::2] == (0, "")
    start, row, end = calls()[3:]
    assert start[3:] == [[1], "id7"]
    assert row[1]["epoch"] == 2
    assert end[1:4:2] == ["finished", 2]
    assert "FAKE_LOGGER" not in os.environ
    assert train("resume=d", "logger=null")[::2] == (0, "")
    assert len(calls()) == 6


@pytest.mark.parametrize("kind", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("method", ["start", "row", "end"])
def test_a_failing_logger_is_reported_and_not_called_again(own, tmp_path, monkeypatch, caplog, capfd, method, kind):
    _, calls = own
    monkeypatch.chdir(tmp_path)
    bad = {"_target_": "fake_logger.Fake", "file": "bad.txt", "fail": method, "kind": kind}
    loggers = LoggerGroup(build.loggers({"bad": bad, "good": {"_target_": "fake_logger.Fake", "file": "good.txt"}}))
    caplog.set_level(logging.INFO)
    ids = loggers.start(tmp_path, {}, [], {})
    for epoch in (1, 2):
        loggers.row({**ROW, "epoch": epoch})
    loggers.end({"status": "finished"}, 2)
    assert ids == ({"good": "id7"} if method == "start" else {"bad": "id7", "good": "id7"})
    (line,) = caplog.messages  # none of the logger's own
    assert line.startswith("warning: logger.bad failed (")
    assert line.endswith(f"{kind}: broken in two lines); the run continues without it")
    assert capfd.readouterr().err == ""
    assert [entry[0] for entry in calls("good")] == ["start", "row", "row", "end"]
    assert [entry[0] for entry in calls("bad")].count("row") == {"start": 0, "row": 1, "end": 2}[method]
    assert [entry[0] for entry in calls("bad")].count("end") == 1


def test_a_failed_run_ends_its_logger_as_failed(train, own, monkeypatch):
    def fail(*_, **__):
        raise DivergedError("on purpose")

    arguments, calls = own
    monkeypatch.setattr(ClassifierTrainer, "fit", fail)
    assert train(*tiny("hydra.run.dir=d", *arguments()))[0] == 3
    assert [entry[:3] for entry in calls()[1:]] == [["end", "failed", {}]]


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_each_job_of_a_sweep_has_loggers_of_its_own_that_its_folder_does_not_name(train, tmp_path, own):
    arguments, calls = own
    status, out, _ = train(*tiny("hydra.sweep.dir=s", "-m", "seed=0,1", *arguments(fail="row")))
    assert status == 0
    assert [entry[0] for entry in calls()] == ["start", "row", "end"] * 2
    assert out.count("warning: logger.mine failed") == 2
    assert not [path for path in (tmp_path / "s").iterdir() if "logger" in path.name]


@pytest.mark.parametrize("before", [{}, {"logger": None}], ids=["absent", "null"])
def test_a_run_stored_without_loggers_takes_one(before):
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


def test_a_stored_logger_from_outside_is_refused_unless_named():
    with pytest.raises(InputError, match=r"logger\.mine\._target_: fake_logger\.Fake is named only in a stored config"):
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
        ("logger.mine=3", "logger: {mine: 3} is not allowed; it takes a mapping to a mapping or null"),
        ("logger.mine._target_=nomod.X", "logger.mine._target_: there is no module named 'nomod'"),
        ("logger._target_=fake_logger.Fake", "logger: needs a name for each logger; start the group file with the line "
         "`# @package logger.<name>`"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("own")
def test_wrong_input_prints_a_line_and_leaves_nothing(train, tmp_path, override, problem):
    status, _, err = train(*tiny("hydra.run.dir=d", override))
    assert (status, err.splitlines()[-1]) == (2, f"error: {problem}")
    assert not (tmp_path / "d").exists()


@pytest.mark.usefixtures("own")
def test_a_target_that_is_no_logger_is_refused():
    with pytest.raises(InputError, match=r"logger\.mine: str is not a subclass of resnet_cli\.loggers\.Logger"):
        build.loggers({"mine": {"_target_": "os.getcwd"}})
    with pytest.raises(InputError, match=r"logger\.mine: bad value"):
        build.loggers({"mine": {**FAKE, "fail": "make"}})


@pytest.mark.parametrize("words", [["logger=wandb"], ["logger=[mlflow,tensorboard]", "-m", "seed=0,1"]])
def test_missing_packages_are_named_before_anything_is_created(train, tmp_path, monkeypatch, words):
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
        packages = ("xyzzy_logger",)

    monkeypatch.setattr("resnet_cli.loggers.group.locate", lambda _: Needs)
    (tmp_path / "xyzzy_logger").mkdir()  # wandb leaves such a folder behind
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"logger\.a: xyzzy_logger not installed: pip install 'xyzzy_logger'"):
        require_packages({"a": {"_target_": "x.Needs"}})
    (tmp_path / "xyzzy_logger" / "__init__.py").write_text("raise SystemExit")
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
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    text = "# @package logger.mine\n_target_: fake_logger.Fake\nfile: mine.txt\n"
    (tmp_path / "conf" / "logger" / "mine.yaml").write_text(text)
    assert train(*tiny("logger=mine"))[::2] == (0, "")
    assert len(own[1]()) == 3


NODES = st.none() | st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"_target_": st.just("x.Y")}))


@settings(max_examples=20)
@given(NODES, NODES)
def test_another_logger_is_no_difference_between_configs(before, after):
    assert stored.differences({**BASE, "logger": before}, {**BASE, "logger": after}) == []


def test_scalars_are_the_numbers_of_a_row_by_full_name():
    row = {"epoch": 3, "loss": 0.5, "val": None, "steps": 4, "word": "x", "lr": {"a": 0.1, "b": None, "c": {"d": 1.0}}}
    assert flatten_scalars(row) == {"loss": 0.5, "steps": 4, "lr.a": 0.1, "lr.c.d": 1.0}


def test_the_environment_is_put_back(monkeypatch):
    class Sets(Logger):
        def start(self, folder, parameters, rows, run_id):
            os.environ["LOGGER_NEW"] = "1"
            os.environ["LOGGER_OLD"] = "2"
            del os.environ["LOGGER_GONE"]
            warnings.warn("noise", stacklevel=1)

        def row(self, row):
            os.environ["LOGGER_OLD"] = "3"

        def end(self, status, test, epochs):
            os.environ["LOGGER_OLD"] = "4"

    monkeypatch.setenv("LOGGER_OLD", "0")
    monkeypatch.setenv("LOGGER_GONE", "0")
    before = dict(os.environ)
    loggers = LoggerGroup({"a": Sets()})
    assert loggers.start(None, {}, [], {"b": "x"}) == {"b": "x"}
    loggers.row({"epoch": 1})
    os.environ["OTHER"] = "kept"
    loggers.end({}, 1)
    assert os.environ.pop("OTHER") == "kept"
    assert dict(os.environ) == before
