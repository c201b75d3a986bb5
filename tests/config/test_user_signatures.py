"""The ways in which the signature of a user's class or function comes about."""

import importlib
import sys
import textwrap
import types

import pytest

from resnet_cli.config.signatures import Opaque, signature
from resnet_cli.config.source_files import import_of
from resnet_cli.config.values import is_valid

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
    "a partial, with annotations as text": """
        from __future__ import annotations

        def build(depth, num_classes: int, hidden: int = 64): ...

        Net = functools.partial(build, 3)
        """,
    "a base class that makes the constructor from fields": """
        class Model:
            def __init_subclass__(cls) -> None:
                parameters = [
                    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind,
                                      default=getattr(cls, name, inspect.Parameter.empty))
                    for name, kind in cls.__annotations__.items()
                ]
                cls.__signature__ = inspect.Signature(parameters)

            def __init__(self, **data) -> None: ...

        class Net(Model):
            num_classes: int
            hidden: int = 64
        """,
    "a base class with a metaclass that makes a dataclass": """
        class Meta(type):
            def __new__(meta, name, bases, namespace):
                return dataclass(super().__new__(meta, name, bases, namespace))

        class Module(metaclass=Meta):
            pass

        class Net(Module):
            num_classes: int
            hidden: int = 64
        """,
    "a named tuple": """
        from typing import NamedTuple

        class Net(NamedTuple):
            num_classes: int
            hidden: int = 64
        """,
    "__new__": """
        class Net:
            def __new__(cls, num_classes: int, hidden: int = 64): ...
        """,
    "a constructor assigned in the class": """
        def construct(self, num_classes: int, hidden: int = 64) -> None: ...

        class Net:
            __init__ = construct
        """,
    "a constructor assigned later": """
        class Net:
            def __init__(self) -> None: ...

        def construct(self, num_classes: int, hidden: int = 64) -> None: ...
        Net.__init__ = construct
        """,
    "a class bound again": """
        class Net:
            def __init__(self) -> None: ...

        class Other(Net):
            def __init__(self, num_classes: int, hidden: int = 64) -> None: ...

        Net = Other
        """,
    "a dataclass with InitVar and Final": """
        from dataclasses import InitVar
        from typing import Final

        @dataclass
        class Net:
            num_classes: InitVar[int]
            hidden: Final[int] = 64
        """,
    "a protocol of callables": """
        from typing import ParamSpec, TypeVar
        from collections.abc import Callable
        P, R = ParamSpec("P"), TypeVar("R")

        def logged(function: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                return function(*args, **kwargs)
            return wrapper

        class Net:
            @logged
            def __init__(self, num_classes: int, hidden: int = 64) -> None: ...
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
    body = textwrap.dedent(WAYS[way]).lstrip()
    future, head = ("from __future__ import annotations\n", head) if "__future__" in body else ("", head)
    (tmp_path / f"{name}.py").write_text(future + head + "from torch import nn\n" + body.removeprefix(future))
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


def test_defaults_that_no_config_holds_are_opaque(tmp_path, monkeypatch):
    (tmp_path / "user_defaults.py").write_text(
        "from enum import Enum\nimport numpy\n\nclass Mode(Enum):\n    fast = 'fast'\n\n"
        "def with_import(x: 'numpy.ndarray' = numpy.zeros(3), mode=Mode.fast, e: Mode = Mode.fast): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = signature("user_defaults.with_import").parameters
    assert found["x"].default is Opaque
    assert not found["x"].required
    assert found["mode"].default == "fast"
    assert found["mode"].annotation is sys.modules["user_defaults"].Mode  # by its default


@pytest.mark.parametrize("head", ["\ufeff", "# coding: latin-1\n# \xe9\n"])
def test_sources_in_other_encodings_are_read(tmp_path, monkeypatch, head):
    name = f"user_encoded_{len(head)}"
    encoding = "utf-8" if head == "\ufeff" else "latin-1"
    (tmp_path / f"{name}.py").write_bytes(f"{head}def net(hidden: int = 3): ...\n".encode(encoding))
    monkeypatch.syspath_prepend(tmp_path)
    assert list(signature(f"{name}.net").parameters) == ["hidden"]


def test_a_class_that_a_notebook_defines_anew_has_its_new_signature(monkeypatch):
    notebook = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    for parameters in ("num_classes: int", "num_classes: int, depth: int = 2", "out_classes: int"):
        exec(f"class Net:\n    def __init__(self, {parameters}) -> None: ...", vars(notebook))
        names = [parameter.partition(":")[0] for parameter in parameters.split(", ")]
        assert list(signature("__main__.Net").parameters) == names


def test_each_import_of_a_module_has_a_number_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "numberednets.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("numberednets")
    numbers = {import_of("numberednets.Net")}
    for _ in range(5):
        importlib.reload(module)
        numbers.add(import_of("numberednets.Net"))
    assert len(numbers) == 6
    monkeypatch.delitem(sys.modules, "numberednets")


def test_a_reloaded_module_has_the_signatures_of_its_new_text(tmp_path, monkeypatch):
    source = tmp_path / "reloadednets.py"
    source.write_text("class Net:\n    def __init__(self, num_classes: int) -> None: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloadednets")
    assert list(signature("reloadednets.Net").parameters) == ["num_classes"]
    source.write_text("class Net:\n    def __init__(self, num_classes: int, depth: int = 2) -> None: ...\n")
    assert list(signature("reloadednets.Net").parameters) == ["num_classes"]  # of the class that would be built
    importlib.reload(module)
    assert list(signature("reloadednets.Net").parameters) == ["num_classes", "depth"]
    monkeypatch.delitem(sys.modules, "reloadednets")
