"""Signatures read from source are the signatures that Python sees."""

import inspect
import sys
import textwrap
from typing import Annotated, Any, Literal, get_args

import pytest

from resnet_cli.config.ranges import AtLeast
from resnet_cli.config.signatures import NotFoundError, Opaque, locate, signature

CALLABLES = [
    "torch.optim.SGD", "torch.optim.AdamW", "torch.optim.NAdam", "torch.nn.Linear", "torchvision.models.resnet18",
    "resnet_cli.ClassifierTrainer", "resnet_cli.models.CifarResNet", "resnet_cli.models.ResNet",
    "resnet_cli.schedules.cosine", "resnet_cli.data.make_loaders", "resnet_cli.ClassifierTrainer.fit",
]  # fmt: skip


@pytest.mark.parametrize("target", CALLABLES)
def test_names_and_defaults_are_those_that_python_sees(target):
    read = signature(target)
    seen = {
        name: p
        for name, p in inspect.signature(locate(target)).parameters.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and name != "self"
    }
    if target == "torchvision.models.resnet18":
        assert list(read.parameters) == list(seen)
        return  # its decorator hides the defaults
    assert list(read.parameters) == list(seen)
    for name, parameter in read.parameters.items():
        if parameter.default is not Opaque:
            assert parameter.default == seen[name].default, name


def module(tmp_path, monkeypatch, name, text):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_annotations(tmp_path, monkeypatch):
    name = module(
        tmp_path, monkeypatch, "annotated_example",
        """
        from collections.abc import Sequence
        from typing import Annotated, Literal, Optional
        from torch import Tensor
        from resnet_cli.config.ranges import AtLeast

        Kind = Literal["a", "b"]

        def part(x: Tensor, n: Annotated[int, AtLeast(2)], kind: Kind = "a", maybe: "Optional[float]" = None,
                 many: Sequence[int] = (), plain=3, anything=None, **rest): ...

        class Base:
            def __init__(self, width: int): ...

        class Child(Base): ...
        """,
    )  # fmt: skip
    read = signature(f"{name}.part")
    types = {key: p.annotation for key, p in read.parameters.items()}
    assert read.open
    assert types["x"] is Opaque
    assert types["n"] == Annotated[int, AtLeast(2)]
    assert types["kind"] == Literal["a", "b"]
    assert set(get_args(types["maybe"])) == {float, type(None)}
    assert get_args(types["many"]) == (int,)
    assert types["plain"] == int | float
    assert types["anything"] is Any
    assert read.parameters["n"].required
    assert not read.parameters["kind"].required
    assert list(signature(f"{name}.Child").parameters) == ["width"]
    assert name not in sys.modules  # read, not imported


def test_dataclasses_and_builtins_are_imported_to_be_read():
    assert list(signature("resnet_cli.config.ranges.Between").parameters) == ["low", "high"]
    assert list(signature("fractions.Fraction").parameters) != []


def test_a_module_without_a_constructor_takes_no_argument(tmp_path, monkeypatch):
    text = """
        from torch import nn
        from torch.nn import Module

        class Plain(nn.Module):
            def forward(self, x): ...

        class Named(Module):
            def forward(self, x): ...

        class Made(nn.Module):
            def __new__(cls, width: int = 1, **kwargs): ...
        """
    name = module(tmp_path, monkeypatch, "plain_modules_example", text)
    for target in ("torch.nn.Tanh", f"{name}.Plain", f"{name}.Named"):
        found = signature(target)
        assert (dict(found.parameters), found.open) == ({}, False), target
    made = signature(f"{name}.Made")
    assert (list(made.parameters), made.open) == (["width"], True)
    assert signature("torch.nn.Identity").open


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere.Net", "there is no module named 'nowhere'"),
        ("resnet_cli.config.ranges.Abov", "has no 'Abov'"),
        ("Net", "not the dotted name"),
        ("resnet_cli..x", "not the dotted name"),
    ],
)
def test_what_cannot_be_found_is_said(target, words):
    with pytest.raises(NotFoundError, match=words.replace(".", r"\.")):
        signature(target)


def test_a_module_that_fails_inside_is_not_taken_for_missing(tmp_path, monkeypatch):
    name = module(tmp_path, monkeypatch, "broken_example", "import nowhere_at_all\nNet = nowhere_at_all.Net\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        signature(f"{name}.Net")
