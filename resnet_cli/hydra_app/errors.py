"""Errors of Hydra, OmegaConf and the operating system as lines for the user.

Some of Hydra's errors can be recognised only by their text. The texts are those of Hydra 1.3.8 and 1.4.0rc3;
`tests/hydra_app/test_errors.py` fails when one of them changes. The user then sees Hydra's own line.
"""

import errno
import re
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import (
    ComputationError,
    DivergedError,
    InputError,
    JobFailedError,
    MachineError,
    explain_computation,
)
from resnet_cli.hydra_app.advice import advised, describe_merge_failure
from resnet_cli.hydra_app.argument_parser import ALTERNATIVES
from resnet_cli.hydra_app.compose import interpolation_problem, literal_hint
from resnet_cli.hydra_app.hints import command_name, hint_after_divergence, hint_for
from resnet_cli.hydra_app.overrides import GROUPS_WITH_DEFAULT
from resnet_cli.runs.terminal import colour_line, has_colour
from resnet_cli.streams import is_terminal

MACHINE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.EIO,
}  # fmt: skip
SEVERAL_VALUES = "Ambiguous value"  # how Hydra's error begins when a sweep is given without -m
NO_CFG = "The --resolve flag"  # when there is no --cfg beside it
NO_SHELL_COMMAND = "Expecting one subcommand"  # when -sc has none of its commands
VAGUE = re.compile(r"^(?:Error merging override |In '(.+?)': \w+ raised while composing config:)")
KEY = re.compile(r"[+~]*[a-z_][\w-]*(?:[./@][a-z0-9_][\w-]*)*", re.ASCII | re.IGNORECASE)  # of an override
COMPLETION_VARIABLE = "COMP_LINE"  # what the shell sets for -sc query=bash
NULL_GROUP = "Config group override must be"  # and when a group is set to null
EXIT_STATUSES: Mapping[type[Exception], int] = {InputError: 2, DivergedError: 3, MachineError: 4}


def print_error(error: Exception) -> int:
    """Print a failure and return the exit status: one line for each problem, or the traceback of a defect."""
    known = as_user_error(error)
    if known is None:
        traceback.print_exception(error)
        return 1
    lines = known.problems if isinstance(known, InputError) else [str(known.args[-1])]
    lines = [escape_control_characters(str(line)) for line in lines]
    for line in lines:
        print(_coloured(f"error: {line}"), file=sys.stderr)
    if is_terminal(sys.stderr):  # hints are for interactive use: a pipe gets the errors alone
        hint = _hint(known, lines)
        if hint:
            print(_coloured(f"hint: {hint}"), file=sys.stderr)
    return next((status for kind, status in EXIT_STATUSES.items() if isinstance(known, kind)), 1)


def _coloured(line: str) -> str:
    return colour_line(line) if has_colour(sys.stderr) else line


def _hint(error: Exception, lines: Sequence[str]) -> str:
    """Return the command that the hint suggests; empty if there is none."""
    command, arguments = command_name(sys.argv), sys.argv[1:]
    if isinstance(error, DivergedError):
        return hint_after_divergence(command, arguments)
    return hint_for(lines, command, arguments) if isinstance(error, InputError) else ""


def as_user_error(error: BaseException) -> Exception | None:
    """Translate an error to one that a user can act on; return None for a defect (ours, or of a user's class)."""
    if isinstance(error, InputError | MachineError | DivergedError | JobFailedError | ComputationError):
        return error
    if isinstance(error, MissingConfigException):
        return InputError(_missing_option(error))
    if isinstance(error, OverrideParseException):
        return InputError(_invalid_override(error))
    if isinstance(error, ConfigCompositionException | SearchPathException | HydraException | OmegaConfBaseException):
        return InputError(_composition_failure(error))
    if isinstance(error, ValueError) and str(error).startswith(NULL_GROUP):
        return InputError("a group was given no name; it takes the name of one of its options, as in model=resnet8")
    if isinstance(error, ValueError) and str(error).startswith(ALTERNATIVES):
        return InputError(
            "--multirun, --run, --cfg and --info are mutually exclusive; --cfg shows one config: leave out -m, and "
            "give each key one value"
        )
    if isinstance(error, ValueError) and str(error).startswith(NO_CFG):
        return InputError("--resolve: needs --cfg job, whose references it resolves")
    if isinstance(error, ValueError) and str(error).startswith(NO_SHELL_COMMAND):
        return InputError("-sc: takes install=SHELL, uninstall=SHELL or query=SHELL, where SHELL is bash, fish or zsh")
    if isinstance(error, TypeError | AssertionError) and _passes_through(error, "configure_log"):
        return InputError("hydra.verbose: takes true, false, the name of a logger, or a list of names")
    if isinstance(error, KeyError) and error.args == (COMPLETION_VARIABLE,):
        return InputError(
            "-sc query: is called by the shell, which sets COMP_LINE; install completion with "
            'eval "$(resnet-train -sc install=bash)"'
        )
    if isinstance(error, RecursionError) and _passes_through(error, "defaults_list.py"):
        return InputError("config files refer to one another in a circle in their defaults lists")
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        # torch raises it when the worker dies, wherever the main process is just then.
        return MachineError(f"{str(error).splitlines()[0].rstrip('. ')}; use data.workers=0")
    if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS and error.filename:
        return MachineError(error.errno, f"{error.filename}: {error.strerror or error}")
    return explain_computation(error)


