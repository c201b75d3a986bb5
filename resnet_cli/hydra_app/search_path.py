"""What the working folder adds to configs: groups in its `./conf`, and the user's own classes."""

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from resnet_cli.config.paths import CONFIG_FOLDER


class WorkingFolderConfig(SearchPathPlugin):
    """Adds `./conf` of the working folder, after everything else: a user's `conf/model/mine.yaml` is an option."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder if there is one."""
        own = Path.cwd() / "conf"
        if own.is_dir() and own.resolve() != CONFIG_FOLDER.resolve():
            search_path.append("working folder", f"file://{own}")


def use_working_folder() -> None:
    """Let configs name what is in the working folder."""
    Plugins.instance().register(WorkingFolderConfig)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # appended, so that it hides nothing
