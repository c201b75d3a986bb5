"""Where results cannot be written is said before they are computed."""

import os
from importlib import import_module

import pytest

from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import export


@pytest.fixture
def closed(place, monkeypatch):
    """A folder in which nobody may write, whoever runs the tests."""
    folder, access = place / "closed", os.access
    folder.mkdir()

    def allowed(path, mode):
        return access(path, mode) and not (mode & os.W_OK and os.path.realpath(path) == str(folder))

    monkeypatch.setattr("os.access", allowed)
    return folder


def refuse(*arguments, **options):
    raise AssertionError("work begins before the check")


WORK = [
    "resnet_cli.evaluation.evaluate.evaluate_run",
    "resnet_cli.inference.predict.predict_images",
    "resnet_cli.export.export.export_run",
]


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("predict", ["run", "photos", "--out", "closed/o.csv"], "--out=closed/o.csv"),
        ("export", ["run", "--out", "closed/m.onnx"], "--out=closed/m.onnx"),
        ("report", [".", "--out", "closed/r.html"], "--out=closed/r.html"),
        ("data", ["data=digits", "--out", "closed/p.html"], "--out=closed/p.html"),
        ("info", ["model=resnet8", "--gradients", "--out", "closed/f.png"], "--out=closed/f.png"),
        ("eval", ["run", "--out", "closed/new/folder"], "--out=closed/new/folder"),
        ("eval", ["photos", "--out-of-fold", "--out", "closed"], "--out=closed"),
        ("eval", ["closed", "--label-errors"], "closed/eval"),
    ],
)
def test_a_folder_that_is_not_writable_is_refused_at_once(closed, monkeypatch, capsys, command, arguments, named):
    for work in WORK:
        monkeypatch.setattr(work, refuse)
    (closed / "o.csv").touch()
    assert import_module(f"resnet_cli.commands.{command}").run(arguments) == 4
    problem = f"error: {named}: cannot be written: the folder {closed} is not writable\n"
    assert capsys.readouterr() == ("", problem)


@pytest.mark.parametrize(("command", "name"), [("eval", "eval"), ("export", "export")])
def test_a_run_folder_that_is_not_writable_is_refused_at_once(place, monkeypatch, capsys, command, name):
    """The default place is in the run."""
    for work in WORK:
        monkeypatch.setattr(work, refuse)
    folder, access = place / "run" / name, os.access
    folder.mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: access(path, mode) and os.path.realpath(path) != str(folder))
    assert import_module(f"resnet_cli.commands.{command}").run(["run"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f": cannot be written: the folder {place / 'run' / name} is not writable\n")
    assert len(err.splitlines()) == 1


def test_a_place_in_a_file_is_refused_at_once(place, capsys):
    assert import_module("resnet_cli.commands.eval").run(["run", "--out", "run/config.yaml/eval"]) == 4
    line = f"error: --out=run/config.yaml/eval: cannot be written: {place}/run/config.yaml is not a folder\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("link", ["eval", "eval/test"])
def test_nothing_is_written_through_a_link_in_a_run_folder(place, capsys, link):
    (place / "papers").mkdir()
    (place / "papers/metrics.json").write_text("mine")
    (place / "run" / link).parent.mkdir(exist_ok=True)
    (place / "run" / link).symlink_to(place / "papers")
    assert evaluation.run(["run", "--resamples", "0"]) == 2
    assert (
        capsys.readouterr().err
        == f"error: run/{link}: is a link, and files outside of the run might be replaced; give --out\n"
    )
    assert (place / "papers/metrics.json").read_text() == "mine"
    (place / "run/export").symlink_to(place / "papers")
    assert export.run(["run", "--format", "pt2"]) == 2
    assert "error: run/export: is a link" in capsys.readouterr().err
