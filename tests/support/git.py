"""Git repositories made for a test."""

import shutil
import subprocess

import pytest

NEEDS_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *arguments):
    own = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", folder, *own, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(folder, **files):
    """A repository with one commit of these files, `name` for `name.py`; return the commit."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")
