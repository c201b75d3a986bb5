"""Predictions as text: a table, CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.inference.predict import Prediction

DIGITS = 6  # decimals of probabilities in CSV and JSON


def join_labels(names: Iterable[str]) -> str:
    r"""Return the labels of an image as one cell of a table, separated by `|`.

    A `|` in a name becomes `\|` and a `\` becomes `\\`, so that each list of names has a text of its own.
    """
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in names)


class Writer(Protocol):
    """Formats predictions."""

    def header(self) -> str:
        """Return the text before the first prediction."""

    def rows(self, predictions: Sequence[Prediction]) -> str:
        """Return the text of predictions, a line for each image that could be read."""


class TableWriter:
    """A line for each image: its name, and classes with probabilities in percent."""

    def __init__(self) -> None:
        self._width = 0

    def header(self) -> str:
        """Return an empty text: the table has no header."""
        return ""

    def rows(self, predictions: Sequence[Prediction]) -> str:
        """Return lines of aligned columns."""
        readable = [prediction for prediction in predictions if prediction.error is None]
        names = [escape_control_characters(prediction.name) for prediction in readable]
        self._width = max([self._width, *map(len, names)])
        lines = (
            f"{name:{self._width}}  {_describe(prediction)}\n" for name, prediction in zip(names, readable, strict=True)
        )
        return "".join(lines)


def _describe(prediction: Prediction) -> str:
    classes = "   ".join(f"{escape_control_characters(name)} {100 * p:.1f} %" for name, p in prediction.top)
    if prediction.labels is not None:
        classes = f"{', '.join(map(escape_control_characters, prediction.labels)) or '(no label)'}   ({classes})"
    return f"none of these ({classes})" if prediction.is_rejected else classes


class CsvWriter:
    """A row for each image.

    Args:
        top: Number of classes in a prediction.
        has_label_sets: Whether images have several labels; these get a column, see `join_labels`.
        rejects: Whether images are rejected; score and decision get a column each.
    """

    def __init__(self, *, top: int, has_label_sets: bool, rejects: bool) -> None:
        self.top, self.has_label_sets, self.rejects = top, has_label_sets, rejects

    def header(self) -> str:
        """Return the names of the columns."""
        further = [f"{name}_{k}" for k in range(2, self.top + 1) for name in ("class", "probability")]
        return _csv_line(
            ["image", *(["labels"] if self.has_label_sets else []), "class", "probability", *further]
            + (["rejected", "score"] if self.rejects else [])
        )

    def rows(self, predictions: Sequence[Prediction]) -> str:
        """Return the rows."""
        return "".join(_csv_line(self._cells(prediction)) for prediction in predictions if prediction.error is None)

    def _cells(self, prediction: Prediction) -> list[object]:
        cells: list[object] = [prediction.name]
        if prediction.labels is not None:
            cells.append(join_labels(prediction.labels))
        for name, probability in prediction.top:
            cells += [name, round(probability, DIGITS)]
        if self.rejects:
            cells += [str(prediction.is_rejected).lower(), round(prediction.score or 0.0, DIGITS)]
        return cells


def _csv_line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class JsonLinesWriter:
    """A JSON object for each image."""

    def header(self) -> str:
        """Return an empty text: JSON lines have no header."""
        return ""

    def rows(self, predictions: Sequence[Prediction]) -> str:
        """Return the lines."""
        readable = [prediction for prediction in predictions if prediction.error is None]
        return "".join(f"{json.dumps(_as_mapping(prediction), ensure_ascii=False)}\n" for prediction in readable)


def _as_mapping(prediction: Prediction) -> dict[str, object]:
    top = [{"class": name, "probability": round(value, DIGITS)} for name, value in prediction.top]
    found: dict[str, object] = {"image": prediction.name, **top[0], "top": top}
    if prediction.labels is not None:
        found["labels"] = list(prediction.labels)
    if prediction.score is not None:
        found |= {"rejected": prediction.is_rejected, "score": round(prediction.score, DIGITS)}
    return found
