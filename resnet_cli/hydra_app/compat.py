"""What differs between the supported versions of Hydra and Python, in one place."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, NoReturn

import hydra
from omegaconf import OmegaConf

from resnet_cli.errors import InputError


def main_options() -> dict[str, Any]:
    """Arguments of `hydra.main`: Hydra 1.3 wants a version, 1.4 the callables that its configs may name."""
    if "execution_whitelist" in signature(hydra.main).parameters:
        return {"execution_whitelist": ["resnet_cli.*", "hydra.*", "hydra_plugins.*", "logging.*", "colorlog.*"]}
    return {"version_base": "1.3"}


def compose_options() -> dict[str, Any]:
    """Arguments of `hydra.initialize_config_dir`: Hydra 1.3 wants a version, 1.4 has one behaviour only."""
    return {} if "execution_whitelist" in signature(hydra.main).parameters else {"version_base": "1.3"}


def register_resolver(name: str, function: Callable[[], str], *, use_cache: bool = False) -> None:
    """Make `${name:}` in a config call `function`. OmegaConf 2.4 calls that what meant something older before."""
    renamed = "use_cache" in signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register(name, function, use_cache=use_cache, replace=True)


def silence_schema_warning() -> None:
    """Let files in `conf/hydra/launcher` have the names of plugins' own configs: Hydra 1.3 warns, 1.4 just does it."""
    warnings.filterwarnings("ignore", r"\n'hydra/(launcher|sweeper)/.* is validated against ConfigStore", UserWarning)


@contextmanager
def patched_argparse() -> Iterator[None]:
    """Change argparse in two ways while Hydra parses its arguments.

    A wrong option is an `InputError`, without the usage text. And Hydra 1.3 starts on Python 3.14, whose argparse looks
    into help texts when an option is added: Hydra gives one an object that becomes text only when it is printed.
    """
    parser = argparse.ArgumentParser
    error, add_argument = parser.error, parser.add_argument

    def raise_error(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise InputError(f"{message} (--hydra-help lists the options)")

    def add_with_text(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> argparse.Action:
        if not isinstance(kwargs.get("help"), str | None):
            kwargs["help"] = "Install or uninstall shell completion"
        return add_argument(self, *args, **kwargs)

    setattr(parser, "error", raise_error)  # noqa: B010  a method, as type checkers see it
    if sys.version_info >= (3, 14):
        setattr(parser, "add_argument", add_with_text)  # noqa: B010
    try:
        yield
    finally:
        setattr(parser, "error", error)  # noqa: B010
        setattr(parser, "add_argument", add_argument)  # noqa: B010