def _passes_through(error: BaseException, name: str) -> bool:
    """Return whether an error was raised inside a function of this name, or inside a file of this name."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name in (code.co_name, Path(code.co_filename).name) for code in codes)


def _invalid_override(error: OverrideParseException) -> str:
    """Format an override that Hydra's grammar does not accept, with a hint on quoting."""
    override = error.override.removeprefix("++")
    if not override.strip():
        return "an argument is empty, as of an unset variable in the shell"
    spaced = re.match(r"([\w./@+~]+)(\s*)=(\s*)(.*)", override)
    if spaced and (spaced[2] or spaced[3]):
        return f"{override}: has spaces around =; {spaced[1]}={spaced[4]} has none"
    if "=" not in override and "=" in sys.argv[1:]:
        return f"{override}: not key=value; a setting has no spaces around ="
    if "=" not in override:
        path = Path(override)
        advice = _suggest_data_option(override) if path.exists() else "--help shows how settings are typed"
        return f"{override}: not key=value; {advice}"
    key = override.partition("=")[0]
    if not KEY.fullmatch(key):
        return f"{override}: {key} is not the name of a key, such as model.depth; see --help and --cfg job"
    return (
        f"{override}: not key=value as Hydra reads it; put the whole argument in single quotes: "
        f"""'{key}={{a: [b, c]}}' for a mapping or a list, '{key}="..."' for text with special characters"""
    )


def _suggest_data_option(place: str) -> str:
    """Return the overrides that use the images at an existing path."""
    option, key = ("csv", "file") if place.lower().endswith((".csv", ".tsv", ".parquet")) else ("image_folder", "root")
    return f"images there are data={option} {shlex.quote(f'data.{key}={place}')}"


def _composition_failure(error: BaseException) -> str:
    """Format another error of Hydra or OmegaConf: its first line after the key that caused it."""
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    first = interpolation_problem(error if str(error) else cause).replace("++", "")
    if vague := VAGUE.match(first):
        return f"{vague[1]}: " * bool(vague[1]) + describe_merge_failure(f"{error}\n{cause}")
    if advice := advised(first):
        return advice
    if first.startswith(SEVERAL_VALUES):
        override = first.split("'", 1)[-1].removesuffix("'")
        key, _, value = override.partition("=")
        if key == "logger":
            return f"{override}: several values: 'logger=[{value}]' chooses all of them; add -m for a sweep"
        if key in GROUPS_WITH_DEFAULT:
            return f"{override}: several values: add -m for a sweep, or choose one"
        return f"""{override}: several values: add -m for a sweep, or quote them: '{key}="{value}"'"""
    first += literal_hint(str(key), cause) if key else ""
    return f"{key}: {first}" if key and not first.startswith(str(key)) else first


def _missing_option(error: MissingConfigException) -> str:
    """Format an unknown option of a group: `model=resnet21: no such option; did you mean resnet20? (...)`."""
    place = (error.missing_cfg_file or "").removeprefix("data/")
    if place != error.missing_cfg_file and place and Path(place).exists():
        return f"data={place}: no such option; {_suggest_data_option(place)}"
    group, option = _group_and_option(error.missing_cfg_file or "")
    shipped = [file.stem for file in sorted((CONFIG_FOLDER / group).glob("*.yaml"))]  # Hydra reports none for a list
    options = [name for name in error.options or shipped if not name.startswith("_")]
    if not group or not options:
        first = " ".join(str(error).splitlines()[0].split())
        return advised(first) or first
    if option.endswith((".yaml", ".yml")):
        name = Path(option).stem
        return (
            f"{group}={option}: options are names, not files; {group}={name} with --config-dir FOLDER reads "
            f"FOLDER/{group}/{name}.yaml"
        )
    named_in = re.match(r"In '(.+?)':", str(error))  # a file's defaults list, or the command line
    place = f", named in the defaults of {named_in[1]}" if named_in and named_in[1] != "train" else ""
    return f"{group}={option}: no such option{place}{did_you_mean(option, options)} ({', '.join(options)})"


def _group_and_option(place: str) -> tuple[str, str]:
    """Split `model/my/net` into the group, the longest that the program has, and the option as it was typed."""
    parts = place.split("/")
    if parts[0] == "hydra":  # has groups of its own beside those of the program
        return "/".join(parts[:2]), "/".join(parts[2:])
    for count in range(len(parts) - 1, 0, -1):
        if (CONFIG_FOLDER / "/".join(parts[:count])).is_dir():
            return "/".join(parts[:count]), "/".join(parts[count:])
    group, _, option = place.rpartition("/")
    return group, option
