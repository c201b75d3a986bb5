"""What the commands with ordinary `--flags` share: a parser, and the exit status."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from resnet_cli.errors import InputError
from resnet_cli.hydra_app.errors import print_error


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like any other, and that takes no beginnings of options."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message} (--help lists the options)")


def exit_status(
    parser: argparse.ArgumentParser, arguments: Sequence[str], work: Callable[[argparse.Namespace], None]
) -> int:
    """Run `work` with the parsed options and return the exit status: 0, 2 wrong input, 4 machine, 1 defect."""
    try:
        work(parser.parse_intermixed_args(list(arguments)))
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return print_error(error)
    return 0
