"""Import the user's own classes from the working folder, or from the code stored with a run if found nowhere else.

Only runs that the user trusts are used: the stored code may have been written by somebody else.
"""

import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cli.config.signatures import forget_signatures
from resnet_cli.config.source_files import search_working_folder
from resnet_cli.config.trust import own_class_overrides
from resnet_cli.errors import InputError
from resnet_cli.runs.code import MODULES, read_code
from resnet_cli.runs.folder import RunDir

logger = logging.getLogger("resnet_cli")

_folder_of: dict[str, Path] = {}  # by top-level module, the folder it comes from; a process imports a module once


def find_stored_modules(run: RunDir | None, settings: Mapping[str, Any]) -> None:
    """Let modules of a config's own classes be imported from the working folder, or else from a run's `code/`.

    The folder in `code/` is searched first from then on, so that the modules which these import are the run's too.

    Args:
        run: A run that the user trusts; None for a checkpoint outside of one.
        settings: Its config.

    Raises:
        InputError: the module was taken from another run's code before, which differs.
    """
    search_working_folder()
    if run is None:
        return
    folder = _latest_modules(run).resolve()
    for override in own_class_overrides(settings):
        key, _, target = override.partition("=")
        top = target.partition(".")[0]
        if not _are_same(_folder_of.get(top, folder), folder):
            raise InputError(
                f"{key}: {target}: this process has already imported {top} from {_folder_of[top]}; "
                f"open {run.path} in a separate command"
            )
        if top in _folder_of or not top.isidentifier() or _is_found(top):
            continue
        if (folder / f"{top}.py").is_file() or (folder / top).is_dir():
            _folder_of[top] = folder
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            importlib.invalidate_caches()
            forget_signatures()


def warn_of_changed_modules(run: RunDir | None, settings: Mapping[str, Any]) -> None:
    """Warn if modules of a config's own classes are not those that the run was trained with, such as edited files."""
    found = [] if run is None else read_code(run)
    if run is None or not found:
        return
    digests = _digests_of_modules(found[-1][1])
    tops = dict.fromkeys(override.partition("=")[2].partition(".")[0] for override in own_class_overrides(settings))
    roots = dict.fromkeys(filter(None, (_root_of(top) for top in tops if top not in _folder_of)))
    for root in roots:
        changed = [name for name, digest in digests.items() if _digest(root / name) not in (digest, None)]
        if changed:
            logger.warning(
                "%s: %s: not the code that the run was trained with, which is in %s",
                run.path, ", ".join(str(root / name) for name in changed), run.code,
            )  # fmt: skip


def _latest_modules(run: RunDir) -> Path:
    """Return the folder with a run's modules as they were when it was last started or resumed."""
    found = read_code(run)
    digests = _digests_of_modules(found[-1][1]) if found else {}
    for folder, _ in found[::-1]:
        if all(_digest(folder / MODULES / name) == digest for name, digest in digests.items()):
            return folder / MODULES
    if found:  # of a version that kept only what had changed, or left out for its size
        logger.warning("%s: no folder has all of the code that the run was resumed with; using that of its start",
                       run.code)  # fmt: skip
    return run.code / MODULES


def _digests_of_modules(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each module in a `code.json`, by its path below `modules/`."""
    start = f"{MODULES}/"
    return {name.removeprefix(start): digest for name, digest in index["files"].items() if name.startswith(start)}


def _digest(file: Path) -> str | None:
    """Return the digest of a file; None if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _are_same(folder: Path, other: Path) -> bool:
    """Return whether the modules that two folders have in common are the same."""
    if folder == other:
        return True
    mine, theirs = ({file.relative_to(one) for file in one.rglob("*.py")} for one in (folder, other))
    return bool(mine & theirs) and all(_digest(folder / file) == _digest(other / file) for file in mine & theirs)


def _root_of(top: str) -> Path | None:
    """Return the folder that a top module is imported from; None if it is not found or has no source file."""
    try:
        spec = importlib.util.find_spec(top)
    except (ValueError, ImportError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).parents[1 if spec.submodule_search_locations is not None else 0]


def _is_found(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ValueError, ImportError):
        return False


def class_overrides_to_resume(settings: Mapping[str, Any]) -> list[str]:
    """Return the overrides that a command needs to find a config's own classes when it resumes the run."""
    return ["trust=true"] if stored_modules_in_use(settings) else own_class_overrides(settings)


def stored_modules_in_use(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Return which top modules of a config's classes come from a run's code, and from which folder."""
    tops = (override.partition("=")[2].partition(".")[0] for override in own_class_overrides(settings))
    return {top: _folder_of[top] for top in tops if top in _folder_of}
