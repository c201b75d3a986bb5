"""The checks of this project: `nox` runs all that a change must pass, `nox --list` shows them.

They run in the environment that nox is started in (`pip install -e '.[dev]'`): a fresh one for each session would
install torch each time. `.ci/run` makes one fresh environment and calls `nox` in it.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "spelling", "docs", "first_run", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Look for mistakes and for files that are not formatted."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the examples and this file."""
    session.run("mypy")


@nox.session
def spelling(session: nox.Session) -> None:
    """Look for common misspellings in code and texts."""
    session.run("codespell")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in docs/_site, warnings as errors, and look for anything that its pages would fetch."""
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "-b", "html", "docs", "docs/_site")
    for page in Path("docs/_site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = re.findall(
            r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*|<link\b[^>]*\bhref=\"https?://[^\"]*", text
        )
        if found:
            session.error(f"{page} fetches {found[0]}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that are not marked as slow; arguments after `--` are handed to pytest."""
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def thorough(session: nox.Session) -> None:
    """Run every test, the slow ones too: before a release."""
    session.run("pytest", "-n", "2", "-m", "slow or not slow", *session.posargs)


@nox.session
def first_run(session: nox.Session) -> None:
    """Run the README's first command in an empty folder, without a network where that can be had."""
    folder = Path(session.create_tmp()).resolve() / "first_run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    offline = ["unshare", "-rn"] if shutil.which("unshare") else []
    if offline and subprocess.run([*offline, "true"], capture_output=True, check=False).returncode:
        offline = []  # not permitted in this container
    with session.chdir(folder):
        session.run(*offline, shutil.which("resnet-train") or "resnet-train", external=True)
    (record_file,) = folder.glob("outputs/*/*/run.json")
    record = json.loads(record_file.read_text(encoding="utf-8"))
    session.log(f"{record['status']}, test {record['test']}")
    if record["status"] != "finished" or record["test"]["accuracy"] < 97:
        session.error("the first run did not reach 97 % on the test set")


@nox.session
def fix(session: nox.Session) -> None:
    """Sort imports, apply safe fixes and format all files."""
    session.run("ruff", "check", "--fix")
    session.run("ruff", "format")
