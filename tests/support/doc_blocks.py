"""The blocks of a page of documentation, what each holds, and the commands in it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/[!_]*/*.md")), *sorted(ROOT.glob("docs/*.md"))]
REASON = "network|GPU|cluster|minutes|photographs"
MARK = re.compile(rf"<!-- not run: ({REASON})(, ({REASON}))*(; [^>]+)? -->")
SHELL = re.compile(
    r"^(?:\$ )?(resnet-\w+|pip|git|python|ray|srun|torchrun|sbatch|ssh|find|cd|nox|eval|bash|#!/bin/bash)(?= |$)"
)
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Args:
        page: Path of the page below the root of the repository.
        line: The line at which it begins.
        kind: `shell`, `python`, `yaml`, `directive` (of MyST) or `text`: what is printed, a tree, a drawing.
        text: Its lines, without their indentation.
        reason: Why it is not run, as the comment above it says; None for a block that is.
    """

    page: str
    line: int
    kind: str
    text: str
    reason: str | None = None


@dataclass(frozen=True)
class Command:
    """A line of a shell: a program, its arguments, what it reads, where its output goes, and what is shown of it."""

    program: str
    arguments: tuple[str, ...]
    reads: str = ""  # the command whose output it reads
    output: str = ""  # the file that its output goes to
    shown: str | None = None  # the lines below it that show what it prints


def blocks_of(path: Path) -> list[Block]:
    """Return the code blocks of a page in their order."""
    found, reason = [], None
    for token in PARSER.parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block" and (mark := re.search(r"<!-- not run: (.*) -->", token.content)):
            reason = mark[1]
        elif token.type in ("fence", "code_block"):
            found.append(
                Block(str(path.relative_to(ROOT)), token.map[0] + 1, kind_of(token), token.content.rstrip(), reason)
            )
            reason = None
        elif token.nesting == 0:
            reason = None
    return found


def kind_of(token: Token) -> str:
    """Return what a code block holds: by its language, or else by how its lines begin."""
    language = token.info.strip()
    if language.startswith("{"):
        return "directive"
    if language:
        return {"bash": "shell", "console": "shell"}.get(language, language)
    lines = token.content.splitlines()
    if any(re.match(r"(from \w+(\.\w+)* import |import \w)", line) for line in lines):
        return "python"
    return "shell" if SHELL.match(lines[0]) else "text"


def inline_commands(path: Path) -> list[Command]:
    """Return the commands in backticks of a page's tables and sentences, but for those that name a flag or a part."""
    spans = [
        child.content
        for token in PARSER.parse(path.read_text(encoding="utf-8"))
        for child in token.children or []
        if child.type == "code_inline" and re.match(r"resnet-\w+ ", child.content)
    ]
    return [command for span in spans if "..." not in span for command in commands_of(span)]


def commands_of(text: str) -> list[Command]:
    """Return the commands of a shell block; with a prompt, lines without one show what is printed."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    if not lines[0].startswith("$ "):
        return [command for line in lines for command in parsed(line)]
    (command,) = parsed(lines[0][2:])
    return [Command(command.program, command.arguments, shown="\n".join(lines[1:]))]


def parsed(line: str) -> Iterator[Command]:
    """Yield the commands of a line; words behind four spaces explain it."""
    line = re.split(r" {4,}(?=[\w#])", line)[0]
    for part in line.split(" && "):
        before, pipe, behind = part.rpartition(" | ")
        words = shlex.split(behind.partition(" > ")[0] if pipe else part.partition(" > ")[0], comments=True)
        if words:
            yield Command(words[0], tuple(words[1:]), reads=before, output=part.partition(" > ")[2].split(" ")[0])
