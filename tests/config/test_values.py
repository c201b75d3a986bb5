"""Values against annotations."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest

from resnet_cli.config.annotations import Opaque
from resnet_cli.config.ranges import AtLeast, Below, Between, Positive
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.values import describe, format_value, is_valid


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, True), (3.0, int, False), (True, int, False), ("3", int, False), (None, int, False),
        (3, float, True), (0.5, float, True), (True, float, False), (math.nan, float, False), (math.inf, float, False),
        (True, bool, True), (1, bool, False), ("a", str, True), (1, str, False),
        (None, int | None, True), ("x", int | None, False),
        ("a", Literal["a", "b"], True), ("c", Literal["a", "b"], False), (True, Literal[1], False),
        (1, Annotated[int, AtLeast(1)], True), (0, Annotated[int, AtLeast(1)], False),
        (1.0, Annotated[float, Below(0, 1)], False), (1.0, Annotated[float, Between(0, 1)], True),
        (0.0, Annotated[float, Positive()], False), (None, Annotated[float, Positive()] | None, True),
        ([1, 2], Sequence[int], True), ([1, "a"], Sequence[int], False), ("ab", Sequence[str], False),
        ([1, 2], tuple[int, int], True), ([1], tuple[int, int], False), ([], list, True),
        ({"a": 1}, Mapping[str, int], True), ({"a": "b"}, Mapping[str, int], False), ({}, dict, True),
        (object(), Any, True),
    ],
)  # fmt: skip
def test_fits(value, annotation, expected):
    assert is_valid(value, annotation) is expected


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, AtLeast(1)] | None, "a whole number 1 or more or null"),
        (float | int | str, "a number or text"),
        (Literal["a", "b"], "one of a, b"),
        (Sequence[int], "a list of whole numbers"),
        (tuple[float, float], "a list of 2: a number, a number"),
        (Opaque | Mapping[str, Opaque | None], "a node with _target_"),
        (Sequence[Opaque], "a list of (a node with _target_)"),
        (Mapping[str, str | None] | None, "a mapping to (text or null) or null"),
    ],
)
def test_describe(annotation, words):
    assert describe(annotation) == words


def test_nearest_prefers_a_common_beginning():
    assert did_you_mean("resnet21", ["resnet20", "resnet32", "plain20"]) == "; did you mean resnet20?"
    assert did_you_mean("RELU", ["relu", "tanh"]) == "; did you mean relu?"
    assert did_you_mean("zzz", ["relu", "tanh"]) == ""


def test_shown_reads_like_yaml_and_stays_short():
    assert [format_value(v) for v in (None, True, False, 0.1, "a")] == ["null", "true", "false", "0.1", "a"]
    assert len(format_value("x" * 200)) == 60
    values = [["a b", "null", None, 1.0], ["1"], {"a": [True, "x.png"]}, [], {}]
    assert [format_value(v) for v in values] == ['[a b, "null", null, 1.0]', '["1"]', "{a: [true, x.png]}", "[]", "{}"]
