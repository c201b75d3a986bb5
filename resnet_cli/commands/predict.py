"""resnet-predict: classes and probabilities of image files by a trained run."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.commands.companions import (
    add_probability_options,
    add_run_options,
    find_rejection,
    find_temperature,
    parse_count,
    require_probability_options,
)
from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, output_path
from resnet_cli.commands.other_data import add_data_option, at_present_place, require_own_preparation
from resnet_cli.commands.terminal import print_json, print_output
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.files import expand_home, write_atomically
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line

if TYPE_CHECKING:
    from resnet_cli.inference.classifier import Classifier
    from resnet_cli.inference.output import Writer
    from resnet_cli.inference.rejection import Rejection
    from resnet_cli.inference.sources import ImageList

HELP = """\
Prints the most probable classes of image files, with their probabilities, by the weights of a run's best epoch. Images
of any format, size and mode are decoded, resized and normalised as the run's validation images were. An image that
cannot be read is reported on standard error; the others are classified, and the exit status is 2.
"""

EXAMPLES = """\
examples:
  resnet-predict outputs/2026-11-21/10-02-11-resnet-kqzd cat.jpg dog.png
  resnet-predict RUN photos --format csv --out classes.csv       all images of a folder, at any depth
  resnet-predict RUN 'photos/**/*.jpg' archive.zip --top 3       patterns, which need quotes, and archives
  find photos -newer last | resnet-predict RUN - --format jsonl  names on standard input
  resnet-predict RUN photos --reject 5%                          "none of these" below a threshold, at which 5 % of the
                                                                 run's validation images would be rejected
