"""Names of run folders, and commands that the user can type again."""

import hashlib
import re
import secrets
import shlex
import string
from collections.abc import Sequence
from pathlib import Path

from resnet_cli.files import encode_text


def format_command(program: str, arguments: Sequence[str]) -> str:
    """Return a command line as the user can type it, quoted for the shell."""
    return shlex.join([program, *arguments])


def resume_command(folder: Path, *overrides: str) -> str:
    """Return the command that resumes a run, with its path quoted for Hydra and the shell where necessary."""
    return format_command("resnet-train", [f"resume={quote_override(str(folder))}", *overrides])


def quote_override(text: str) -> str:
    """Return a text as the value of an override, in quotes where Hydra would parse it as something else.

    Inside quotes a backslash is special only before a quote, and before `${`, which would be a reference.
    """
    if re.fullmatch(r"[A-Za-z0-9_./+-]+", text):
        return text
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


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
    if safe == text and len(safe) <= limit and not safe.endswith("."):
        return safe
    digest = hashlib.sha256(encode_text(text)).hexdigest()[:8]
    if len(safe) > limit:  # `optimizer.lr=0.1` as `lr=0.1`, so that more of them fit
        short = ",".join(re.sub(r"^[\w.]*\.(?=\w+=)", "", word) for word in words)
        safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", short)
    return f"{safe[: limit - 9]}-{digest}"
