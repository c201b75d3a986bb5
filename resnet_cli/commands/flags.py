"""What the commands with ordinary `--flags` share: the argument parser, the check of --out, and the exit status."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from resnet_cli import __version__
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.files import expand_home, require_writable_file, require_writable_folder
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import warnings_on_stderr
from resnet_cli.session.signals import StopSignals

UNKNOWN = "unrecognized arguments: "
VERSION = f"resnet-cli {__version__}"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` for wrong arguments and accepts no abbreviated options."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=layout, allow_abbrev=False)
        self.add_argument("--version", action="version", version=VERSION, help="print the version")

    def error(self, message: str) -> NoReturn:
        """Raise the error; argparse would print it and exit.

        Raises:
            InputError: Always.
        """
        near = ""
        if message.startswith(UNKNOWN):
            flags = [word.partition("=")[0] for word in message.removeprefix(UNKNOWN).split() if word.startswith("--")]
            near = next(filter(None, (did_you_mean(flag, self._option_string_actions) for flag in flags)), "")
        raise InputError(f"{message}{near} (--help lists the options)")


def output_path(text: str) -> Path:
    """Return the path of an output file, with `~` expanded.

    Raises:
        InputError: The path is a folder, or its parent does not exist.
        MachineError: The file cannot be written there.
    """
    path = expand_home(text, "--out")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"--out={path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}")
    require_writable_file(path, f"--out={path}")
    return path


def output_folder(text: str) -> Path:
    """Return the path of the folder that files of an evaluation go into, with `~` expanded.

    Raises:
        InputError: The path is a file, or a run folder, which has files of its own with such names.
        MachineError: No files can be written there.
    """
    folder = expand_home(text, "--out")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out={folder}: is a file; the files of an evaluation go into a folder")
    if RunDir(folder).config.is_file():
        raise InputError(f"--out={folder}: is a run folder, which has files of its own; name a folder in it")
    require_writable_folder(folder, f"--out={folder}")
    return folder


def folder_in_run(folder: Path, run: Path) -> Path:
    """Return a folder in a run folder that files are written to by default.

    Raises:
        InputError: It is reached through a link. In the run folder of somebody else, this could lead to files of the
            user's, which would be replaced.
    """
    inner = (place for place in (folder, *folder.parents) if place != run and place.is_relative_to(run))
    link = next((place for place in inner if place.is_symlink()), None)
    if link is not None:
        raise InputError(f"{link}: is a link, and files outside of the run might be replaced; give --out")
    return folder


def exit_status(
    parser: argparse.ArgumentParser, arguments: Sequence[str], command: Callable[[argparse.Namespace], None]
) -> int:
    """Run a command with the parsed options and return its exit status.

    0 success · 1 a defect of the program, a failed job, or an export that differs · 2 wrong input · 4 failure of the
    machine · 128 + the number of the signal that stopped it, such as 130 for Ctrl-C and 143 for SIGTERM.
    """
    try:
        with StopSignals(), warnings_on_stderr():
            command(parser.parse_intermixed_args(list(arguments)))
    except SystemExit as finished:  # --help
        return int(finished.code or 0)
    except StoppedError as stopped:
        return 128 + stopped.signum
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return print_error(error)
    return 0
