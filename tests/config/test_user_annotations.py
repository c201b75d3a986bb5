"""The annotations that people write: none is refused without reason, and what can be checked is checked."""

import textwrap

import pytest

from resnet_cli.config.annotations import convert
from resnet_cli.config.signatures import signature
from resnet_cli.config.values import describe, is_valid

# Annotation, values that pass and values that are refused, as a config would have them.
ANNOTATIONS = [
    ('Annotated[int, "how many units"]', [64], ["a", 1.5]),
    ("Annotated[int, AtLeast(1)]", [1], [0]),
    ("Annotated[float, Bound(gt=0, le=1)]", [1, 0.5], [0, 2]),
    ("Annotated[float, Bound(gt=0), 'the rate']", [0.1], [-1]),
    ("Annotated[str, object()]", ["a"], [1]),
    ("Mode", ["fast", "slow"], ["fats", 3]),
    ("Level", ["LOW", 1, 2], ["high", 5]),
    ("Optional[Mode]", [None, "fast"], ["fats"]),
    ("list[Mode]", [["fast", "slow"]], [["fats"]]),
    ("NewType('Width', int)", [3], ["a"]),
    ("Width", [3], ["a"]),
    ("Collection[int]", [[1, 2]], [3, ["a"]]),
    ("Iterable[float]", [[1, 2.5]], [["a"]]),
    ("MutableSequence[int]", [[1]], [["a"]]),
    ("set[str]", [["a"]], ["a", [1]]),
    ("frozenset[int]", [[1]], [["a"]]),
    ("numbers.Real", [1, 0.5], ["a"]),
    ("numbers.Integral", [1], [0.5]),
    ("SupportsFloat", [1, 0.5], ["a"]),
    ("Literal[1, 2, 3]", [1], [4, "1"]),
    ("Optional[list[Literal['a', 'b']]]", [None, ["a"]], [["c"]]),
    ("Union[int, list[int]]", [1, [1]], ["a"]),
    ("int | None", [1, None], ["a"]),
    ("'int'", [1], ["a"]),
    ("Path", ["a/b"], [1]),
    ("os.PathLike", ["a/b"], []),
    ("Mapping[str, int]", [{"a": 1}], [{"a": "b"}]),
    ("OrderedDict[str, float]", [{"a": 1}], [{"a": "b"}]),
    ("dict[str, Any]", [{"a": [1]}], [3]),
    ("Options", [{"a": 1}], [3]),
    ("tuple[int, ...]", [[1, 2]], [["a"]]),
    ("tuple[int, str]", [[1, "a"]], [[1]]),
    ("Tuple[int, int]", [[1, 2]], [[1]]),
    ("Decimal", [1, "0.1"], []),
    ("datetime.date", ["2026-11-27"], []),
    ("Callable[[int], int]", ["relu"], []),
    ("type", ["a"], []),
    ("type[nn.Module]", ["a"], []),
    ("T", [1, "a"], []),
    ("N", [1, 0.5], ["a"]),
    ("Shape", [1], []),
    ("Pair", [[1, 2]], []),
    ("Own", ["a", {"x": 1}], []),
    ("nn.Module", [{"_target_": "torch.nn.ReLU"}], [3]),
    ("torch.Tensor | None", [None], [3]),
    ("complex", ["1+2j"], []),
    ("OnlyForTypeCheckers", [1, "a"], []),
    ("Final[int]", [1], []),
    ("no_such_name", [1, "a"], []),
]

MODULE = """
from __future__ import annotations

import datetime
import numbers
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, MutableSequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, NewType, Optional, Protocol, SupportsFloat, Tuple,
    TypedDict, TypeVar, Union,
)

import torch
from torch import nn

from resnet_cli.config.ranges import AtLeast

if TYPE_CHECKING:
    from nowhere_to_be_found import OnlyForTypeCheckers

class Mode(str, Enum):
    quick = "fast"
    slow = "slow"

class Level(IntEnum):
    LOW = 1
    HIGH = 2

@dataclass
class Bound:
    gt: float | None = None
    le: float | None = None

class Options(TypedDict, total=False):
    a: int

class Shape(Protocol):
    def area(self) -> float: ...

class Pair(NamedTuple):
    x: int
    y: int

class Own:
    pass

Width = NewType("Width", int)
T = TypeVar("T")
N = TypeVar("N", int, float)
"""


