"""What the user adds to configs: groups in `./conf` and in the folder of --config-dir."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from resnet_cli.config.paths import config_folders
from resnet_cli.config.source_files import search_working_folder
from resnet_cli.hydra_app.file_source import Notes, active_notes, use_checked_files
from resnet_cli.hydra_app.plugins import add_launcher_options

TARGET_OF_HYDRA = re.compile(r"[+]*hydra\..*_target_")

_active_folders: ContextVar[Sequence[Path]] = ContextVar("active_folders", default=())
_generated_folder: ContextVar[Path | None] = ContextVar("generated_folder", default=None)


class UserConfigs(SearchPathPlugin):
    """Searches the user's folders before all others: a file there replaces the built-in option of its name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend the folders."""
        for folder in reversed(_active_folders.get()):
            search_path.prepend("user's folder", f"file://{folder}")
        generated = _generated_folder.get()
        if generated is not None:
            search_path.prepend("generated", f"file://{generated}")


@contextmanager
def user_configs(options: Sequence[str]) -> Iterator[None]:
    """Let configs that are composed inside this block use the user's groups.

    Args:
        options: The command line, which may have --config-dir.
    """
    Plugins.instance().register(UserConfigs)
    use_checked_files()
    add_launcher_options()
    own = config_folders(options)[:-1]
    if own or any(TARGET_OF_HYDRA.match(argument) for argument in options):
        search_working_folder()  # Hydra builds callbacks, launchers and sweepers itself
    folders = _active_folders.set(own)
    notes = active_notes.set(Notes())
    try:
        yield
    finally:
        active_notes.reset(notes)
        _active_folders.reset(folders)


@contextmanager
def generated_configs(folder: Path) -> Iterator[None]:
    """Let the configs that are composed inside this block find options in a folder that this program has written."""
    before = _generated_folder.set(folder)
    try:
        yield
    finally:
        _generated_folder.reset(before)
