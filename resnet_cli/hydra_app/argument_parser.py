"""Parse a command line with Hydra's own parser, without changing `sys.argv` or `argparse` for anybody else.

`hydra.main` offers no way to pass arguments or to handle errors: it calls `get_args_parser()` from its module's
namespace and parses `sys.argv` with the result. Only that function is replaced here, so that code which runs
later, such as a user's model that parses options of its own, finds both `argparse` and `sys.argv` untouched.

Relies on: `hydra.main.get_args_parser`; `parse_args()` in Hydra 1.3, `parse_intermixed_args()` in Hydra 1.4.
Tried with Hydra 1.3.8 and 1.4.0rc3 on Python 3.11 to 3.14; `tests/hydra_app/test_argument_parser.py` fails when one of
these internals changes.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import hydra  # noqa: F401  imports the module hydra.main, which the function of the same name hides

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.suggestions import nearest_names
from resnet_cli.errors import InputError

ALIKE = 0.85  # of difflib's ratio: --epoch is trainer.epochs, but --gpus is not optimizer.groups
UNKNOWN = "unrecognized arguments: "
PARSE_METHODS = ("parse_args", "parse_intermixed_args")
ALTERNATIVES = "Only one of --run"  # how Hydra's error about -m beside --cfg begins


@contextmanager
def hydra_arguments_replaced(arguments: Sequence[str]) -> Iterator[None]:
    """Make `hydra.main` parse `arguments` instead of `sys.argv`, and raise `InputError` for a wrong option."""
    module: Any = sys.modules["hydra.main"]
    get_args_parser = module.get_args_parser

    def configured_parser() -> argparse.ArgumentParser:
        parser = _parser_that_raises(get_args_parser)
        for name in PARSE_METHODS:
            setattr(parser, name, partial(getattr(parser, name), list(arguments)))
        return parser

    module.get_args_parser = configured_parser
    try:
        yield
    finally:
        module.get_args_parser = get_args_parser


def check_options(arguments: Sequence[str]) -> None:
    """Raise the error with which Hydra would refuse the options.

    Raises:
        InputError: There is no such option, or its value is wrong.
        ValueError: Several of --multirun, --run, --cfg and --info are given, in the words of Hydra.
    """
    parsed = _parser_that_raises(sys.modules["hydra.main"].get_args_parser).parse_args(list(arguments))
    if sum(bool(getattr(parsed, name, None)) for name in ("multirun", "run", "cfg", "info")) > 1:
        raise ValueError(ALTERNATIVES)


def _parser_that_raises(get_args_parser: Callable[[], argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Return Hydra's parser, for which a wrong option is an `InputError`, and so is an abbreviated one.

    `hydra_arguments` looks for whole names, and would not see that `--multi` is a sweep.
    """
    parser = build_parser(get_args_parser)
    parser.allow_abbrev = False
    options = list(parser._option_string_actions)
    setattr(parser, "error", partial(_raise_input_error, options))  # noqa: B010  a method, as type checkers see it
    return parser


def _raise_input_error(options: Sequence[str], message: str) -> NoReturn:
    advice = ""
    if found := re.match(r"argument (--\w+)/(-\w): ignored explicit argument '(.*)'", message):
        message = f"{found[1]}, {found[2]}: takes no value"
        advice = f"; settings have no dashes: {found[2][1:]}{found[3]}" if "=" in found[3] else ""
    if message.startswith(UNKNOWN + "--"):
        flags = message.removeprefix(UNKNOWN)
        advice = _complete_option(flags, options) or _advise_key(flags)
    raise InputError(f"{message}{advice} (--hydra-help lists the options)")


def _complete_option(flags: str, options: Sequence[str]) -> str:
    """Return a hint for the first unknown flag that begins like an option; an empty string if none does."""
    names = (flag.partition("=")[0] for flag in flags.split())
    found = next((option for name in names for option in options if len(name) > 2 and option.startswith(name)), None)
    return f"; did you mean {found}?" if found else ""


def _advise_key(flags: str) -> str:
    """Return a hint for the first unknown flag that is named like a key; an empty string if none is."""
    from resnet_cli.config.completion import Completer  # imports more than --help needs

    completer = Completer(())
    places = ("", *(f"{group}." for group in CONFIG_GROUPS))
    keys = [item.text.removesuffix("=") for place in places for item in completer.complete(place)]
    by_name = {key.rpartition(".")[2]: key for key in reversed(keys) if not key.endswith(".")}
    for flag in flags.split():
        name, _, value = flag.lstrip("-").partition("=")
        if "." in name:
            return f"; settings have no dashes: {name}={value or 'VALUE'}"
        for near in nearest_names(name.replace("-", "_"), by_name, count=1, cutoff=ALIKE):
            return f"; settings have no dashes: {by_name[near]}={value or 'VALUE'}"
    return ""


def build_parser(get_args_parser: Callable[[], argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Return Hydra's parser, also for Hydra 1.3 on Python 3.14.

    That Python formats a help text when its option is added, and Hydra 1.3 passes an object for one of them, which
    becomes text only when it is printed.
    """
    if sys.version_info < (3, 14):
        return get_args_parser()
    kind = argparse.ArgumentParser
    add_argument = kind.add_argument

    def add_with_text(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> argparse.Action:
        if not isinstance(kwargs.get("help"), str | None):
            kwargs["help"] = "Install or uninstall shell completion"
        return add_argument(self, *args, **kwargs)

    setattr(kind, "add_argument", add_with_text)  # noqa: B010
    try:
        return get_args_parser()
    finally:
        setattr(kind, "add_argument", add_argument)  # noqa: B010
