"""What a run records about its environment: versions, platform, commit."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("resnet-cli", "torch", "torchvision", "hydra-core", "omegaconf", "numpy")


def utc_now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect_environment() -> dict[str, Any]:
    """Return versions, platform and the state of the code: what is needed to run the same again."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "platform": platform.platform(), **_git_state()}


def _git_state() -> dict[str, Any]:
    """Return commit and cleanliness of the working folder's checkout, else of the one that holds this package."""
    for folder in (Path.cwd(), Path(__file__).parent):
        commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
        if commit:
            return {"git_commit": commit, "git_dirty": bool(_output("git", "-C", str(folder), "status", "--porcelain"))}
    return {"git_commit": None, "git_dirty": None}


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
