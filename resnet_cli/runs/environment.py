"""What a run records about its environment: versions, platform, commit."""

import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from resnet_cli.runs.repositories import Repository

PACKAGES = ("resnet-cli", "torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pillow")
IF_IMPORTED = ("timm",)  # others do not change results of runs that do not use them


def utc_now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """Return the model of the CPU as the kernel names it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def collect_environment(repositories: Sequence[Repository]) -> dict[str, Any]:
    """Return versions, platform and the state of the code: what is needed to run the same again.

    Args:
        repositories: Those of the working folder and of this package; the first one with a commit counts.
    """
    versions = {"python": platform.python_version()}
    for package in (*PACKAGES, *(name for name in IF_IMPORTED if name in sys.modules)):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    found = next((repository for repository in repositories if repository.commit), None)
    commit, dirty = (found.commit, found.dirty) if found else (None, None)
    return {"versions": versions, "platform": platform.platform(), "git_commit": commit, "git_dirty": dirty}
