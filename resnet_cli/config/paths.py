"""Where config files are, the package's own and the user's, and which keys of a config are paths."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_cli.errors import InputError

PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout

PATH_NAMES = re.compile(
    r"(\w+_)?(root|cache|path|file|filename|folder|dir|directory|csv|shards)|splits|init_from|teacher|resume|reproduce"
)
COUNTED = ("trainer.shards",)  # a number, although the name looks like that of a path


def is_built_in(path: Path) -> bool:
    """Return whether a config file is one of the package's."""
    return path.resolve().is_relative_to(CONFIG_FOLDER.resolve())


def is_path_key(key: str) -> bool:
    """Return whether a key takes a path, as its name says: `data.root`, `data.splits`, `data.labels_csv`."""
    return key not in COUNTED and PATH_NAMES.fullmatch(key.rpartition(".")[2]) is not None


def config_folders(options: Sequence[str]) -> list[Path]:
    """Return the folders of config groups, in the order in which they are searched.

    They are the folder of --config-dir, `./conf`, and the package's own, which may be one of the others too.

    Args:
        options: The command line, which may have --config-dir.

    Raises:
        InputError: --config-dir is an empty text.
    """
    own = [folder.absolute() for folder in (*map(Path, config_dirs(options)), Path("conf")) if folder.is_dir()]
    return [*(folder for folder in dict.fromkeys(own) if folder.resolve() != CONFIG_FOLDER.resolve()), CONFIG_FOLDER]


def config_dir(options: Sequence[str]) -> str | None:
    """Return the folder of --config-dir, the first if there are several; None without it."""
    return next(config_dirs(options), None)


def config_dirs(options: Sequence[str]) -> Iterator[str]:
    """Yield the folders of --config-dir.

    Raises:
        InputError: one is an empty text.
    """
    for i, argument in enumerate(options):
        option, equals, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            text = value if equals else "".join(options[i + 1 : i + 2])
            if not text.strip():
                raise InputError("--config-dir: is empty; give a folder")
            yield text
