"""Names of run folders, and commands that the user can type again."""

import hashlib
import re
import secrets
import shlex
import string
from collections.abc import Sequence
from pathlib import Path


def format_command(program: str, arguments: Sequence[str]) -> str:
    """The command as the user can type it again."""
    return shlex.join([program, *arguments])


def resume_command(folder: Path, *overrides: str) -> str:
    """The command that goes on with a run, its path quoted for Hydra and then for the shell where it has to be."""
    return format_command("resnet-train", [f"resume={quote_override(str(folder))}", *overrides])


def quote_override(text: str) -> str:
    """The text as the value of an override, in quotes where Hydra would read something else into it.

    Inside quotes a backslash is special only before a quote, and before `${`, which would be a reference.
    """
    if re.fullmatch(r"[A-Za-z0-9_./+-]+", text):
        return text
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def random_letters() -> str:
    """Four letters that keep runs of the same second apart."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))


def job_folder_name(overrides: Sequence[str], limit: int = 100) -> str:
    """A sweep job's folder name: its overrides, safe on every file system, ended by a hash when cut or changed.

    It depends on nothing else: the same job of another sweep has the same folder.
    """
    words = [override.lstrip("+~") for override in overrides]
    text = ",".join(words) or "defaults"
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text)
    if safe == text and len(safe) <= limit and not safe.endswith("."):
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    if len(safe) > limit:  # `optimizer.lr=0.1` as `lr=0.1`: more of them can be read
        short = ",".join(re.sub(r"^[\w.]*\.(?=\w+=)", "", word) for word in words)
        safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", short)
    return f"{safe[: limit - 9]}-{digest}"
