"""Every command with its flags as Markdown, from the parsers that read them."""

import argparse
import contextlib
import importlib
import io
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from hydra._internal.utils import get_args_parser

from resnet_cli.commands.train.main import run as train
from resnet_cli.hydra_app.argument_parser import build_parser

ROOT = Path(__file__).parents[2]
# Arguments of Hydra that mean something else here; None leaves one out.
MEANINGS = {
    "--help": "Examples, groups and everyday keys",
    "--hydra-help": "Flags and config folders",
    "--version": "Print the version of resnet-cli",
    "--shell-completion": "Completion for a shell: `install=bash`, `install=zsh` or `install=fish` prints a script, "
    "`uninstall=...` removes it; see [Compose a config](../howto/groups.md)",
    "--experimental-rerun": None,
    "overrides": "`group=option` and `key=value`",
}


def command_pages() -> str:
    """Return a section for each command of the project file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines: list[str] = []
    for name, place in project["scripts"].items():
        module = importlib.import_module(place.partition(":")[0])
        lines += _train(name) if name == "resnet-train" else _command(name, module._parser())
    return "\n".join(lines)


def _train(name: str) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        train(["--help"])
    return [
        f"## {name}", "",
        "Takes groups and keys ([every key](keys.md), [every option](options.md)) and these flags of Hydra's.", "",
        *_flags(build_parser(get_args_parser), MEANINGS), "",
        "`resnet-train --help` prints:", "", "```text", printed.getvalue().rstrip(), "```", "",
    ]  # fmt: skip


def _command(name: str, parser: argparse.ArgumentParser) -> list[str]:
    text = [line.rstrip() for line in (parser.description or "").splitlines()]
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    examples = (parser.epilog or "").rstrip()
    return [
        f"## {name}", "", f"```text\n{usage}\n```", "", *text, "", *_flags(parser), "", f"```text\n{examples}\n```", "",
    ]  # fmt: skip


def _flags(parser: argparse.ArgumentParser, meanings: Mapping[str, str | None] = MappingProxyType({})) -> Iterator[str]:
    yield "| argument | meaning | default |"
    yield "|---|---|---|"
    for action in parser._actions:
        own = next((flag for flag in action.option_strings or [action.dest] if flag in meanings), "")
        if action.help == argparse.SUPPRESS or (own and meanings[own] is None):
            continue
        value = parser._get_formatter()._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
        names = ", ".join(f"`{flag} {value}`".replace(" `", "`") for flag in action.option_strings) or f"`{value}`"
        meaning = str(action.help or "") % {"default": action.default, "prog": parser.prog, "metavar": value}
        meaning = meanings.get(own) or meaning
        if action.choices:
            meaning += f" ({', '.join(f'`{choice}`' for choice in action.choices)})"
        default = action.default
        shown = "" if default in (None, False, argparse.SUPPRESS, []) else f"`{default}`"
        yield f"| {names.replace('|', chr(92) + '|')} | {_cell(meaning)} | {shown} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
