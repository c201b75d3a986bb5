"""What is recorded of the repositories that a run's code comes from, and what git is kept from doing for it."""

import os
import stat
import subprocess

import pytest

from resnet_cli.runs import repositories
from resnet_cli.runs.repositories import find_repositories
from tests.support.git import NEEDS_GIT, git, make_repository

pytestmark = NEEDS_GIT


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, which is not below a repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_working_folder():
    found = [repository for repository in find_repositories() if "working folder" in repository.of]
    return found[0] if found else None


def test_working_folder_and_package_are_told_apart(place):
    commit = make_repository(place, nets="a = 1\n")
    found = find_repositories()
    assert found[0].of == ("working folder",)
    assert (found[0].commit, found[0].folder) == (commit, str(place.resolve()))
    assert all(repository.of == ("package",) for repository in found[1:])


def test_one_repository_of_both_is_found_once(repository, monkeypatch):
    monkeypatch.chdir(repository / "tests")
    found = find_repositories()
    if found:  # not in an unpacked source distribution
        assert [item.of for item in found] == [("working folder", "package")]


def test_a_tag_describes_the_commit(place):
    make_repository(place)
    git(place, "tag", "v1.2")
    assert of_working_folder().description == "v1.2"


def test_files_that_git_does_not_track_do_not_make_it_dirty(place):
    make_repository(place, nets="a = 1\n")
    (place / "outputs").mkdir()
    (place / "outputs" / "run.json").write_text("{}")
    assert of_working_folder().dirty is False
    (place / "nets.py").write_text("a = 2\n")
    assert of_working_folder().dirty is True


def test_the_patch_restores_the_files(place, tmp_path):
    commit = make_repository(place, nets="a = 1\n", other="b = 1\n")
    (place / "nets.py").write_text("a = 2\n")
    (place / "other.py").unlink()
    (place / "new.bin").write_bytes(bytes(range(256)))
    git(place, "add", "new.bin")
    patch = of_working_folder().patch
    copy = tmp_path / "copy"
    git(place, "worktree", "add", "-q", str(copy), commit)
    (tmp_path / "code.patch").write_bytes(patch)
    git(copy, "apply", str(tmp_path / "code.patch"))
    assert (copy / "nets.py").read_text() == "a = 2\n"
    assert not (copy / "other.py").exists()
    assert (copy / "new.bin").read_bytes() == bytes(range(256))


def test_a_file_with_many_changes_is_left_out_and_named(place, monkeypatch):
    make_repository(place, large="a = 1\n", nets="a = 1\n")
    monkeypatch.setattr(repositories, "MAX_PATCH_BYTES", 1000)
    (place / "large.py").write_text("".join(f"a = {i}\n" for i in range(500)))
    (place / "nets.py").write_text("a = 2\n")
    found = of_working_folder()
    (line,) = found.left_out
    assert line.startswith("changes of large.py (")
    assert b"large.py" not in found.patch
    assert b"+a = 2\n" in found.patch


@pytest.mark.parametrize("limit", [("MAX_READ_BYTES", 2000), ("SECONDS", 0.0)])
def test_an_endless_diff_ends(place, monkeypatch, limit):
    make_repository(place, large="a = 1\n")
    monkeypatch.setattr(repositories, *limit)
    monkeypatch.setattr(repositories, "MAX_PATCH_BYTES", 1000)
    (place / "large.py").write_text("".join(f"a = {i}\n" for i in range(50_000)))
    found = of_working_folder()
    if found.commit:  # else git was too slow for this too
        assert found.left_out
        assert len(found.patch) <= 1000


def test_nothing_that_the_repository_configures_is_run(place):
    make_repository(place, nets="a = 1\n")
    program = place / "program"
    program.write_text(f"#!/bin/sh\ntouch '{place}/was-run'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (place / ".git/info/attributes").write_text("*.py diff=own\n")
    for key in ("diff.external", "diff.own.command", "diff.own.textconv", "core.fsmonitor", "core.pager"):
        git(place, "config", key, str(program))
    (place / "nets.py").write_text("a = 2\n")
    assert b"+a = 2\n" in of_working_folder().patch
    assert not (place / "was-run").exists()
    git(place, "diff", "HEAD")
    assert (place / "was-run").exists()  # the test can fail


def test_odd_settings_leave_the_patch_as_it_is(place):
    make_repository(place, nets="a = 1\n")
    for key in ("diff.noprefix", "diff.mnemonicPrefix", "diff.relative"):
        git(place, "config", key, "true")
    git(place, "config", "color.ui", "always")
    (place / "nets.py").write_text("a = 2\n")
    (place / "inner").mkdir()
    os.chdir(place / "inner")
    assert of_working_folder().patch.startswith(b"diff --git a/nets.py b/nets.py\n")


def test_variables_of_git_lead_to_no_other_repository(place, tmp_path, monkeypatch):
    commit = make_repository(place)
    make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))  # as git sets it for its hooks
    assert of_working_folder().commit == commit


def test_a_folder_of_somebody_else_is_said_unless_the_environment_calls_it_safe(place, monkeypatch):
    commit = make_repository(place)
    start = subprocess.Popen

    def start_as_another_user(*arguments, env, **options):
        return start(*arguments, env={**env, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, **options)

    monkeypatch.setattr(repositories.subprocess, "Popen", start_as_another_user)
    found = of_working_folder()
    assert (found.commit, found.dirty) == (None, None)
    assert "dubious ownership" in found.problem
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(place))
    assert of_working_folder().commit == commit


def test_a_changed_submodule_is_seen_and_its_untracked_files_are_not(place, tmp_path):
    make_repository(tmp_path / "part", nets="a = 1\n")
    make_repository(place / "whole")
    os.chdir(place / "whole")
    git(place / "whole", "submodule", "add", "-q", str(tmp_path / "part"), "part")
    git(place / "whole", "commit", "-qm", "second")
    (place / "whole/part/new.py").write_text("")
    assert of_working_folder().dirty is False
    (place / "whole/part/nets.py").write_text("a = 2\n")
    assert of_working_folder().dirty is True


def test_a_folder_outside_of_repositories_has_none(place):
    assert of_working_folder() is None


def test_without_git_a_repository_is_named_all_the_same(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    assert of_working_folder() is None
    make_folder = place / "work" / "inner"
    make_folder.mkdir(parents=True)
    (place / "work" / ".git").mkdir()
    monkeypatch.chdir(make_folder)
    found = of_working_folder()
    assert (found.folder, found.commit, found.problem) == (str(place / "work"), None, "git is not installed")


def test_a_repository_without_a_commit_says_so(place):
    git(place, "init", "-q")
    found = of_working_folder()
    assert (found.commit, found.dirty, found.problem) == (None, None, "has no commit yet")


def test_a_repository_that_git_refuses_says_so(place, monkeypatch):
    make_repository(place)
    monkeypatch.setattr(repositories, "OPTIONS", ("-c", "core.repositoryformatversion=1"))
    monkeypatch.setenv("GIT_EXEC_PATH", os.environ.get("GIT_EXEC_PATH", ""))
    (place / ".git/config").write_text("[core]\n\trepositoryformatversion = 99\n")
    found = of_working_folder()
    assert found.commit is None
    assert "repo version" in found.problem
