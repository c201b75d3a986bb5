"""resnet-info: what a config's network is made of, costs and sees, and how gradients fare in it."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_cli.commands.exit import exit_quickly
from resnet_cli.commands.flags import Parser, exit_status
from resnet_cli.errors import InputError, MachineError
from resnet_cli.hydra_app.compose import Composed, compose_settings
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.info import tables
from resnet_cli.runs.names import job_folder_name

HELP = """\
The layers of a network with their output shapes, parameters and multiply-adds, its depth, and its receptive field: the
pixels that one place of the last feature map can depend on (normalisation and squeeze-and-excitation apart).
The data set only gives the size of the images and the number of classes; it need not be there. Nothing is written but
the figure of --gradients.
"""

EXAMPLES = """\
examples:
  resnet-info model=resnet20 data=cifar10
  resnet-info model=cifar_resnet model.depth=110 --format json
  resnet-info outputs/2026-11-21/10-02-11-resnet-kqzd        the network of a run
  resnet-info data=cifar10 --compare model=resnet20 "model=wrn16_4 model.dropout=0.3"
  resnet-info model=plain56 --gradients                      beside its residual twin, with a figure
  resnet-info model=scalar_chain --gradients                 four layers of one number each

A regular block of 256 channels beside its bottleneck:
  resnet-info data=synthetic data.channels=256 \\
    --compare "model._target_=resnet_cli.models.ResidualBlock model.channels=[256,256] model.kernel_sizes=[3,3]" \\
    "model._target_=resnet_cli.models.ResidualBottleneckBlock model.in_out_channels=256 model.inner_channels=[64] \\
    model.inner_kernel_sizes=[3]"
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-info", HELP, EXAMPLES)
    parser.add_argument(
        "items",
        nargs="*",
        metavar="RUN | group=option | key=value",
        help="a run folder or checkpoint to start from, and settings as resnet-train takes them",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="two networks side by side: the settings of each as one text, on top of the others",
    )
    parser.add_argument(
        "--gradients",
        action="store_true",
        help="the norm of each layer's gradient on one training batch, beside the twin with or without shortcuts",
    )
    parser.add_argument("--out", metavar="FILE", help="figure of --gradients; default: gradients-<model>.png")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a further folder of config groups")
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-info` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _show)


def _show(options: argparse.Namespace) -> None:
    _print(_compare(options) if options.compare else _single(options), as_json=options.format == "json")


def _print(report: dict[str, Any] | list[dict[str, Any]], *, as_json: bool) -> None:
    """Write the whole report at once; a reader that has gone, such as `head`, is no failure."""
    text = json.dumps(report) if as_json else "\n".join(tables.lines(report))
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        if not isinstance(error, BrokenPipeError):
            raise MachineError(error.errno, f"standard output: {error.strerror}") from None


def _compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.gradients:
        raise InputError("--gradients: shows one network and its twin; not together with --compare")
    _figure(options, "")
    sides: list[Composed] = []
    problems: list[str] = []
    for text in options.compare:
        try:
            own = _words(text)
            common = [item for item in options.items if not _replaced(item, own)]
            sides.append(compose_settings([*common, *own], config_dir=options.config_dir))
        except Exception as error:
            known = as_user_error(error)
            if not isinstance(known, InputError):
                raise
            problems += known.problems
    if problems:
        raise InputError(*dict.fromkeys(problems))
    from resnet_cli.info import describe  # imports torch: only when all the settings are right

    return [{**describe.described(side), "settings": text} for side, text in zip(sides, options.compare, strict=True)]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--compare {text}: {str(error).lower()}") from None


def _replaced(item: str, own: Sequence[str]) -> bool:
    """Return whether one side of a comparison sets the same key to another value."""
    return "=" in item and override_keys([item])[0] in override_keys([given for given in own if "=" in given])


def _single(options: argparse.Namespace) -> dict[str, Any]:
    composed = compose_settings(options.items, config_dir=options.config_dir)
    figure = _figure(options, composed.model)
    from resnet_cli.info import describe  # imports torch: only when all the settings are right

    report = describe.described(composed)
    if figure is not None:
        report["gradients"] = describe.gradients(composed, figure)
        report["figure"] = str(figure)
    return report


def _figure(options: argparse.Namespace, model: str) -> Path | None:
    """Where the figure goes; None without one.

    Raises:
        InputError: it cannot go there.
    """
    if not options.gradients:
        if options.out is not None:
            raise InputError(f"--out={options.out}: names the figure of --gradients, which is not asked for")
        return None
    path = Path(options.out or f"gradients-{job_folder_name([model])}.png").expanduser()
    if path.suffix.lower() != ".png":
        raise InputError(f"--out={options.out}: the figure is a PNG; name it *.png")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"--out={path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}")
    return path


if __name__ == "__main__":
    main()
