"""Odd surroundings: no home folder, output that is not UTF-8, names that are no text, and readers that go away."""

import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from resnet_cli import __version__
from resnet_cli.commands import completion, predict, terminal
from resnet_cli.commands import eval as eval_command
from resnet_cli.commands.train.job import next_commands, repeated_overrides
from resnet_cli.training import progress
from resnet_cli.training.metrics import Totals
from tests.support import processes, tiers
from tests.support.runs import tiny

# What a container that was started with `--user 12345` has: no HOME, and no such user.
HOMELESS = """
import os, runpy, sys
import pwd

def unknown(name):
    raise KeyError(name)

os.environ.pop("HOME", None)
pwd.getpwuid = pwd.getpwnam = unknown
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LONE_BYTE = os.fsdecode(b"\xe9")  # a byte of a file name that is not UTF-8


def run(folder, *command, **environment):
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip


def image_folder(root):
    for split in ("train", "test"):
        for label in ("ash", "été"):
            for i in range(10):
                folder = root / split / label
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (20 * i, 100 * len(label), 0)).save(folder / f"é{i}.png")


@pytest.mark.parametrize(
    ("command", "arguments", "begin"),
    [
        ("train", ["data=mnist"], "data.root=~/.cache/resnet-cli"),
        ("train", ["data=cifar10", 'data.root="~/d"'], "data.root=~/d"),
        ("train", ["data=image_folder", 'data.root="~/d"'], "data.root=~/d"),
        ("train", ['resume="~/run"'], "resume=~/run"),
        ("train", ["-m", 'resume="~/run"'], "resume=~/run"),
        ("train", ['init_from="~someone/run"'], "init_from=~someone/run"),
        ("info", ["~/run"], "~/run"),
        ("report", ["~/run"], "~/run"),
        ("report", [".", "--out", "~/x.html"], "--out=~/x.html"),
    ],
)
def test_paths_of_an_unknown_home_are_one_line(tmp_path, monkeypatch, capsys, command, arguments, begin):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(f"pwd.{name}", lambda user: {}[user])
    monkeypatch.setattr(sys, "argv", ["resnet-train", *arguments])
    assert import_module(f"resnet_cli.commands.{command}").run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith((f"error: {begin}: the home folder", f"error: data: {begin}: the home folder"))
    assert "a path without ~" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_home_images_are_not_cached(tmp_path):
    image_folder(tmp_path / "images")
    arguments = ["data=image_folder", "data.root=images", "model=resnet8", "trainer.epochs=1", "hydra.run.dir=d"]
    done = run(tmp_path, "-c", HOMELESS, "resnet_cli", *arguments, RESNET_CLI_CACHE="~/decoded")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "d/train.log").read_text().count("data.cache: ~/decoded: the home folder is not known") == 1


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", [ASCII_LOCALE, {"PYTHONIOENCODING": "latin-1"}])
def test_a_run_is_the_same_whatever_the_terminal_can_show(tmp_path, surroundings):
    image_folder(tmp_path / "été")
    options = ["data=image_folder", 'data.root="été"', "data.cache=null", "model=resnet8", "trainer.epochs=1"]
    done = run(tmp_path, "-m", "resnet_cli", *options, 'name="漢é"', 'hydra.run.dir="ré"', **surroundings)
    assert (done.returncode, done.stderr) == (0, b"")
    record = json.loads((tmp_path / "ré/run.json").read_text(encoding="utf-8"))
    assert "漢é" in record["command"]
    assert "folder  ré\n" in (tmp_path / "ré/train.log").read_text(encoding="utf-8")
    assert "name: 漢é" in (tmp_path / "ré/config.yaml").read_text(encoding="utf-8")
    done = run(tmp_path, "-m", "resnet_cli.commands.report", "ré", **surroundings)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "été/train/ash/é0.png").write_bytes(b"")
    done = run(tmp_path, "-m", "resnet_cli", *options, **surroundings)
    assert done.returncode == 2
    assert b"0.png" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="such names are possible on Linux alone")
def test_names_that_are_not_utf8_are_kept_and_printed_as_escapes(tmp_path):
    images = f"images{LONE_BYTE}"
    image_folder(tmp_path / images)
    options = ["data=image_folder", f'data.root="{images}"', f'hydra.run.dir="d{LONE_BYTE}"', "data.cache=null"]
    done = run(tmp_path, "-m", "resnet_cli", *options, "model=resnet8", "trainer.epochs=1", f'name="n{LONE_BYTE}"')
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"d\udce9" in done.stdout
    folder = tmp_path / f"d{LONE_BYTE}"
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"].count(LONE_BYTE) == 3
    assert r"d\udce9" in (folder / "train.log").read_text(encoding="utf-8")
    done = run(tmp_path, "-m", "resnet_cli", f'resume="d{LONE_BYTE}"', "trainer.epochs=2")
    assert (done.returncode, done.stderr) == (0, b"")
    done = run(tmp_path, "-m", "resnet_cli.commands.report", ".", "--out", "x.html")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", tiers.mostly_slow([["hydra.run.dir=d"], ["-m", "hydra.sweep.dir=d", "seed=0"]], every=2)
)
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path, mode):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = processes.run(*tiny("trainer.epochs=1"), *mode, cwd=tmp_path, stdout=closed)
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = tmp_path.glob("d/**/run.json")
    assert json.loads(record.read_text())["status"] == "finished"
    assert "test accuracy" in (record.parent / "train.log").read_text()


@pytest.mark.parametrize("name", ["train", "info", "data", "eval", "predict", "export", "report"])
def test_every_command_has_the_programs_version(name, capsys):
    module = import_module("resnet_cli.commands.train.main" if name == "train" else f"resnet_cli.commands.{name}")
    assert module.run(["--version"]) == 0
    assert capsys.readouterr().out == f"resnet-cli {__version__}\n"


@pytest.mark.parametrize(
    ("platform", "number", "has_gone"),
    [("linux", errno.EPIPE, True), ("linux", errno.EINVAL, False), ("win32", errno.EINVAL, True),
     ("win32", errno.ENOSPC, False)],
)  # fmt: skip
def test_a_closed_pipe_is_no_error_and_a_full_disk_is_one(monkeypatch, platform, number, has_gone):
    class Stream(io.StringIO):
        def flush(self):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "stdout", Stream())
    if has_gone:
        assert not terminal.print_output("text")
        assert not terminal.print_json("{}")
        assert completion.print_answer("text") == 0
    else:
        for function in (terminal.print_output, terminal.print_json, completion.print_answer):
            with pytest.raises(OSError, match=os.strerror(number)):
                function("0")


def output_in(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    return stream.buffer


ENCODINGS = ["ascii", "cp1252", "cp932", "utf-8", "utf8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lines_are_json_in_every_encoding(place, monkeypatch, encoding):
    (place / "photos/circle").rename(place / "photos/é漢😀")
    printed = output_in(monkeypatch, encoding)
    assert predict.run(["run", "photos/é漢😀", "--format", "jsonl"]) == 0
    lines = printed.getvalue().decode("utf-8").splitlines()
    assert {json.loads(line)["image"].rpartition("/")[0] for line in lines} == {"photos/é漢😀"}
    assert ("漢" in lines[0]) == (encoding in ("utf-8", "utf8"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_metrics_of_evaluations_are_json_in_every_encoding(monkeypatch, encoding):
    printed = output_in(monkeypatch, encoding)
    found = SimpleNamespace(metrics={"positive": f"é漢😀{LONE_BYTE}"}, notes=[])
    eval_command._report(found, [], "run", Path("d"), SimpleNamespace(format="json", tta="none"))
    assert json.loads(printed.getvalue().decode("utf-8")) == found.metrics


def test_what_to_type_next_names_the_runs_folder():
    lines = next_commands(20, PurePosixPath("outputs/a b"), [])
    commands = [line.split("  ")[1] for line in lines[1:]]
    assert commands[:3] == [
        "resnet-eval 'outputs/a b'",
        "resnet-predict 'outputs/a b' IMAGES",
        "resnet-train 'resume=\"outputs/a b\"' trainer.epochs=40",
    ]
    ended = next_commands(None, PurePosixPath("outputs/a b"), [])
    assert [line.split("  ")[1] for line in ended[1:]] == [line for line in commands if "epochs" not in line]
    narrow = next_commands(20, PurePosixPath("outputs/a b"), ["model._target_=mine.Net"], columns=60)
    assert narrow[1:3] == [
        "  # test result by class, calibration, worst mistakes",
        "  resnet-eval 'outputs/a b' --trust",
    ]


def test_what_to_type_next_is_about_the_data_of_the_run():
    data = ["data=image_folder", "data.root=My Photos", "data.image_size=32"]
    lines = "\n".join(next_commands(20, PurePosixPath("pets"), [], data=data))
    assert "resnet-data data=image_folder 'data.root=My Photos' data.image_size=32" in lines
    assert "-m data=image_folder 'data.root=My Photos' data.image_size=32 model=resnet20,plain20 seed=0,1,2" in lines
    assert "cifar10" not in lines


def test_what_to_type_next_repeats_all_settings_of_the_data():
    kept = ["data=csv", "data.file=a.csv", "data.labels=multi", "data.group=who", "data.folds=3", "data.mean=[0.5]"]
    dropped = ["data.batch_size=8", "data.augment.flip=none", "data.augment.transforms=[]", "data.workers=0", "seed=1"]
    typed = [*kept[:3], *dropped, *kept[3:], "data.fold=1", "loss=focal", "~data.std", "loss.gamma=1"]
    record = {"overrides": typed, "data": {"labels": "multi"}}
    data, loss = repeated_overrides(record)
    assert (data, loss) == ([*kept, "data.fold=1", "~data.std"], ["loss=focal", "loss.gamma=1"])
    assert repeated_overrides({**record, "data": {}}) == (data, [])
    assert repeated_overrides({"overrides": None}) == ([], [])
    *_, inspection, sweep = next_commands(1, PurePosixPath("a"), [], data=data, loss=loss)
    assert shlex.split(inspection)[:9] == ["resnet-data", *kept, "data.fold=1", "~data.std"]
    words = ["resnet-train", "-m", *kept, "~data.std", "loss=focal", "loss.gamma=1", "model=resnet20,plain20"]
    assert shlex.split(sweep)[: len(words)] == words


def test_the_bar_shows_the_time_left_of_epoch_and_run(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0)
    totals = Totals(torch.device("cpu"))
    for columns, expected in ((80, "loss"), (60, "run ")):
        monkeypatch.setenv("COLUMNS", str(columns))
        with progress.Progress("epoch 2/8", batches=3, done=0, seconds_after=60.0) as bar:
            for _ in range(2):
                totals.add(torch.tensor(8.0), torch.tensor(2), 4)
                bar.step(totals)
        shown = re.split(r"[\r\n]", capsys.readouterr().err)
        assert any("run 1 min" in line and expected in line for line in shown)
        assert any("loss" in line for line in shown) == (columns == 80)
