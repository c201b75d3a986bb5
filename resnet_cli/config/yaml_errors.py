"""What is wrong in a YAML file, in one line that names the file and the line in it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

# What PyYAML raises on a text that is not plain data: ValueError on an impossible date or number, LookupError and
# AttributeError on a value that does not have the type of its tag.
YAML_ERRORS = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
# Patterns of PyYAML's messages on common mistakes, and clearer ones; `{0}` is what the pattern captures.
EXPLANATIONS = (
    (r"found character '\\t' that cannot start", "a tab; YAML is indented with spaces"),
    (r"found character '(.)' that cannot start", "text that begins with {0} is written in quotes"),
    (r"mapping values are not allowed here", "no key can be here: a wrong indent, or text with a colon without quotes"),
    (r"found duplicate key (.+)", "the key {0} occurs twice"),
    (r"found unhashable key", "a list or mapping cannot be a key; text with brackets is written in quotes"),
    (r"found undefined alias '(.+)'", "the alias *{0} has no anchor &{0} before it"),
    (r"found duplicate anchor '(.+?)'", "the anchor &{0} occurs twice"),
    (r"could not determine a constructor for the tag '(?:tag:yaml\.org,2002:)?(.+)'", "the tag {0} is not known"),
    (r"but found another document", "a second document; one file holds one"),
    (r"but found '<document start>'", "a second document; one file holds one"),
)  # fmt: skip
# What PyYAML was reading when it met a mistake, which it reports at a later position.
UNFINISHED = (
    ("flow sequence", "a [ that is not closed, or a comma that is missing"),
    ("flow mapping", "a { that is not closed, or a comma that is missing"),
    ("quoted scalar", "a quote that is not closed"),
    ("scanning a simple key", "a key without a colon and a space after it"),
    ("block mapping", "a wrong indent: this line belongs to no key above it"),
    ("block collection", "a wrong indent: this line belongs to no list above it"),
)
REPORTED_AT_START = ("flow sequence", "flow mapping", "quoted scalar", "scanning a simple key")


def describe_yaml_error(error: Exception, path: str | os.PathLike[str], data: bytes, *, expected: str = "") -> str:
    """Return `FILE:LINE: what is wrong there`.

    Args:
        error: What reading the file raised: an error of PyYAML, or of decoding.
        path: The file; inside the working folder it is shown relative to that.
        data: Its content.
        expected: What the file should be, which comes before the reason.
    """
    line, reason = _place_and_reason(error, data)
    return f"{display_path(path)}{f':{line}' if line else ''}: {f'{expected}: ' if expected else ''}{reason}"


def display_path(path: str | os.PathLike[str]) -> str:
    """Return a path as the user types it: relative to the working folder, if it is inside."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def line_of(text: str, *, key: str = "", value: str = "") -> int:
    """Return the line of a top-level key, or of the first scalar `value`, in a valid YAML text; else 1."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    nodes = [name for name, _ in pairs if name.value == key] if key else _scalars(root)
    return next((int(node.start_mark.line) + 1 for node in nodes if key or node.value == value), 1)


def scalars(text: str) -> list[str]:
    """Return the texts of all keys and values in a valid YAML text, in order."""
    return [str(node.value) for node in _scalars(yaml.compose(text, Loader=yaml.SafeLoader))]


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                yield from _scalars(part)


def _place_and_reason(error: Exception, data: bytes) -> tuple[int | None, str]:
    error = _python_parser_error(data) or error  # one wording: libyaml words errors differently
    if isinstance(error, UnicodeDecodeError):
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        return line, f"the byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        found = error.character if isinstance(error.character, int) else ord(error.character[:1])
        line = data.decode("utf-8", "replace")[: error.position].count("\n") + 1
        return line, f"the character U+{found:04X} is not allowed in YAML"
    if isinstance(error, yaml.MarkedYAMLError):
        return _explain_marked_error(error)
    if isinstance(error, RecursionError):
        return None, "nested too deep"
    if isinstance(error, LookupError | AttributeError):
        return None, "a value is not of the type that its tag names, such as !!int"
    return None, " ".join(str(error).split())[:200]


def _python_parser_error(data: bytes) -> Exception | None:
    try:
        yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        return error
    return None


def _explain_marked_error(error: yaml.MarkedYAMLError) -> tuple[int | None, str]:
    problem, context = str(error.problem or ""), str(error.context or "")
    line, begin = (mark.line + 1 if mark else None for mark in (error.problem_mark, error.context_mark))
    for pattern, explanation in EXPLANATIONS:
        found = re.search(pattern, problem) or re.search(pattern, context)
        if found:
            return line, explanation.format(*found.groups())
    for words, explanation in UNFINISHED:
        if words in context:
            return (begin if words in REPORTED_AT_START else None) or line, explanation
    return line or begin, " ".join(f"{context} {problem}".split()) or "invalid YAML"
