"""Hints below errors on a terminal: the command to type next, where one is known."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

RENAMED = re.compile(r"^(?P<old>[\w./]+): unknown key; did you mean (?P<new>[\w./]+)\?$")
CORRECTED = re.compile(r"^(?P<key>[\w./]+): (?P<old>\S+) is not allowed; .*; did you mean (?P<new>\S+)\?$")
OPTION = re.compile(r"^(?P<key>[\w/]+)=(?P<old>[\w./-]+): no such option; did you mean (?P<new>[\w./-]+)\?")
MISSING = re.compile(r"^(?P<key>[\w.]+): a value must be given")
NO_OPTION = re.compile(r"^(?P<group>[\w/]+)=[^:]*: no such option")
KEYS_OF_GIVEN_LR = ("resume", "reproduce", "find")  # of runs that keep their learning rate


def command_name(argv: Sequence[str]) -> str:
    """Return the name of the command of a process: `python -m resnet_cli` is `resnet-train`."""
    path = Path(argv[0])
    if path.suffix != ".py":
        return path.name
    return f"resnet-{path.stem}" if path.parent.name == "commands" else "resnet-train"


def hint_for(problems: Sequence[str], command: str, arguments: Sequence[str]) -> str:
    """Return a command to try: the typed one with every mistake corrected, or one that lists options.

    Args:
        problems: The lines of the errors.
        command: The name of the program.
        arguments: The arguments as typed.

    Returns:
        The command; empty if none would help.
    """
    corrected_arguments = list(arguments)
    for problem in problems:
        changed = _correct_mistake(problem, corrected_arguments)
        if changed == corrected_arguments:
            group = NO_OPTION.match(problem)
            return f"resnet-info --list {group['group']}" if group else ""
        corrected_arguments = changed
    return shlex.join([command, *corrected_arguments])


def hint_after_divergence(command: str, arguments: Sequence[str]) -> str:
    """Return the command that finds a learning rate for a diverged run; empty for runs that must keep theirs."""
    keys = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    if command != "resnet-train" or "-m" in keys or "--multirun" in keys or set(KEYS_OF_GIVEN_LR) & set(keys):
        return ""
    return shlex.join([command, *arguments, "find=lr"])


def _correct_mistake(problem: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with one mistake corrected; unchanged if no correction is known."""
    renamed, option = RENAMED.match(problem), OPTION.match(problem)
    corrected, missing = CORRECTED.match(problem), MISSING.match(problem)
    if missing:
        return [*arguments, f"{missing['key']}=..."]
    result = []
    for argument in arguments:
        marks = re.match(r"[+~]*", argument)
        start = marks[0] if marks else ""
        key, equals, value = argument[len(start) :].partition("=")
        if renamed and key == renamed["old"]:
            argument = f"{'' if '.' in renamed['new'] else start}{renamed['new']}{equals}{value}".lstrip("+")
        found = corrected or option
        if found and key == found["key"] and value == found["old"]:
            argument = f"{start}{key}={found['new']}"
        result.append(argument)
    return result
