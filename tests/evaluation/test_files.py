"""Files of an evaluation, which replace earlier ones whole, and what it says of a compiled run."""

import csv
import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from resnet_cli.errors import MachineError
from resnet_cli.evaluation import evaluate, table
from resnet_cli.evaluation.evaluate import Evaluation, write_files
from resnet_cli.evaluation.files import format_predictions
from resnet_cli.inference.output import CsvWriter
from resnet_cli.inference.predict import Prediction
from resnet_cli.session.trained import open_trained

FIRST = {
    "metrics.json": b'{"samples": 1, "classes": []}', "per_class.csv": b"1", "curves.csv": b"1", "curves.png": b"1"
}  # fmt: skip
SECOND = {"metrics.json": b"2", "per_class.csv": b"2", "predictions.csv": b"2"}


@pytest.fixture
def folder(tmp_path):
    write_files(Evaluation({}, FIRST, []), tmp_path / "test")
    (tmp_path / "test/notes.txt").write_bytes(b"the user's")
    return tmp_path / "test"


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def interrupt(monkeypatch, target, name, call):
    """Have a function raise at a call, counted from 0."""
    original, calls = getattr(target, name), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call + 1:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, interrupted)


def test_files_of_an_earlier_evaluation_go_and_those_of_the_user_stay(folder):
    write_files(Evaluation({}, SECOND, []), folder)
    assert content(folder) == {**SECOND, "notes.txt": b"the user's"}


@pytest.mark.parametrize("metrics", [b"[]", b'{"accuracy": 90}', b"\xff"])
def test_files_of_such_names_that_no_evaluation_wrote_stay(tmp_path, metrics):
    own = {"metrics.json": metrics, "features.npz": b"the user's", "curves.png": b"the user's"}
    for name, data in own.items():
        (tmp_path / name).write_bytes(data)
    write_files(Evaluation({}, SECOND, []), tmp_path)
    assert content(tmp_path) == {**own, **SECOND}


def test_only_the_folders_of_killed_evaluations_are_removed(tmp_path):
    folders = [tmp_path / ".new-photos", tmp_path / f"{evaluate.STAGED}killed"]
    for folder in folders:
        folder.mkdir()
        os.utime(folder, (0, 0))
    write_files(Evaluation({}, SECOND, []), tmp_path)
    assert [folder.exists() for folder in folders] == [True, False]


@pytest.mark.parametrize("call", range(3))
def test_interrupted_while_it_writes_the_earlier_files_stay(folder, monkeypatch, call):
    interrupt(monkeypatch, evaluate, "write_atomically", call)
    with pytest.raises(KeyboardInterrupt):
        write_files(Evaluation({}, SECOND, []), folder)
    assert content(folder) == {**FIRST, "notes.txt": b"the user's"}


def test_a_full_disk_is_reported_by_the_name_of_the_file_that_was_to_be_written(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError) as caught:
        write_files(Evaluation({}, SECOND, []), folder)
    file = folder / next(iter(SECOND))
    assert caught.value.args[1].startswith(f"{file}: cannot be written: No space left on device (1 bytes needed, ")


@pytest.mark.parametrize("step", ["unlink", "replace"])
def test_a_file_that_a_viewer_has_open_is_replaced_a_moment_later_on_windows(folder, monkeypatch, step):
    change, left = getattr(os, step), [PermissionError(errno.EACCES, "in use")] * 2

    def refused(*arguments, **options):
        if Path(arguments[0]).name in SECOND and left:
            raise left.pop()
        return change(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "write_atomically", lambda path, data, target: path.write_bytes(data))
        patch.setattr(os, step, refused)
        patch.setattr("time.sleep", lambda seconds: None)
        patch.setattr("sys.platform", "win32")
        write_files(Evaluation({}, SECOND, []), folder)
    assert content(folder) == {**SECOND, "notes.txt": b"the user's"}
    assert left == []


@pytest.mark.parametrize("call", range(3))
@pytest.mark.parametrize("step", ["unlink", "replace"])
def test_interrupted_while_it_replaces_there_is_no_mix(folder, monkeypatch, step, call):
    monkeypatch.setattr(evaluate, "write_atomically", lambda path, data, target: path.write_bytes(data))
    interrupt(monkeypatch, Path, step, call)
    with pytest.raises(KeyboardInterrupt):
        write_files(Evaluation({}, SECOND, []), folder)
    found = content(folder)
    assert found.pop("notes.txt") == b"the user's"
    assert found.items() <= (FIRST if step == "unlink" else SECOND).items()
    assert ("metrics.json" in found) == (step == "unlink" and call == 0)


def test_a_run_of_a_compiled_model_is_said_to_round_otherwise(trained_run):
    run = open_trained(str(trained_run))
    compiled = replace(run, settings={**run.settings, "trainer": {**run.settings["trainer"], "compile": "model"}})
    for trained, notes in ((run, []), (compiled, [evaluate.COMPILED])):
        assert evaluate.evaluate_run(trained, evaluate.EvalOptions(resamples=0)).notes == notes


def test_an_abandoned_folder_that_another_evaluation_removes_is_no_failure(tmp_path):
    evaluate._remove_if_abandoned(tmp_path / "gone")


def test_the_likelihood_is_not_shown_as_another_loss():
    metrics = {
        "loss": 0.9, "negative_log_likelihood": 0.3, "intervals": {}, "tta": {"negative_log_likelihood": 0.25},
    }  # fmt: skip
    rows = {row[0]: row for row in table._overall_rows(metrics)}
    assert (rows["loss"][1], rows["loss"][3]) == ("0.9000", table._with_unit(None, table.NUMBER))


@pytest.mark.parametrize(
    ("names", "cell"), [(["a", "b"], "a|b"), (["a|b"], r"a\|b"), (["a\\", "b"], r"a\\|b"), ([], "")]
)
def test_labels_with_the_separator_in_their_names_are_told_apart(names, cell):
    """By both writers: of predictions, and of evaluations."""
    prediction = Prediction("x.png", (("a", 0.5),), tuple(names))
    row = CsvWriter(top=1, has_label_sets=True, rejects=False).rows([prediction])
    assert next(csv.reader([row]))[1] == cell
    classes = [*names, "other"]
    labels_1K = np.array([[True] * len(names) + [False]])
    found = SimpleNamespace(
        labels=labels_1K, predicted=labels_1K, probabilities_NK=np.full((1, len(classes)), 0.5), losses_N=np.zeros(1)
    )
    row = format_predictions(found, ["x.png"], classes).splitlines()[1]
    assert next(csv.reader([row]))[1:3] == [cell, cell]
