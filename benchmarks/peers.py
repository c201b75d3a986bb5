"""A separate environment for the libraries that the program is compared with, which are not its dependencies.

It includes the running interpreter's packages, such as torch, through a .pth file, so that only missing packages are
installed and all contenders use the same torch.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from measuring import REPOSITORY, SkippedError

PLACE = REPOSITORY / "outputs" / "peers"
PACKAGES = ("lightning", "timm")


def interpreter(place: Path = PLACE) -> str:
    """Return the Python of that environment; create it if it is missing.

    Raises:
        SkippedError: the packages could not be installed.
    """
    python, done = place / "bin" / "python", place / "installed"
    if done.is_file() and python.exists():
        return str(python)
    venv.create(place, with_pip=True, clear=True)
    [own] = place.glob("lib/python*/site-packages")
    (own / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    print(f"installing {', '.join(PACKAGES)} into {place}", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    installed = subprocess.run(command, env=environment, capture_output=True, text=True)
    if installed.returncode:
        raise SkippedError(f"pip: {installed.stderr.strip().splitlines()[-1] if installed.stderr else 'failed'}")
    done.touch()
    return str(python)
