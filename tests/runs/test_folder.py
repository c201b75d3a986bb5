"""Run folders: names, records, environment."""

import json
import ntpath
import re
import shlex
import sys
from pathlib import Path, PureWindowsPath

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from resnet_cli.errors import InputError, MachineError
from resnet_cli.runs import folder as run_module
from resnet_cli.runs.environment import collect_environment
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.runs.names import folder_name, format_command, job_folder_name, random_letters, resume_command
from resnet_cli.runs.repositories import Repository


def test_the_record_grows_field_by_field(tmp_path):
    run = RunDir(tmp_path / "a")
    assert not run.exists
    run.create("name: x\n", status="running", seed=1)
    run.update_record(status="finished", test={"accuracy": 98.5})
    assert json.loads(run.record.read_text()) == {"status": "finished", "seed": 1, "test": {"accuracy": 98.5}}
    assert run.exists


def test_rows_replace_rows(tmp_path):
    run = RunDir(tmp_path)
    run.create("", status="running")
    run.write_metrics([{"epoch": 1}, {"epoch": 2}, {"epoch": 3}])
    run.write_metrics([{"epoch": 1}])
    assert run.metrics.read_text() == '{"epoch": 1}\n'


def test_what_kills_left_is_removed_when_a_run_begins(tmp_path):
    run = RunDir(tmp_path)
    run.create("", status="running")
    for file in (run.last, run.previous, run.best, run.record, run.metrics, run.config, run.curves):
        file.with_name(f".{file.name}.12345.tmp").write_text("half")
    (tmp_path / ".notes.txt.12345.tmp").write_text("somebody's")
    run.create("", status="running")
    assert [path.name for path in tmp_path.rglob(".*")] == [".notes.txt.12345.tmp"]


def test_a_path_that_cannot_be_written_is_refused_and_nothing_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    before = sorted(tmp_path.iterdir())
    for name, words in [
        ("file", "file: is not a folder"),
        ("file/a/b", "file: is not a folder"),
        ("link", "link: is not a folder"),
        ("dangling", "dangling: cannot be written: No such file"),
        ("n" * 300, "cannot be written: File name too long"),
    ]:
        with pytest.raises(MachineError, match=words):
            RunDir(tmp_path / name).require_writable()
    RunDir(tmp_path / "new" / "folder").require_writable()
    monkeypatch.setattr(run_module.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(MachineError, match="no permission, or a read-only disk"):
        RunDir(tmp_path / "new" / "folder").require_writable()
    assert sorted(tmp_path.iterdir()) == before


def test_a_log_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "train.log").symlink_to("victim")
    with pytest.raises(InputError, match=r"train\.log: a symbolic link"):
        RunDir(tmp_path).require_writable()


def test_a_broken_record_is_named(tmp_path):
    run = RunDir(tmp_path)
    run.record.write_text("{")
    with pytest.raises(InputError, match=r"run\.json: not a run record: .*; restore it from a backup, or delete it"):
        run.read_record()


def test_a_run_is_found_by_its_folder_or_a_checkpoint(tmp_path):
    run = RunDir(tmp_path / "r")
    run.create("name: x\n", status="running")
    run.last.write_bytes(b"")
    nested = tmp_path / "a" / "b" / "c"
    nested.mkdir(parents=True)
    assert find_run(str(run.path)).path == find_run(str(run.last)).path == run.path
    for path, words in [
        (tmp_path / "none", "no such run folder"),
        (nested, "not a run folder (it has no config.yaml)"),
        (run.config, f"not a run folder (give {run.path})"),
        (run.last.parent, f"not a run folder (give {run.path})"),
    ]:
        with pytest.raises(InputError, match=re.escape(words)):
            find_run(str(path))


@given(st.lists(st.text(min_size=1, max_size=60), max_size=4))
def test_job_folders_are_safe_and_tell_jobs_apart(overrides):
    name = job_folder_name(overrides)
    assert 0 < len(name) <= 100
    assert not set(name) & set('/\\:*?"<>| \n\0')
    assert name not in (".", "..")
    assert job_folder_name([*overrides, "seed=1"]) != job_folder_name([*overrides, "seed=2"])


def test_job_folders_are_readable():
    assert job_folder_name(["++model=resnet20", "seed=1"]) == "model=resnet20,seed=1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resnet8", "resnet8"),
        ("été 1.5", "été 1.5"),
        ("a/b", "a/b"),
        ("12:30", "12_30"),
        ('<a> "b"|c?*\\', "_a_ _b__c___"),
        ("end. .", "end_"),
        ("con", "_con"),
        ("Aux.txt", "_Aux.txt"),
        ("console", "console"),
        ("runs/nul/x.", "runs/_nul/x_"),
    ],
)
def test_folder_names_are_possible_on_windows(text, name):
    assert folder_name(text) == name
    assert folder_name(name) == name
    path = PureWindowsPath("C:/outputs") / name / f"10-02-11-{name}-abcd"
    assert not any(is_reserved(part) for part in path.parts[1:])
    assert path.drive == "C:"


def is_reserved(name):
    """Return whether a name is that of a device on Windows; pathlib's method goes in Python 3.15."""
    return ntpath.isreserved(name) if hasattr(ntpath, "isreserved") else PureWindowsPath(name).is_reserved()


@pytest.mark.parametrize("override", ["~con", "+NUL", "~com1.x", "~prn."])
def test_job_folders_are_no_devices_of_windows(override):
    name = job_folder_name([override])
    assert not is_reserved(name)
    assert name != job_folder_name(["_" + override])


def test_commands_are_quoted_for_the_shell_of_windows(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert resume_command(PureWindowsPath("outputs\\a\\b")) == "resnet-train resume=outputs/a/b"
    command = resume_command(PureWindowsPath("C:\\my runs\\b"))
    assert command == r'resnet-train "resume=\"C:/my runs/b\""'


def test_letters_differ():
    assert len({random_letters() for _ in range(50)}) > 40


def test_command_lines_can_be_typed_again():
    assert format_command("resnet-train", ["data.root=a b"]) == "resnet-train 'data.root=a b'"


@pytest.mark.parametrize(
    "name", ["plain", "a b", "é (日本)", "model=resnet8,seed=0", 'quo"te', "it's", "back\\slash", "~"]
)
def test_the_command_that_goes_on_is_understood(name):
    _, argument = shlex.split(resume_command(Path(name)))
    assert OverridesParser.create().parse_override(argument).value() == name


def test_environment_names_versions_and_commit(monkeypatch):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    record = collect_environment([])
    assert {"python", "torch", "hydra-core", "pillow"} <= set(record["versions"])
    assert "timm" not in record["versions"], "it is not used"
    assert record["git_commit"] is None
    unknown, known = Repository(("working folder",), "a", problem="refused"), Repository(("package",), "b", "12ab")
    assert collect_environment([unknown, known])["git_commit"] == "12ab"


def test_a_record_that_cannot_be_read_is_the_machines_failure(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(MachineError, match=r"run.json: cannot be read: Is a directory"):
        RunDir(tmp_path).read_record()


@pytest.mark.parametrize(("files", "expected"), [(["sweep.json"], True), (["multirun.yaml"], True), ([], False),
                                                 (["sweep.json", "config.yaml"], False)])  # fmt: skip
def test_the_folder_of_a_sweep_is_known_by_its_files(tmp_path, files, expected):
    for name in files:
        (tmp_path / name).touch()
    assert run_module.is_sweep(tmp_path) == expected
