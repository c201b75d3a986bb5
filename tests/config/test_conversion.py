"""Values reach a callable as members of Enums and paths where its annotation asks for that, else as they are."""

from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any

from resnet_cli.config.conversion import convert
from resnet_cli.config.enums import find_member


def test_a_value_comes_before_a_name():
    class Swapped(Enum):
        one = "two"
        two = "one"

    assert find_member(Swapped, "two") is Swapped.one


def test_a_union_converts_only_what_none_of_its_choices_takes():
    class Mode(Enum):
        fast = "fast"

    assert convert("fast", Mode | None) is Mode.fast
    assert convert("fast", Mode | str) == "fast"
    assert convert("a", Path | None) == Path("a")
    assert convert("a", Path | str) == "a"
    assert convert(None, Path | None) is None
    assert convert(3, Annotated[int, "units"]) == 3


def test_values_that_need_no_conversion_are_passed_as_they_are():
    for value, annotation in [([1, 2], list[int]), ((1, 2), tuple[int, int]), ({"a": 1}, dict[str, int]), ("a", Any)]:
        assert convert(value, annotation) is value


def test_members_that_are_false_reach_the_callable_too():
    class Level(IntEnum):
        off = 0
        on = 1

    class Suffix(StrEnum):
        none = ""
        small = "s"

    assert type(convert(0, Level)) is Level
    assert convert("off", Level) is Level.off
    assert convert("", Suffix) is Suffix.none
    assert convert([0, 1], list[Level]) == [Level.off, Level.on]
    assert type(convert([0], list[Level])[0]) is Level
