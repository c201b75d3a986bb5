"""resnet-export: a trained run as one ONNX or torch.export file, checked against the run."""

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.commands.companions import (
    add_probability_options,
    add_run_options,
    find_rejection,
    find_temperature,
    require_probability_options,
)
from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, folder_in_run, output_path
from resnet_cli.commands.other_data import add_data_option, at_present_place, require_own_preparation
from resnet_cli.commands.terminal import print_output
from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home, require_writable_file

if TYPE_CHECKING:
    from resnet_cli.session.trained import TrainedRun

HELP = """\
Writes a run's best weights as one file that takes uint8 images [N, H, W, C], of any size if the run's images were
resized, and returns the probability of each class: resizing, normalisation and softmax are in the graph; names of
classes and the config are in its metadata. The file is run on the run's validation images and compared with PyTorch; if
it differs, it is not kept, and the exit status is 1. Decoded images are resized to the same pixels as in training; a
run decodes JPEG files of four times data.image_size or more at a reduced scale, so that at full size their pixels
differ.
"""

EXAMPLES = """\
examples:
  resnet-export outputs/2026-11-21/10-02-11-resnet-kqzd            RUN/export/model.onnx, and a report beside it
  resnet-export RUN --format pt2 --out model.pt2                   for torch.export.load
  resnet-export RUN --precision int8                               8-bit weights and activations, for onnxruntime
  resnet-export RUN --calibrated --reject 5%                       with the temperature, and an output "rejected"
  resnet-export RUN --data root=/new/photos                        if the run's images have been moved

In Python:
  session = onnxruntime.InferenceSession("model.onnx")
  probabilities, = session.run(None, {"images": uint8_images})
  class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-export", HELP, EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument("--format", choices=("onnx", "pt2"), help="default: onnx, or that of FILE")
    parser.add_argument("--out", metavar="FILE", help="default: RUN/export/model.onnx or .pt2")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: fp32")
    parser.add_argument(
        "--output", choices=("probabilities", "logits"), default="probabilities", help="default: probabilities"
    )
    add_probability_options(parser, rejects="add an output 'rejected'; see resnet-predict --help")
    parser.add_argument(
        "--tolerance",
        type=_positive,
        metavar="X",
        help="allowed difference from PyTorch; default: 1e-4, fp16 0.02, int8 any (ten times as much for logits)",
    )
    add_data_option(parser, "where the run's images are now, such as root=DIR, to compare the file with the run")
    add_run_options(parser)
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-export` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _export)


def _export(options: argparse.Namespace) -> None:
    expand_home(options.run, "RUN")
    out = None if options.out is None else output_path(options.out)
    format_name = _choose_format(options.format, out)
    require_probability_options(options)
    require_own_preparation(options.data)
    from resnet_cli.export import files
    from resnet_cli.export.export import ExportOptions, export_run
    from resnet_cli.inference.classifier import Classifier
    from resnet_cli.session.trained import open_trained

    files.require_packages(format_name)
    ExportOptions(format=format_name, precision=options.precision)
    trained = open_trained(
        options.run, checkpoint=options.checkpoint, device="cpu", precision="fp32", trust=options.trust
    )
    trained = at_present_place(trained, options.data)
    classifier = Classifier(trained, temperature=find_temperature(options, trained))
    rejection = find_rejection(options, trained, classifier)
    wanted = ExportOptions(
        format=format_name, precision=options.precision, output=options.output, rejection=rejection,
        tolerance=options.tolerance,
    )  # fmt: skip
    loaders = trained.loaders()
    path = _default_path(trained, format_name) if out is None else out
    report = export_run(trained, classifier, path, wanted, loaders)
    _note_export(trained, path, report)
    print_output("".join(f"{escape_control_characters(line)}\n" for line in _format(report, path)))


def _choose_format(requested: str | None, out: Path | None) -> Any:
    """Return the format: that of --format, else of the file name's ending, else ONNX.

    Raises:
        InputError: --format and the file name disagree, or the ending names no format.
    """
    of_file = None if out is None else {".onnx": "onnx", ".pt2": "pt2"}.get(out.suffix.lower())
    if out is not None and of_file is None:
        raise InputError(f"--out={out}: name it *.onnx or *.pt2")
    if of_file and requested and of_file != requested:
        raise InputError(f"--format={requested}: {out} is a file of format {of_file}")
    return requested or of_file or "onnx"


def _default_path(trained: "TrainedRun", format_name: str) -> Path:
    """Return RUN/export/model.FORMAT and create its folder.

    Raises:
        InputError: The checkpoint is not in a run folder.
        MachineError: The folder cannot be created or written.
    """
    if trained.run is None:
        raise InputError(f"{trained.file}: not in a run folder; give --out FILE")
    folder_in_run(trained.run.exports, trained.run.path)
    try:
        trained.run.exports.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(
            error.errno, f"{trained.run.exports}: cannot be created: {error.strerror or error}"
        ) from None
    path = trained.run.exports / f"model.{format_name}"
    require_writable_file(path, str(path))
    return path


def _note_export(trained: "TrainedRun", path: Path, report: dict[str, Any]) -> None:
    """Add an export to the run's record, unless another process is writing there or the disk is read-only."""
    from resnet_cli.runs.card import write_card
    from resnet_cli.runs.lock import exclusive

    if trained.run is None:
        return
    kept = ("format", "precision", "output", "epoch", "temperature", "bytes", "at", "parity")
    entry = {"file": str(path), **{name: report[name] for name in kept}}
    with suppress(InputError, MachineError):
        with exclusive(trained.run.path):
            before = trained.run.read_record().get("exports")
            others = (
                [one for one in before if isinstance(one, dict) and one.get("file") != str(path)]
                if isinstance(before, list)
                else []
            )
            trained.run.add_to_record(exports=[*others, entry])
        write_card(trained.run)  # a killed run whose lock is held looks as if it were running


def _format(report: dict[str, Any], path: Path) -> list[str]:
    found, times = report["parity"], report["latency_ms"]
    lines = [
        f"file     {path}, {report['bytes'] / 1e6:.2f} MB, {report['precision']}",
        f"takes    {report['takes']}, returns {report['output']} [N, {len(report['class_names'])}]",
        f"parity   largest difference {found['largest_difference']:.2g}, top-1 agreement "
        f"{found['top1_agreement']:.2f} % on {counted(found['images'], SPLIT_NAMES[found['split']] + ' image')}",
        f"accuracy {found['accuracy']:.2f} %, the run {found['run_accuracy']:.2f} %",
    ]
    if "rejection_agreement" in found:
        lines.insert(3, f"rejection agrees with the run: {found['rejection_agreement']:.2f} % of the images")
    for batch in times["file"]:
        per = f"batch {batch}"
        lines.append(f"latency  {per:9}  {times['file'][batch]:.2f} ms, PyTorch {times['pytorch'][batch]:.2f} ms")
    return lines


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{escape_control_characters(text)} is not a number above 0")
    return value


if __name__ == "__main__":
    main()
