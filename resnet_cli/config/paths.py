"""Where the package's own config files are."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout
