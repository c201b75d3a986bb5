"""Where the package's own config files are, and which keys of a config are paths."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout

PATH_NAMES = re.compile(
    r"(\w+_)?(root|cache|path|file|filename|folder|dir|directory|csv|shards)|splits|init_from|teacher|resume|reproduce"
)
COUNTED = ("trainer.shards",)  # a number, whose name says otherwise


def is_path_key(key: str) -> bool:
    """Return whether a key takes a path, as its name says: `data.root`, `data.splits`, `data.labels_csv`."""
    return key not in COUNTED and PATH_NAMES.fullmatch(key.rpartition(".")[2]) is not None
