"""resnet-info: what is known about a run; the layers of a network and their costs; gradients and signals by depth."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, output_path
from resnet_cli.commands.presets import add_preset_options, compose_planned, preset_command
from resnet_cli.commands.terminal import print_output
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.compose import Composed, is_run
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.info import tables
from resnet_cli.info.run import describe_run, has_usable_checkpoint
from resnet_cli.runs.names import job_folder_name

HELP = """\
Prints what is known of a run: what was trained on what, by which command and where, its checkpoints, results,
evaluations and exports. Then, or of any settings, the layers of the network with their output shapes, parameters and
multiply-adds, its depth, and its receptive field: the pixels on which one position of the last feature map can depend
(ignoring normalisation and squeeze-and-excitation). The data set is used only for the image size and the number of
classes; where these are known, it need not exist. --gradients, --signal, --shattered and --activations measure the
initial network on the first training batch, compared with the same network without (or with) shortcuts and with the
weights of the run, or with the other network of --compare; the only file written is their figure.
--list, --show, --copy, --check, --schema and --env are about presets, files and this machine instead.
"""

EXAMPLES = """\
examples:
  resnet-info model=resnet20 data=cifar10
  resnet-info model=cifar_resnet model.depth=110 --format json
  resnet-info outputs/2026-11-21/10-02-11-resnet-kqzd        a run, and its network
  resnet-info data=cifar10 --compare model=resnet20 "model=wrn16_4 model.dropout=0.3"
  resnet-info model=plain56 --gradients                      and its residual counterpart, with a figure
  resnet-info model=scalar_chain --gradients                 four layers of one number each
  resnet-info model=preact110 --signal --compare model.norm=batch model.norm=none
  resnet-info model=deep_cnn --activations --compare model.init=default model.init=he

  resnet-info --list model                                   presets with their sizes and published figures
  resnet-info --copy resnet20 --as thin                      conf/model/thin.yaml, to change it
  resnet-info --copy plan=good data=digits                   a plan as an experiment, to change it
  resnet-info --check conf/model/thin.yaml
  resnet-info --schema > conf/schema.json                    for editors that complete and check YAML

A regular block of 256 channels and its bottleneck:
  resnet-info data=synthetic data.channels=256 \\
    --compare "model._target_=resnet_cli.models.ResidualBlock model.channels=[256,256] model.kernel_sizes=[3,3]" \\
    "model._target_=resnet_cli.models.ResidualBottleneckBlock model.in_out_channels=256 model.inner_channels=[64] \\
    model.inner_kernel_sizes=[3]"
"""

ANALYSES = {
    "gradients": "norms of the layers' gradients",
    "signal": "mean and variance of the features after each block (Brock et al. 2021)",
    "shattered": "similarity of the gradients with respect to neighbouring inputs (Balduzzi et al. 2017)",
    "activations": "histograms of activations, zeros, saturation and dead units by layer",
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-info", HELP, EXAMPLES)
    parser.add_argument(
        "items",
        nargs="*",
        metavar="RUN | group=option | key=value",
        help="a run folder or checkpoint to start from, and settings as for resnet-train",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="compare two networks: the settings of each as one quoted argument, applied after the common ones",
    )
    analyses = parser.add_mutually_exclusive_group()
    for flag in ("--gradients", "--signal", "--shattered", "--activations"):
        name = flag.removeprefix("--")
        analyses.add_argument(flag, dest="analysis", action="store_const", const=name, help=ANALYSES[name])
    parser.add_argument("--out", metavar="FILE", help="file for the figure of these four; default: <which>-<model>.png")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="an additional folder of config groups")
    add_preset_options(parser)
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-info` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _info)


def _info(options: argparse.Namespace) -> None:
    command = preset_command(options)
    if command is not None:
        command(options)
        return
    report = _compare(options) if options.compare else _describe(options)
    text = json.dumps(report) if options.format == "json" else "\n".join(tables.format_report(report))
    print_output(f"{text}\n")


def _compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the descriptions of the two networks of --compare, the first with their analysis if there is one.

    Raises:
        InputError: The options exclude each other, or a config is wrong; lists the problems of both.
    """
    _figure_path(options, "")
    sides: list[Composed] = []
    problems: list[str] = []
    for text in options.compare:
        try:
            own = _split_settings(text)
            common = [item for item in options.items if not _is_overridden(item, own)]
            sides.append(compose_planned([*common, *own], options.config_dir))
        except Exception as error:
            user_error = as_user_error(error)
            if not isinstance(user_error, InputError):
                raise
            problems += user_error.problems
    if problems:
        raise InputError(*dict.fromkeys(problems))
    from resnet_cli.info import describe  # imports torch, so only once all settings are valid

    reports = [{**describe.describe(side), "settings": text} for side, text in zip(sides, options.compare, strict=True)]
    figure = _figure_path(options, "-".join(dict.fromkeys(side.model for side in sides)))
    if figure is not None:
        labels = [f"{letter}: {text}" for letter, text in zip("AB", options.compare, strict=True)]
        reports[0] |= _analysis(options, dict(zip(labels, sides, strict=True)), figure)
    return reports


