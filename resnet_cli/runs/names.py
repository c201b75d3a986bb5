"""Names of run folders, and commands that the user can type again."""

import hashlib
import re
import secrets
import shlex
import string
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath

from resnet_cli.files import encode_text

NO_TEXT = re.compile(  # what Hydra parses as a number, a boolean or null
    r"[+-]?((\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d[\d_]*)?|inf|nan)|true|false|null", re.IGNORECASE
)
DEVICES = r"CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]"  # with any extension


def format_command(program: str, arguments: Sequence[str]) -> str:
    """Return a command line as the user can type it, quoted for the shell: on Windows, with double quotes."""
    words = [program, *arguments]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def resume_command(folder: PurePath, *overrides: str) -> str:
    """Return the command that resumes a run, its path quoted for Hydra and the shell, with `/` on Windows too."""
    return format_command("resnet-train", [f"resume={quote_override(folder.as_posix())}", *overrides])


def quote_override(text: str) -> str:
    """Return a text as the value of an override, in quotes where Hydra would parse it as something else.

    Inside quotes a backslash is special only before a quote, and before `${`, which would be a reference.
    """
    if re.fullmatch(r"[A-Za-z0-9_./+-]+", text) and not NO_TEXT.fullmatch(text):
        return text
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def folder_name(text: str) -> str:
    """Return a text as a folder's name, or names with `/` between them, that Windows can have too.

    Windows has no `<>:"|?*` in names, no dots or spaces at their ends, and keeps the names of devices, such as CON.
    """
    parts = re.sub(r'[<>:"|?*\\\x00-\x1f]', "_", text).split("/")
    return "/".join(f"_{part}" if _is_device(part) else re.sub(r"[. ]+$", "_", part) for part in parts)


def _is_device(name: str) -> bool:
    return re.fullmatch(DEVICES, name.split(".")[0].rstrip(" "), re.IGNORECASE) is not None


def name_beside(folder: Path) -> Path:
    """Return a folder of another name beside one that is taken."""
    return folder.with_name(f"{folder.name}-{random_letters()}")


def random_letters() -> str:
    """Return four letters that make the folder names of runs of the same second differ."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))


def job_folder_name(overrides: Sequence[str], limit: int = 100) -> str:
    """Return the folder name of a sweep's job: its overrides, made safe for every file system.

    A name that had to be shortened or changed ends in a hash. It depends on the overrides alone: the same job of
    another sweep has the same name.

    Args:
        overrides: `key=value`.
        limit: The most characters.
    """
    words = [override.lstrip("+~") for override in overrides]
    text = ",".join(words) or "defaults"
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text)
    if safe == text and len(safe) <= limit and not safe.endswith(".") and not _is_device(safe):
        return safe
    digest = hashlib.sha256(encode_text(text)).hexdigest()[:8]
    if len(safe) > limit:  # `optimizer.lr=0.1` as `lr=0.1`, so that more of them fit
        short = ",".join(re.sub(r"^[\w.]*\.(?=\w+=)", "", word) for word in words)
        safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", short)
    start = "_" if _is_device(safe) else ""
    return f"{start}{safe[: limit - 9 - len(start)]}-{digest}"
