"""Files of config groups: errors name the file and the line, and a note says which of two files of one name is used.

Hydra reads files by the class that is registered for `file://`, and its registry keeps the first one. The entry is
replaced here, so that this class reads the files of every folder: of `./conf`, `--config-dir` and `hydra.searchpath`.

Relies on: `SourcesRegistry.types`, which treats classes of one name as the same, also in the processes of launchers.
Tried with Hydra 1.3.8 and 1.4.0rc3; `tests/hydra_app/test_file_source.py` fails when that changes.
"""

import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydraFileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.paths import CONFIG_FOLDER, is_built_in
from resnet_cli.config.yaml_errors import describe_yaml_error, display_path, line_of, scalars
from resnet_cli.errors import InputError

PRIMARY = "train"  # the config with the defaults list, which only the package's folder has
EXTENSION = ".yaml"
GENERATED_GROUPS = ("plan/",)  # whose built-in files only name the options


@dataclass
class Notes:
    """The notes that a command prints on files that hide others."""

    folders: list[str] = field(default_factory=list)  # in the order of Hydra's search path
    printed: set[str] = field(default_factory=set)

    def print_once(self, text: str) -> None:
        """Print a note, once in a command."""
        if text not in self.printed:
            self.printed.add(text)
            print(f"note: {escape_control_characters(text)}", file=sys.stderr)


active_notes: ContextVar[Notes | None] = ContextVar("active_notes", default=None)


class FileConfigSource(HydraFileConfigSource):
    """A folder with config groups. It has the name of Hydra's class, so that the registry treats both as the same."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        notes = active_notes.get()
        if notes is not None and self.path not in notes.folders:
            notes.folders.append(self.path)

    def is_config(self, config_path: str) -> bool:
        """Return whether the folder has the file; the primary config is the package's alone."""
        return super().is_config(config_path) and not self._is_ignored(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            InputError: it is not YAML, or not a config; the message names the file and the line.
        """
        path = self._file(config_path)
        try:
            result = super().load_config(config_path)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, LookupError, AttributeError) as error:
            raise InputError(describe_yaml_error(error, path, path.read_bytes())) from None
        except GrammarParseError:
            text = _broken_reference(path)
            reason = "an incomplete reference ${key}; write a literal ${ as \\${"
            raise InputError(f"{_format_location(path, value=text)}: {text}: {reason}") from None
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the machine's
                raise
            raise InputError(f"{display_path(path)}: {str(error).splitlines()[0]}") from None
        package = result.header.get("package")
        if package and set(package) & set("[]{}"):
            raise InputError(f"{display_path(path)}:1: # @package {package}: not a dotted key, such as logger.mine")
        _check_content(result.config, path)
        self._note_hidden_files(config_path)
        return result

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))

    def _is_ignored(self, config_path: str) -> bool:
        is_primary = self._normalize_file_name(config_path) == f"{PRIMARY}{EXTENSION}"
        ignored = is_primary and Path(self.path).resolve() != CONFIG_FOLDER.resolve()
        notes = active_notes.get()
        if ignored and notes is not None:
            name = display_path(self._file(config_path))
            notes.print_once(f"{name} has no effect; keys of your own go to a file in experiment/ beside it")
        return ignored

    def _note_hidden_files(self, config_path: str) -> None:
        """Print a note on files of the same name in later folders, which this one hides."""
        notes = active_notes.get()
        if notes is None or config_path.startswith(GENERATED_GROUPS):
            return
        group, _, option = config_path.removesuffix(EXTENSION).rpartition("/")
        own = self._file(config_path)
        others = [Path(folder, self._normalize_file_name(config_path)) for folder in notes.folders]
        hidden = [file for file in others if group and file.is_file() and not file.samefile(own)]
        if hidden:
            names = " nor ".join(_name(file, group, option) for file in hidden)
            renamed = display_path(own if not is_built_in(own) else hidden[0])
            used = _name(own, group, option)
            notes.print_once(f"{group}={option}: {used} is used, not {names}; rename {renamed} to use both")


def _name(path: Path, group: str, option: str) -> str:
    return f"the built-in {group}/{option}" if is_built_in(path) else display_path(path)


def _check_content(config: Any, path: Path) -> None:
    """Raise an `InputError` for content that is not that of a config file."""
    if not isinstance(config, DictConfig):
        raise InputError(f"{display_path(path)}:1: not a mapping of `key: value` lines")
    if "defaults" in config:
        wrong = _wrong_defaults(config._get_node("defaults"), path.stem)
        if wrong:
            raise InputError(f"{_format_location(path, key='defaults')}: defaults: {wrong}")


def _wrong_defaults(defaults: object, own_name: str) -> str:
    """Return what is wrong with a defaults list, or an empty string."""
    if not isinstance(defaults, ListConfig):
        return "not a list; it has lines such as `- override /model: resnet20`"
    items = list(defaults._iter_ex(resolve=False))
    if any(not isinstance(item, str) and not (isinstance(item, DictConfig) and len(item) == 1) for item in items):
        return "an item is neither a name nor `group: option`"
    if own_name in items:
        return f"the file names itself; to add to the built-in {own_name}, give the file another name"
    return ""


def _broken_reference(path: Path) -> str:
    """Return the first text in a file that OmegaConf does not accept."""
    for text in scalars(path.read_text(encoding="utf-8")):
        try:
            OmegaConf.create([text])
        except GrammarParseError:
            return text
    return ""


def _format_location(path: Path, **searched: str) -> str:
    return f"{display_path(path)}:{line_of(path.read_text(encoding='utf-8'), **searched)}"


def use_checked_files() -> None:
    """Let Hydra read config files with `FileConfigSource`."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