def _analysis(options: argparse.Namespace, sides: Mapping[str, Composed], figure: Path) -> dict[str, Any]:
    from resnet_cli.info.analyses import analyse  # imports torch

    return {options.analysis: analyse(options.analysis, sides, figure), "figure": str(figure)}


def _split_settings(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--compare {text}: {str(error).lower()}") from None


def _is_overridden(item: str, own: Sequence[str]) -> bool:
    """Return whether the settings of one side of a comparison set the key of `item` too."""
    return "=" in item and override_keys([item])[0] in override_keys([setting for setting in own if "=" in setting])


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return the description of one network, with the requested analysis, and of the run that it comes from.

    If a run has no usable checkpoint and its network cannot be built, the problems are listed in its place.
    """
    facts = _describe_run(options.items)
    try:
        report = _describe_network(options, facts)
    except Exception as error:
        user_error = as_user_error(error)
        is_optional = facts is not None and not has_usable_checkpoint(facts) and not options.analysis
        if not isinstance(user_error, InputError) or not is_optional or len(options.items) > 1:
            raise
        report = {"problems": [str(problem) for problem in user_error.problems]}
    return report if facts is None else {**report, "run": facts}


def _describe_run(items: Sequence[str]) -> dict[str, Any] | None:
    """Return the description of the run folder among the items, if there is one."""
    runs = [item for item in items if is_run(item)]
    if len(runs) != 1:
        return None
    facts = describe_run(runs[0])
    if facts is None and expand_home(runs[0]).exists():
        shown = escape_control_characters(runs[0])
        print(f"note: {shown}: run.json is missing, so only the network is described", file=sys.stderr)
    return facts


def _describe_network(options: argparse.Namespace, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    composed = compose_planned(options.items, options.config_dir)
    figure = _figure_path(options, composed.model)
    from resnet_cli.info import describe  # imports torch, so only once all settings are valid

    report = describe.describe(composed, facts["data"] if facts else None)
    if figure is not None:
        report |= _analysis(options, {composed.model: composed}, figure)
    return report


def _figure_path(options: argparse.Namespace, model: str) -> Path | None:
    """Return the path of the figure, or None without an analysis.

    Raises:
        InputError: A figure cannot be written there, or --out is given without an analysis.
    """
    if options.analysis is None:
        if options.out is not None:
            raise InputError(
                f"--out={options.out}: names the figure of {', '.join(f'--{name}' for name in ANALYSES)}; none is set"
            )
        return None
    name = f"{options.analysis}-{job_folder_name([model])}.png" if options.out is None else options.out
    path = output_path(name)
    if path.suffix.lower() != ".png":
        raise InputError(f"--out={options.out}: the figure is a PNG; name it *.png")
    return path


if __name__ == "__main__":
    main()
