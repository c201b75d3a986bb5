"""The annotations that people write: none is refused without reason, and what can be checked is checked."""

import importlib
import subprocess
import sys

import pytest

from resnet_cli.config.conversion import convert
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
    ("str | Path | None", ["a/b", None], [1]),
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
    ("'how wide it is'", [1, "a"], []),  # a comment in the place of an annotation
    ("[int, str]", [1, "a"], []),
    ("3", [1, "a"], []),
    ("tuple[()]", [[]], [[1]]),
    ("Mapping", [{"a": 1}], [3]),
    ("Annotated[int, AtLeast(low=LEAST)]", [2], [1]),
    ("Annotated[int, Between(low=1, high=3)]", [1, 3], [0, 4]),
    ("Annotated[Path, 'where']", ["a"], [1]),
    ("Literal[Mode.quick, 'none']", ["fast", "quick", "none"], ["slow"]),
    ("Self", [1, {"x": 1}], []),
    ("Maybe[int]", [1, None], ["a"]),
    ("t.Optional[int]", [1, None], ["a"]),
    ("c.abc.Sequence[int]", [[1]], [1]),
    ("Collection2[int]", [[1]], [1]),
    ("Json", [1, "a", [1], {"a": [1]}], []),
    ("Sequence", [3, "a"], []),  # a class of the user's of that name
    ("np.ndarray", [[1, 2]], []),
    ("torch.dtype | None", [None], ["float32"]),
    ("Tensor", [{"_target_": "torch.zeros"}], [3]),
    ("list[Tensor]", [[{"_target_": "torch.zeros"}]], [[3]]),
    ("Mode | int", ["fast", 3], ["fats", 0.5]),
    ("Swapped", ["one", "two", "ONE"], ["three"]),
]

MODULE = """
from __future__ import annotations

import collections as c
import datetime
import numbers
import os
import typing as t
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, MutableSequence
from collections.abc import Collection as Collection2
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, NewType, Optional, Protocol, Self, SupportsFloat, Tuple,
    TypedDict, TypeVar, Union,
)
from typing import Optional as Maybe

import numpy as np
import torch
from torch import Tensor, nn

from resnet_cli.config.ranges import AtLeast, Between

LEAST = 2

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

class Swapped(Enum):  # each has the other's name for its value, but for letters
    ONE = "two"
    two = "one"

class Sequence:
    pass

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
Json = Union[int, str, "list[Json]", "dict[str, Json]"]
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


@pytest.fixture
def annotation_of(user_module):
    """Returns what an annotation of `ANNOTATIONS` is reduced to."""

    def find(text):
        number = [row[0] for row in ANNOTATIONS].index(text)
        return signature(f"{user_module}.Net{number}").parameters["x"].annotation

    return find


def test_enums_list_their_values_and_reach_the_class_as_members(user_module, annotation_of):
    mode = importlib.import_module(user_module).Mode
    annotation = annotation_of("Mode")
    assert describe(annotation) == "one of fast, slow"
    assert convert("fast", annotation) is mode.quick
    assert convert("quick", annotation) is mode.quick  # by its name too
    assert convert(["fast"], list[annotation]) == [mode.quick]
    assert convert(["fast", "slow"], tuple[annotation, str]) == [mode.quick, "slow"]
    assert convert({"a": "slow"}, dict[str, annotation])["a"] is mode.slow
    assert convert("fast", annotation_of("Literal[Mode.quick, 'none']")) is mode.quick
    assert convert("none", annotation_of("Literal[Mode.quick, 'none']")) == "none"
    assert describe(annotation_of("Level")) == "one of 1, 2"


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


@pytest.mark.parametrize(
    ("target", "key", "allowed", "refused"),
    [
        ("torch.nn.Conv2d", "kernel_size", [3, [3, 3]], []),
        ("torch.nn.Linear", "in_features", [3], ["a"]),
        ("torch.nn.TransformerEncoderLayer", "activation", ["relu"], [3]),
        ("torchvision.models.resnet.ResNet", "norm_layer", [None], [3]),
        ("torchvision.models.resnet18", "progress", [True], [3]),
    ],
)
def test_torch_is_read_without_importing_it(target, key, allowed, refused):
    check = f"""if True:
        import sys
        from resnet_cli.config.signatures import signature
        from resnet_cli.config.values import is_valid
        annotation = signature({target!r}).parameters[{key!r}].annotation
        assert all(is_valid(value, annotation) for value in {allowed}), annotation
        assert not any(is_valid(value, annotation) for value in {refused}), annotation
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", check], check=True)