@pytest.fixture(scope="module")
def user_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    classes = [
        f"class Net{i}(nn.Module):\n    def __init__(self, num_classes, x: {text}, y: int = 1) -> None:\n"
        "        super().__init__()\n        self.x = x\n"
        for i, (text, _, _) in enumerate(ANNOTATIONS)
    ]
    (folder / "user_annotations.py").write_text(MODULE + "\n" + "\n".join(classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "user_annotations"


@pytest.mark.parametrize("number", range(len(ANNOTATIONS)), ids=[text for text, _, _ in ANNOTATIONS])
def test_values_pass_that_the_annotation_allows_and_no_others(user_module, number):
    text, allowed, refused = ANNOTATIONS[number]
    parameters = signature(f"{user_module}.Net{number}").parameters
    assert list(parameters) == ["num_classes", "x", "y"]
    assert [value for value in allowed if not is_valid(value, parameters["x"].annotation)] == [], text
    assert [value for value in refused if is_valid(value, parameters["x"].annotation)] == [], text
    assert describe(parameters["x"].annotation)


def test_enums_list_their_values_and_reach_the_class_as_members(user_module):
    import importlib

    module = importlib.import_module(user_module)
    number = [text for text, _, _ in ANNOTATIONS].index("Mode")
    annotation = signature(f"{user_module}.Net{number}").parameters["x"].annotation
    assert describe(annotation) == "one of fast, slow"
    assert convert("fast", annotation) is module.Mode.quick
    assert convert("quick", annotation) is module.Mode.quick  # by its name too
    assert convert(["fast"], list[annotation]) == [module.Mode.quick]
    assert convert({"a": "slow"}, dict[str, annotation]) == {"a": "slow"}


WAYS = {
    "a dataclass": """
        @dataclass
        class Net:
            num_classes: int
            hidden: Annotated[int, "units"] = 64
        """,
    "a frozen dataclass with a factory": """
        @dataclass(frozen=True, kw_only=True)
        class Net:
            num_classes: int
            hidden: int = 64
            extra: list[int] = field(default_factory=list)
        """,
    "an inherited constructor": """
        class Base(nn.Module):
            def __init__(self, num_classes: int, hidden: int = 64) -> None:
                super().__init__()

        class Net(Base):
            pass
        """,
    "a constructor inherited through a module's attribute": """
        class Holder:
            class Base:
                def __init__(self, num_classes: int, hidden: int = 64) -> None: ...

        class Net(Holder.Base):
            pass
        """,
    "a wrapped constructor": """
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        class Net:
            @logged
            def __init__(self, num_classes: int, hidden: int = 64) -> None: ...
        """,
    "a wrapped function": """
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        @logged
        def Net(num_classes: int, hidden: int = 64): ...
        """,
    "a class decorator that adds a constructor": """
        def with_constructor(cls):
            def __init__(self, num_classes: int, hidden: int = 64) -> None: ...
            cls.__init__ = __init__
            return cls

        @with_constructor
        class Net:
            pass
        """,
    "a generated signature": """
        class Net:
            __signature__ = inspect.Signature([
                inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY, annotation=int),
                inspect.Parameter("hidden", inspect.Parameter.KEYWORD_ONLY, annotation=int, default=64),
            ])
            def __init__(self, **kwargs) -> None: ...
        """,
    "a metaclass": """
        class Meta(type):
            pass

        class Net(metaclass=Meta):
            def __init__(self, num_classes: int, hidden: int = 64) -> None: ...
        """,
    "a partial": """
        def build(depth, num_classes: int, hidden: int = 64): ...

        Net = functools.partial(build, 3)
        """,
    "a class method": """
        class Net:
            @classmethod
            def build(cls, num_classes: int, hidden: int = 64): ...
        """,
    "a static method": """
        class Net:
            @staticmethod
            def build(num_classes: int, hidden: int = 64): ...
        """,
}


@pytest.mark.parametrize("way", WAYS, ids=list(WAYS))
def test_the_ways_in_which_a_signature_comes_about(way, tmp_path, monkeypatch):
    name = f"user_way_{list(WAYS).index(way)}"
    head = "import functools\nimport inspect\nfrom dataclasses import dataclass, field\nfrom typing import Annotated\n"
    (tmp_path / f"{name}.py").write_text(head + "from torch import nn\n" + textwrap.dedent(WAYS[way]))
    monkeypatch.syspath_prepend(tmp_path)
    found = signature(f"{name}.Net.build" if "def build(cls" in WAYS[way] or "@static" in WAYS[way] else f"{name}.Net")
    assert {"num_classes", "hidden"} <= set(found.parameters)
    hidden = found.parameters["hidden"]
    assert (hidden.default, hidden.required) == (64, False)
    assert is_valid(32, hidden.annotation)
    assert not is_valid("a", hidden.annotation)


def test_attrs_classes(tmp_path, monkeypatch):
    pytest.importorskip("attrs")
    (tmp_path / "user_attrs.py").write_text(
        "import attrs\n\n@attrs.define\nclass Net:\n    num_classes: int\n    hidden: int = 64\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = signature("user_attrs.Net").parameters
    assert not is_valid("a", found["hidden"].annotation)
    assert found["num_classes"].required


def test_any_arguments_are_open(tmp_path, monkeypatch):
    (tmp_path / "user_open.py").write_text(
        "class Net:\n    def __init__(self, hidden: int = 3, *args: int, **kwargs: object) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = signature("user_open.Net")
    assert found.open
    assert list(found.parameters) == ["hidden"]


NET = """
from enum import Enum
from pathlib import Path
from typing import Annotated, NewType

import torch

Width = NewType("Width", int)

class Pool(Enum):
    AVERAGE = torch.nn.AdaptiveAvgPool2d
    LARGEST = torch.nn.AdaptiveMaxPool2d

class Net(torch.nn.Module):
    def __init__(
        self, in_channels: int, num_classes: int, width: Annotated[Width, "channels"] = 4, pool: Pool = Pool.AVERAGE,
        note: Path = Path("note.txt"),
    ) -> None:
        super().__init__()
        assert isinstance(pool, Pool) and isinstance(note, Path)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(in_channels, width, 3), pool.value(1), torch.nn.Flatten(),
            torch.nn.Linear(width, num_classes),
        )

    def forward(self, x):
        return self.layers(x)
"""


def test_a_users_class_trains_with_such_annotations_and_resumes(train, tmp_path):
    from tests.support.runs import rows_of, tiny

    (tmp_path / "enum_nets.py").write_text(NET)
    own = ["model._target_=enum_nets.Net", "model.width=6", "model.pool=LARGEST", "model.note=a.txt"]
    status, _, err = train(*tiny(*own, "hydra.run.dir=d"))
    assert (status, err) == (0, "")
    status, _, err = train("resume=d", "model._target_=enum_nets.Net", "trainer.epochs=3")
    assert (status, err) == (0, "")
    assert [row["epoch"] for row in rows_of(tmp_path / "d")] == [1, 2, 3]
    status, _, err = train(*tiny("model._target_=enum_nets.Net", "model.pool=LARGE", "model.width=a"))
    assert status == 2
    assert err.splitlines() == [
        "error: model.width: a is not allowed; it takes a whole number",
        "error: model.pool: LARGE is not allowed; it takes one of AVERAGE, LARGEST; did you mean LARGEST?",
    ]
