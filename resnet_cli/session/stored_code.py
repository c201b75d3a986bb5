"""Import the user's own classes from the working folder, or from the code stored with a run if found nowhere else.

Only runs that the user trusts are used: the stored code may have been written by somebody else.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cli.config.signatures import forget_signatures
from resnet_cli.config.source_files import search_working_folder
from resnet_cli.config.trust import own_class_overrides
from resnet_cli.errors import InputError
from resnet_cli.runs.code import MODULES
from resnet_cli.runs.folder import RunDir

_folder_of: dict[str, Path] = {}  # by top-level module, the folder it comes from; a process imports a module once


def find_stored_modules(run: RunDir | None, settings: Mapping[str, Any]) -> None:
    """Let modules of a config's own classes be imported from the working folder, or else from a run's `code/`.

    The folder in `code/` is searched first from then on, so that the modules which these import are the run's too.

    Args:
        run: A run that the user trusts; None for a checkpoint outside of one.
        settings: Its config.

    Raises:
        InputError: the module was taken from another run's code before.
    """
    search_working_folder()
    if run is None:
        return
    folder = (run.code / MODULES).resolve()
    for override in own_class_overrides(settings):
        key, _, target = override.partition("=")
        top = target.partition(".")[0]
        if _folder_of.get(top, folder) != folder:
            raise InputError(
                f"{key}: {target}: this process has {top} from {_folder_of[top]}; give {run.path} a command of its own"
            )
        if top in _folder_of or not top.isidentifier() or _is_found(top):
            continue
        if (folder / f"{top}.py").is_file() or (folder / top).is_dir():
            _folder_of[top] = folder
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            importlib.invalidate_caches()
            forget_signatures()


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
