"""Patterns that name many files."""

from pathlib import Path

from resnet_cli.config.path_patterns import expand_braces, has_files


def test_braces_are_those_of_a_shell():
    assert list(expand_braces("a{08..10}.tar")) == ["a08.tar", "a09.tar", "a10.tar"]
    assert list(expand_braces("{x,y}{1..0}")) == ["x1", "x0", "y1", "y0"]
    assert list(expand_braces("a")) == ["a"]


def test_a_pattern_has_files_if_its_first_choice_has(tmp_path):
    (tmp_path / "a-00.tar").touch()
    for name, found in [("a-{00..09}.tar", True), ("a-*.tar", True), ("a-{01..09}.tar", False), ("b-*", False)]:
        assert has_files(Path(tmp_path / name)) is found
