"""Shell completion: the scripts that bash, zsh and fish load, and the completions that they query.

`resnet-train -sc install=SHELL` prints a script for all commands. The script calls `resnet-train -sc query=SHELL` with
the command line in COMP_LINE. Hydra has both options too, but takes seconds to answer and does not complete values.
Neither Hydra nor torch is imported here.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_cli.commands.flag_names import COMPANIONS, Flag, companion_flags
from resnet_cli.config.completion import Candidate, Completer, complete_path
from resnet_cli.config.presets import SENTENCE_END

SHELLS = ("bash", "zsh", "fish")
OPTION = ("-sc", "--shell-completion")
COMMANDS = ("resnet-train", *(f"resnet-{name}" for name in COMPANIONS))
TAKE_SETTINGS = ("resnet-train", "resnet-info", "resnet-data")
# Options of Hydra that are completed, with the choices of those that have some.
TRAIN_FLAGS = {
    "--help": (), "--hydra-help": (), "--version": (), "--multirun": (), "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"), "--package": (), "--resolve": (),
    "--config-dir": (), "--shell-completion": (),
}  # fmt: skip
WITH_FOLDER = ("--config-dir", "-cd")

# In the scripts, a word that ends in one of `=./,` continues, so that no space is appended to it.
BASH = """\
_resnet_cli() {{
  local line
  COMPREPLY=()
  while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
    COMP_LINE="${{COMP_LINE:0:COMP_POINT}}" RESNET_CLI_BREAKS="$COMP_WORDBREAKS" "${{1%resnet-*}}resnet-train" \\
      -sc query=bash 2>/dev/null)
  case "${{COMPREPLY[0]}}" in *[=./,]) compopt -o nospace ;; esac
}}
complete -F _resnet_cli {commands}
"""
ZSH = """\
_resnet_cli() {{
  local line
  local -a words_open words_done shown_open shown_done
  while IFS= read -r line; do
    if [[ "${{line%%$'\\t'*}}" == *[=./,] ]]; then
      words_open+=("${{line%%$'\\t'*}}"); shown_open+=("${{line/$'\\t'/  }}")
    else
      words_done+=("${{line%%$'\\t'*}}"); shown_done+=("${{line/$'\\t'/  }}")
    fi
  done < <(COMP_LINE="${{BUFFER[1,CURSOR]}}" "${{words[1]%resnet-*}}resnet-train" -sc query=zsh 2>/dev/null)
  compadd -Q -l -S '' -d shown_open -a words_open
  compadd -Q -l -d shown_done -a words_done
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
compdef _resnet_cli {commands}
"""
FISH = """\
function __resnet_cli
    set -l words (commandline -opc)
    set -l program (string replace -r 'resnet-[a-z]+$' resnet-train -- $words[1])
    COMP_LINE=(commandline -cp) $program -sc query=fish 2>/dev/null
end
for name in {commands}
    complete -c $name -e
    complete -c $name -f -a '(__resnet_cli)'
end
"""
REMOVE = {
    "bash": "complete -r {commands}\n",
    "zsh": "compdef -d {commands}\n",
    "fish": "for name in {commands}\n    complete -c $name -e\nend\n",
}


def answer(arguments: Sequence[str]) -> str | None:
    """Return what `-sc COMMAND=SHELL` prints; None for other arguments, which Hydra handles."""
    if len(arguments) != 2 or arguments[0] not in OPTION:
        return None
    command, _, shell = arguments[1].partition("=")
    if shell not in SHELLS:
        return None
    if command == "install":
        return {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(commands=" ".join(COMMANDS))
    if command == "uninstall":
        return REMOVE[shell].format(commands=" ".join(COMMANDS))
    if command != "query" or "COMP_LINE" not in os.environ:
        return None
    candidates = complete_line(os.environ["COMP_LINE"])
    if shell == "bash":
        breaks = os.environ.get("RESNET_CLI_BREAKS", "=:")
        word = os.environ["COMP_LINE"].rpartition(" ")[2]
        start = max(word.rfind(mark) for mark in breaks) + 1 if breaks else 0  # bash replaces what follows the last one
        return "".join(f"{item.text[start:]}\n" for item in candidates)
    return "".join(f"{item.text}\t{SENTENCE_END.split(item.help, maxsplit=1)[0]}\n" for item in candidates)


def complete_line(line: str) -> list[Candidate]:
    """Return the completions of the last word of a command line."""
    *words, word = line.split(" ") if line else [""]
    command, *words = [item for item in words if item] or [COMMANDS[0]]
    command = Path(command).name
    flags = _flags(command)
    before = flags.get(words[-1]) if words else None
    if before is not None and before.takes_value:
        found = _values_of_flag(before, Completer(words)) or complete_path(word)
        return [item for item in found if item.text.startswith(word)]
    if word.startswith("-"):
        return [Candidate(flag.name, flag.help) for flag in flags.values() if flag.name.startswith(word)]
    settings = Completer(words).complete(word) if command in TAKE_SETTINGS else []
    is_path = "=" not in word or "/" in word.partition("=")[0]  # folders of sweep jobs have `=` in their names
    paths = complete_path(word) if command != "resnet-train" and is_path else []
    return [*settings, *paths]


def _values_of_flag(flag: Flag, completer: Completer) -> list[Candidate]:
    """Return the values that a flag takes, where they are known: the choices, presets or groups."""
    presets = completer.presets
    if flag.name in ("--show", "--copy"):
        return [Candidate(preset.override, preset.summary) for preset in presets]
    if flag.name == "--list":
        return [Candidate(group) for group in dict.fromkeys(preset.group for preset in presets)]
    return [Candidate(choice) for choice in flag.choices]


def _flags(command: str) -> dict[str, Flag]:
    if command in COMMANDS[1:]:
        return companion_flags(command.removeprefix("resnet-"))
    return {
        name: Flag(name, bool(choices) or name in WITH_FOLDER, choices, "") for name, choices in TRAIN_FLAGS.items()
    }


def print_answer(text: str) -> int:
    """Print the completions and return the exit status; a closed pipe is not an error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from resnet_cli.streams import discard_output, has_no_reader

        if not has_no_reader(error):
            raise
        discard_output(sys.stdout)
    return 0
