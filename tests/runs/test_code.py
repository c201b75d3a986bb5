"""The code in a run's folder: what is kept, what is left out and named, and what a resumed run adds."""

import importlib
import json
import subprocess
import sys

import pytest

from resnet_cli.runs import code
from resnet_cli.runs.code import Snapshot, installed_packages, read_code, take_snapshot, write_code
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.repositories import Repository


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def snapshot(**files):
    made = Snapshot([{"of": ["package"], "folder": "/x", "commit": "12ab"}])
    for name, text in files.items():
        made.add(name, text.encode())
    return made


def test_packages_are_those_that_pip_lists():
    pytest.importorskip("pip", reason="an environment of uv has no pip")
    listed = json.loads(
        subprocess.run(
            [sys.executable, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    expected = {f"{code.re.sub(r'[-_.]+', '-', item['name']).lower()}=={item['version']}" for item in listed}
    found = {line for line in installed_packages() if not line.startswith("resnet-cli==")}
    assert found == {line for line in expected if not line.startswith("resnet-cli==")}


def test_modules_of_own_classes_are_kept_with_what_they_import(tmp_path, monkeypatch):
    package = tmp_path / "ownnets"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from ownnets.deep.net import Net\n")
    (package / "deep" / "net.py").write_text("import ownwidth\nfrom ownnets import layers\nclass Net: pass\n")
    (package / "layers.py").write_text("")
    (package / "unused.py").write_text("")
    (tmp_path / "ownwidth.py").write_text("WIDTH = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    import ownnets.deep  # noqa: F401

    made = take_snapshot({"model": {"_target_": "ownnets.deep.Net"}, "loss": {"_target_": "torch.nn.L1Loss"}}, [])
    for name in [name for name in sys.modules if name.startswith(("ownnets", "ownwidth"))]:
        monkeypatch.delitem(sys.modules, name)
    assert sorted(made.files) == [
        "modules/ownnets/__init__.py", "modules/ownnets/deep/__init__.py", "modules/ownnets/deep/net.py",
        "modules/ownnets/layers.py", "modules/ownwidth.py", "requirements.txt",
    ]  # fmt: skip
    assert made.files["modules/ownwidth.py"] == b"WIDTH = 8\n"
    assert not made.left_out


def test_a_module_is_kept_as_it_was_imported_until_it_is_reloaded(tmp_path, monkeypatch, caplog):
    settings, source = {"model": {"_target_": "editednets.Net"}}, tmp_path / "editednets.py"
    source.write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("editednets")

    def kept():
        return take_snapshot(settings, []).files["modules/editednets.py"]

    first = kept()
    source.write_text("class Net: depth = 2  # longer, so that the compiled file is not used\n")
    assert kept() == first
    assert "editednets.py has changed since it was imported" in caplog.text
    importlib.reload(module)
    assert kept() == source.read_bytes()
    monkeypatch.delitem(sys.modules, "editednets")


@pytest.fixture
def two_folders(tmp_path, monkeypatch):
    """A module `ownnames` that takes its class from `ownimpl`, which lies elsewhere, beside a large `ownbulk`."""
    before = set(sys.modules)
    for folder, files in {
        "a": {"ownnames": "from ownimpl import Net\nimport aownbulk\n", "aownbulk": "#" * 600},
        "b": {"ownimpl": "class Net: pass\n"},
    }.items():
        (tmp_path / folder).mkdir()
        monkeypatch.syspath_prepend(tmp_path / folder)
        for name, text in files.items():
            (tmp_path / folder / f"{name}.py").write_text(text)
    __import__("ownnames")
    yield {"model": {"_target_": "ownnames.Net"}}
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_module_that_defines_a_class_is_kept_too(two_folders):
    made = take_snapshot(two_folders, [])
    expected = {f"modules/{name}.py" for name in ("ownnames", "ownimpl", "aownbulk")}
    assert set(made.files) == {*expected, "requirements.txt"}


def test_what_the_config_names_and_the_changes_come_before_other_modules(two_folders, monkeypatch):
    monkeypatch.setattr(code, "installed_packages", list)
    monkeypatch.setattr(code, "MAX_BYTES", 600)
    made = take_snapshot(two_folders, [Repository(("package",), "/x", "12ab", "12ab", True, b"d" * 500)])
    assert set(made.files) == {"requirements.txt", "modules/ownnames.py", "modules/ownimpl.py", "package.patch"}
    assert made.left_out == ["modules/aownbulk.py (600 bytes)"]


def test_a_class_of_this_package_brings_nothing_of_its_checkout():
    from resnet_cli.models import CifarResNet  # noqa: F401

    assert set(take_snapshot({"loss": {"_target_": "resnet_cli.models.CifarResNet"}}, []).files) == {"requirements.txt"}


def test_what_git_does_not_say_is_left_out_by_name():
    made = take_snapshot({}, [Repository(("working folder",), "/x", problem="dubious ownership")])
    assert made.left_out == ["commit and changes of /x (dubious ownership)"]


def test_classes_of_installed_packages_are_left_to_their_version():
    import yaml  # noqa: F401

    assert set(take_snapshot({"model": {"_target_": "yaml.Loader"}}, []).files) == {"requirements.txt"}


def test_a_class_without_a_source_file_is_named():
    made = take_snapshot({"model": {"_target_": "nowhere.Net"}}, [])
    assert made.left_out == ["the source of nowhere.Net"]


def test_changes_of_a_repository_are_a_file(run):
    found = Repository(("working folder", "package"), "/x", "12ab", "v1-2-g12ab", True, b"diff --git", ("some of y",))
    write_code(run, take_snapshot({}, [found]), resumed=False)
    assert (run.code / "working_folder.patch").read_bytes() == b"diff --git"
    ((_, index),) = read_code(run)
    (entry,) = index["repositories"]
    assert (entry["of"], entry["commit"], entry["dirty"]) == (["working folder", "package"], "12ab", True)
    assert index["left_out"] == ["some of y in /x"]


def test_what_does_not_fit_is_named_in_the_log(run, monkeypatch, caplog):
    monkeypatch.setattr(code, "MAX_BYTES", 10)
    with caplog.at_level("INFO", "resnet_cli"):
        write_code(run, snapshot(a="123456", b="1234567", c="1234"), resumed=False)
    assert names(run.code) == ["a", "c", "code.json"]
    assert caplog.messages == [f"code    {run.code}: left out b (7 bytes)"]


def test_a_resumed_run_adds_what_differs(run, caplog):
    write_code(run, snapshot(a="1", b="1"), resumed=False)
    write_code(run, snapshot(a="1", b="1"), resumed=True)
    assert names(run.code) == ["a", "b", "code.json"]
    with caplog.at_level("INFO", "resnet_cli"):
        write_code(run, snapshot(a="1", b="2", c="1"), resumed=True)
    assert caplog.messages == [f"code    differs from that of the start: see {run.code / 'resume-1'}"]
    assert names(run.code / "resume-1") == ["b", "c", "code.json"]
    write_code(run, snapshot(a="1", b="2", c="1"), resumed=True)
    write_code(run, snapshot(a="1", b="3", c="1"), resumed=True)
    assert names(run.code / "resume-2") == ["b", "code.json"]
    assert (run.code / "b").read_text() == "1"


def test_a_resumed_run_keeps_all_modules_if_one_differs(run):
    former = {"a": "1", "modules/x.py": "1", "modules/y.py": "1"}
    write_code(run, snapshot(**former), resumed=False)
    write_code(run, snapshot(**{**former, "a": "2"}), resumed=True)
    assert names(run.code / "resume-1") == ["a", "code.json"]
    write_code(run, snapshot(**{**former, "modules/y.py": "2"}), resumed=True)
    assert names(run.code / "resume-2") == ["a", "code.json", "modules/x.py", "modules/y.py"]


def test_another_place_of_the_repository_is_no_difference(run):
    write_code(run, snapshot(a="1"), resumed=False)
    moved = snapshot(a="1")
    moved.repositories[0]["folder"] = "/elsewhere"
    write_code(run, moved, resumed=True)
    assert names(run.code) == ["a", "code.json"]


def test_all_parts_together_stay_below_the_limit(run, monkeypatch):
    monkeypatch.setattr(code, "MAX_BYTES", 3000)
    write_code(run, snapshot(a="1" * 2000), resumed=False)
    write_code(run, snapshot(a="2" * 2000), resumed=True)
    (_, (_, index)) = read_code(run)
    assert index["left_out"] == ["a (2,000 bytes)"]
    assert not (run.code / "resume-1" / "a").exists()


def test_a_run_of_a_former_version_gets_the_code_of_its_resume(run):
    write_code(run, snapshot(a="1"), resumed=True)
    assert names(run.code) == ["resume-1/a", "resume-1/code.json"]


def test_nothing_is_written_through_a_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.code.symlink_to(tmp_path / "elsewhere")
    write_code(run, snapshot(a="1"), resumed=True)
    assert names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}, "repositories": 3}', "[" * 100_000, " " * (2 << 20)])
def test_a_file_that_is_no_index_counts_as_none(run, text):
    run.code.mkdir()
    (run.code / "code.json").write_text(text)
    assert read_code(run) == []
    write_code(run, snapshot(a="1"), resumed=True)
