"""Problems of a config as data, and the one place where they become lines for the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from resnet_cli.config.run_config import SEED_PARTS
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError

Kind = Literal[
    "unknown key", "argument missing", "not allowed", "value missing",
    "not a node", "not a dotted name", "not found", "import failed",
    "logger without name", "logger not selected", "changed since the run was saved", "untrusted",
    "wrong kind of class", "size arguments missing",
    "untrusted teacher", "no target", "experiment without package", "empty", "conflicting keys",
    "quoted value",
    "unknown key with advice",
]  # fmt: skip

TEMPLATES: dict[Kind, str] = {
    "unknown key": "unknown key{suggestion}{allowed_keys}",
    "unknown key with advice": "unknown key; {reason}",
    "argument missing": "missing; set {key}={allowed}",
    "not allowed": "{given} is not allowed; it takes {allowed}{suggestion}",
    "quoted value": 'the text "{given}" is not allowed; it takes {allowed}: leave out the quotes, or read an '
    "environment variable NAME with '{key}=${{oc.decode:${{oc.env:NAME}}}}'",
    "empty": "is empty; it takes {allowed}",
    "value missing": "a value must be given ({key}=...)",
    "not a node": "{given} is not a node with _target_; choose an option of the group, {key}=..., or in the "
    "defaults list of a file, override /{key}: ...",
    "not a dotted name": "{given} is not the dotted name of a class or function",
    "not found": "{reason}{suggestion}",
    "no target": "has no _target_; a file of this group names the class or function to build",
    "experiment without package": "sets top-level keys; start the experiment's file with the line "
    "`# @package _global_`",
    "wrong kind of class": "{given} is not {allowed}",
    "size arguments missing": "{given} accepts none of {allowed}, unlike a {reason}{suggestion_to_set}",
    "import failed": "importing {given} failed: {reason}",
    "logger without name": "needs a name for each logger; start the group file with the line "
    "`# @package logger.<name>`",
    "logger not selected": "is not selected; choose it with logger={given}",
    "conflicting keys": "{given} cannot be combined with {allowed}={stored}, which determines it; give only one "
    "of them",
    "changed since the run was saved": "{stored} -> {given}: changed since the run was saved",
    "untrusted teacher": "its config names {given}, which is not part of resnet-cli, torch.nn or "
    "torchvision.models; if you trust it, pass trust=true",
    "untrusted": "{given} is named only in a stored config and is not among the parts of resnet-cli, torch.nn, "
    "torch.optim, torchvision.models and torchvision.transforms that this key allows; if you trust it, pass "
    "{key}={value} or trust=true (--trust of resnet-eval, resnet-predict and resnet-export)",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a config; `str` renders the line that the user sees.

    Args:
        key: The full key, such as `model.depth`.
        kind: What is wrong.
        given: The value that the user set, where there is one.
        allowed: What is allowed instead, in words, or the allowed keys.
        suggestion: The nearest name that would be right, if there is one.
        reason: The error behind the problem, where there is one.
        stored: The value in the checkpoint that is resumed, where there is one.
    """

    key: str
    kind: Kind
    given: Any = None
    allowed: str = ""
    suggestion: str = ""
    reason: str = ""
    stored: Any = None

    def __str__(self) -> str:
        key = as_typed(self.key)
        return f"{key}: " + TEMPLATES[self.kind].format(
            key=key,
            given=format_value(self.given),
            value=self.given,
            allowed=self.allowed,
            allowed_keys=f" (allowed: {self.allowed})" if self.allowed and not self.suggestion else "",
            suggestion=f"; did you mean {self.suggestion}?" if self.suggestion else "",
            reason=self.reason,
            suggestion_to_set=f"; if it is one, set {self.suggestion}" if self.suggestion else "",
            stored=format_value(self.stored),
        )


@contextmanager
def naming(key: str, value: str) -> Iterator[None]:
    """Begin each problem inside the block with a key and its value: a run or a file that the user named.

    Raises:
        InputError: The block raised one.
    """
    try:
        yield
    except InputError as error:
        raise InputError(*(_with_key(key, value, problem) for problem in error.details)) from error


def _with_key(key: str, value: str, problem: object) -> object:
    if isinstance(problem, Problem) and problem.kind == "untrusted":  # in the stored config of the run
        return replace(problem, key=f"{key}={value}", kind="untrusted teacher")
    text = str(problem)
    if text.startswith(f"{value}: "):  # first, since a folder may have the name of the key
        return f"{key}={text}"
    return problem if text.startswith((f"{key}=", f"{key}:", f"{key}.")) else f"{key}={value}: {text}"


def as_typed(key: str) -> str:
    """Return a key as it is typed on the command line: `seed_init` in a file is `seed.init` there."""
    part = key.removeprefix("seed_")
    return f"seed.{part}" if part != key and part in SEED_PARTS else key


def escape_control_characters(text: str) -> str:
    """Escape the control characters of a text: names of folders and configs come from elsewhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_lines(text: str) -> str:
    """Escape the control characters of a text, except the newlines between its lines."""
    return "\n".join(map(escape_control_characters, text.split("\n")))