"""

EXTENSIONS = {".csv": "csv", ".jsonl": "jsonl", ".txt": "table"}


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-predict", HELP, EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders, patterns, archives; - reads names from stdin"
    )
    parser.add_argument("--top", type=parse_count, default=1, metavar="K", help="classes per image; default: 1")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), help="default: table, or that of FILE")
    parser.add_argument("--out", metavar="FILE", help="output file; .csv, .jsonl and .txt choose the format")
    parser.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    rejects = "report 'none of these' below the threshold that rejects this share of the validation images, such as 5%%"
    add_probability_options(parser, rejects=rejects)
    add_data_option(parser, "for --reject: where the run's images are now, such as root=DIR")
    parser.add_argument("--batch-size", type=parse_count, default=256, metavar="N", help="default: 256")
    parser.add_argument("--device", help="as trainer.device; default: that of the run, or auto")
    add_run_options(parser)
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-predict` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _predict)


def _predict(options: argparse.Namespace) -> None:
    out = None if options.out is None else output_path(options.out)
    format_name = _choose_format(options.format, out)
    require_probability_options(options)
    require_own_preparation(options.data)
    if options.data and options.reject is None:
        raise InputError("--data: needs --reject RATE, which reads the run's validation images")
    from resnet_cli.inference.sources import ImageList

    images = ImageList(options.images, sys.stdin)
    problems = list(images.problems)
    given = expand_home(options.run, "RUN")
    if not given.exists():
        raise InputError(f"{options.run}: no such run folder{similar_file(given)}", *problems)
    run = next((name for name in options.images if _is_run(name)), None)
    if run is not None and given.suffix != ".pt":
        if not _is_run(options.run):
            raise InputError(f"{options.run}: not a run folder; the run comes first: resnet-predict {run} IMAGES")
        if RunDir(expand_home(run)).record.is_file():  # else it may be a folder of images with a config.yaml
            raise InputError(f"{run}: a run folder, which has no images to classify; resnet-predict takes one run")
    if problems and (options.strict or images.count() == 0):
        raise InputError(*problems)
    from resnet_cli.inference.classifier import Classifier  # imports torch
    from resnet_cli.session.trained import open_trained

    trained = open_trained(options.run, checkpoint=options.checkpoint, device=options.device, trust=options.trust)
    trained = at_present_place(trained, options.data)
    classifier = Classifier(trained, batch_size=options.batch_size, temperature=find_temperature(options, trained))
    rejection = find_rejection(options, trained, classifier)
    writer = _make_writer(format_name, options.top, classifier, rejects=rejection is not None)
    with _open_output(out, print_json if format_name == "jsonl" else print_output) as write:
        count, unread = _write_predictions(options, images, classifier, rejection, writer, write)
    problems += unread
    if out is not None:
        left = f"; {len(problems)} could not be read and {'is' if len(problems) == 1 else 'are'} not in it"
        images_of = f"{count} image{'' if count == 1 else 's'}"
        print_line(f"{escape_control_characters(str(out))}: {images_of}{left if problems else ''}", sys.stdout)
    if problems:
        raise InputError(*problems)


def _is_run(name: str) -> bool:
    try:
        return RunDir(expand_home(name)).config.is_file()
    except (OSError, InputError):  # a name that is too long, or empty
        return False


def _write_predictions(
    options: argparse.Namespace,
    images: "ImageList",
    classifier: "Classifier",
    rejection: "Rejection | None",
    writer: "Writer",
    write: Callable[[str], bool],
) -> tuple[int, list[str]]:
    """Write the predictions of all images; return their number, and a line for each that cannot be read.

    When `write` returns False, because nobody reads the output any more, the rest of the images is left out.

    Raises:
        InputError: An image cannot be read, with --strict.
    """
    from tqdm import tqdm

    from resnet_cli.inference.predict import predict_images

    count = 0
    problems: list[str] = []
    if not write(writer.header()):
        return count, problems
    is_hidden = options.out is None and sys.stdout.isatty()  # the lines themselves are the progress
    with tqdm(total=images.count(), unit="image", leave=False, disable=is_hidden or None) as bar:
        for batch in predict_images(classifier, images, top=options.top, rejection=rejection):
            problems += [prediction.error for prediction in batch if prediction.error is not None]
            if problems and options.strict:
                raise InputError(problems[0])
            count += sum(prediction.error is None for prediction in batch)
            bar.update(len(batch))
            if not write(writer.rows(batch)):
                break
    return count, problems


@contextmanager
def _open_output(out: Path | None, print_text: Callable[[str], bool]) -> Iterator[Callable[[str], bool]]:
    """Yield `print_text`, or such a function that writes to a file, which is created at the end.

    After Ctrl-C or another signal that stops it, the file has the lines so far; after an error there is no file.
    """
    if out is None:
        yield print_text
        return
    lines: list[str] = []

    def keep(text: str) -> bool:
        lines.append(text)
        return True

    try:
        yield keep
    except (StoppedError, KeyboardInterrupt):
        write_atomically(out, "".join(lines))
        raise
    write_atomically(out, "".join(lines))


def _make_writer(format_name: str, top: int, classifier: "Classifier", *, rejects: bool) -> "Writer":
    from resnet_cli.inference.output import CsvWriter, JsonLinesWriter, TableWriter

    if format_name == "csv":
        top = min(top, len(classifier.class_names))
        return CsvWriter(top=top, has_label_sets=classifier.has_label_sets, rejects=rejects)
    return JsonLinesWriter() if format_name == "jsonl" else TableWriter()


def _choose_format(requested: str | None, out: Path | None) -> str:
    """Return the format to write: that of --format, else of the file name's ending, else a table.

    Raises:
        InputError: --format and the file name disagree, or neither names a format.
    """
    of_file = None if out is None else EXTENSIONS.get(out.suffix.lower())
    if of_file and requested and of_file != requested:
        raise InputError(f"--format={requested}: {out} is a file of format {of_file}")
    if out is not None and not (requested or of_file):
        raise InputError(f"--out={out}: name it {', '.join(f'*{e}' for e in EXTENSIONS)}, or set --format")
    return requested or of_file or "table"


if __name__ == "__main__":
    main()
