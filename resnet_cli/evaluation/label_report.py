"""The report of `resnet-eval --label-errors`: probable label errors of a sweep over folds, as a table and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from resnet_cli.errors import MachineError
from resnet_cli.evaluation.label_errors import LabelError, find_label_errors, format_errors
from resnet_cli.evaluation.members import Member
from resnet_cli.evaluation.out_of_fold import OutOfFold, open_members, predict_out_of_fold, read_each
from resnet_cli.files import remove_file, write_atomically
from resnet_cli.plots.contact_sheet import draw_contact_sheet, one_line
from resnet_cli.plots.samples import to_pixels

MOST_SHOWN = 48  # images of the contact sheet


@dataclass(frozen=True)
class LabelReport:
    """The probable label errors of a data set, and the files that list them.

    Args:
        errors: The errors, the most confident first.
        predictions: The predictions in which they were found.
        table: The CSV.
        picture: The contact sheet; None if there are no errors.
    """

    errors: list[LabelError]
    predictions: OutOfFold
    table: Path
    picture: Path | None


def write_label_errors(
    sweep: Path, *, folder: Path | None = None, checkpoint: str | None = None, device: str | None = None,
    trust: bool = False,
) -> LabelReport:  # fmt: skip
    """Find the probable label errors of a sweep over folds; write `label_errors.csv` and `label_errors.png`.

    Args:
        sweep: Folder of the sweep.
        folder: Folder of the files; None is `eval` in the folder of the sweep.
        checkpoint: `best` or `last` of each run; None is the best one.
        device: Device of the models; None is that of each run, or `auto`.
        trust: Build classes that only the stored configs name; that runs code of their author's choice.

    Raises:
        InputError: See `open_members` and `predict_out_of_fold`.
        MachineError: The folder cannot be written.
    """
    members = open_members(sweep, checkpoint=checkpoint, device=device, trust=trust)
    found = predict_out_of_fold(members)
    errors = find_label_errors(found.probabilities_NK, found.labels_N)
    folder = sweep / "eval" if folder is None else folder
    table, picture = folder / "label_errors.csv", folder / "label_errors.png"
    sheet = _contact_sheet(members, found, errors[:MOST_SHOWN]) if errors else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sheet is None and table.is_file():  # else the picture is of something else
            remove_file(picture)
    except OSError as error:
        raise MachineError(error.errno, f"{folder}: cannot be written: {error.strerror or error}") from None
    write_atomically(table, format_errors(errors, found.names, found.class_names))
    if sheet is not None:
        write_atomically(picture, sheet)
    return LabelReport(errors, found, table, picture if sheet is not None else None)


def _contact_sheet(members: Sequence[Member], found: OutOfFold, errors: Sequence[LabelError]) -> bytes:
    """Draw the most confident errors with the given and the suggested class, and their names."""
    wanted = {found.names[error.index]: number for number, error in enumerate(errors)}
    images = _images_of(members, wanted)
    captions = [
        [
            one_line(f"{found.class_names[error.label]} → {found.class_names[error.suggested]}"),
            one_line(found.names[error.index]),
        ]
        for error in errors
    ]
    title = "label → what it probably is, the most confident first"
    return draw_contact_sheet([images[number] for number in range(len(errors))], captions, title=title)


def _images_of(members: Sequence[Member], wanted: Mapping[str, int]) -> dict[int, Tensor]:
    """Return images by number, each as preprocessed by the first run that validates on it: uint8 [H, W, 1 or 3]."""
    images: dict[int, Tensor] = {}
    for member, found in read_each(members, wanted):
        mean, std = member.run.data["mean"], member.run.data["std"]
        for name, image_CHW in found.items():
            images[wanted[name]] = to_pixels(image_CHW[None], mean, std)[0]
    return images
