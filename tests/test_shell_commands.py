"""Commands that users copy, from pages, config files, docstrings and help texts, are commands for any POSIX shell."""

import re
import shutil
import subprocess

import pytest

from tests.support.doc_blocks import PAGES, ROOT, blocks_of

BASH = shutil.which("bash")
FOLDERS = {"conf": "yaml", "resnet_cli": "py", "examples": "*", "benchmarks": "py", "docs/_ext": "py"}
PROGRAMS = (
    r"(?:resnet-(?:train|eval|predict|report|export|info|data)|pip install|python -m resnet_cli|OMP_NUM_THREADS=)"
)
OWN_LINE = re.compile(rf"^[#\s]*(?:\$ )?((?:\w+=\S+ )?{PROGRAMS} .*)$")
IN_BACKTICKS = re.compile(rf"(?<!`)`({PROGRAMS} [^`]+)`(?!`)")
QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""")
OPERATOR = re.compile(r" (?:&&|\||<|>) ")
PATTERN = re.compile(r"^(?:--\S+=)?[\w./-]*(?:\*\*?[\w./-]*)+$")  # a word of paths that the shell finds: outputs/*/*


def lines_of_code(text):
    """Yield the commands that stand on lines of their own, and those in backticks."""
    joined = re.sub(r" ?\\\\?\n[#\s]*", " ", text)
    for line in joined.splitlines():
        if (found := OWN_LINE.match(line)) and " [" not in found[1]:  # brackets mark what is optional
            yield without_explanation(found[1])
        yield from (found for found in IN_BACKTICKS.findall(line) if "..." not in found)


def without_explanation(line):
    """Return a line without the words that explain it, behind several spaces or a comment sign."""
    return re.split(r" {3,}(?=\S)| +# ", line)[0].rstrip()


def all_commands():
    """Return the commands of every place by place and command."""
    found = {}
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for block in blocks_of(page):
            if block.kind == "shell":
                for line in re.sub(r" *\\\n\s*", " ", block.text).splitlines():
                    if (
                        line
                        and not line.startswith("#!")
                        and not (block.text.startswith("$ ") and not line.startswith("$ "))
                    ):
                        found[name, without_explanation(line.removeprefix("$ "))] = None
        found |= dict.fromkeys((name, each) for each in lines_of_code(page.read_text(encoding="utf-8")))
    for folder, ending in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob(f"*.{ending}")):
            if path.is_file() and path.suffix in (".yaml", ".py", ".md", ".sh"):
                text = path.read_text(encoding="utf-8")
                found |= dict.fromkeys((str(path.relative_to(ROOT)), each) for each in lines_of_code(text))
    return [*found]


COMMANDS = all_commands()


def special_characters(command):
    """Return the unquoted characters of a command that a shell expands or refuses, but for patterns of paths."""
    bare = OPERATOR.sub(" ", QUOTED.sub("x", command))
    words = [word for word in bare.split() if not PATTERN.match(word)]
    return sorted(set(re.findall(r"[][(){}*?<>|&;`$!]", " ".join(words))))


def test_commands_are_found_everywhere():
    places = {place for place, _ in COMMANDS}
    assert len(COMMANDS) > 300
    assert {"README.md", "docs/scaling.md", "conf/train.yaml", "conf/hydra/launcher/ray.yaml"} <= places
    assert {"resnet_cli/commands/report.py", "resnet_cli/commands/info.py"} <= places


@pytest.mark.parametrize("place", sorted({place for place, _ in COMMANDS}))
def test_no_shell_expands_or_refuses_a_command(place):
    """Zsh refuses brackets, bash refuses parentheses and expands braces: all of them need quotes."""
    for command in (command for where, command in COMMANDS if where == place):
        assert not special_characters(command), command


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_parses_every_command():
    done = subprocess.run(
        [BASH, "-c", 'for each; do bash -n -c "$each" || echo "$each"; done', "bash", *(each for _, each in COMMANDS)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("command", "characters"),
    [
        ("resnet-train -m seed=range(8)", ["(", ")"]),
        ("resnet-train data.classes=[0,1]", ["[", "]"]),
        ("resnet-train 'seed=range(8)' \"a=[b]\"", []),
        ("resnet-predict RUN photos/*.jpg > out.csv", []),
        ("resnet-predict RUN 'photos/**/*.jpg' | head", []),
        ("resnet-train trainer={epochs: 1}", ["{", "}"]),
    ],
)
def test_unquoted_characters_are_found(command, characters):
    assert special_characters(command) == characters
