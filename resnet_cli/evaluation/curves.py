"""ROC and precision-recall curves of an evaluation, as a table and a picture."""

from collections.abc import Mapping
from typing import Any

from resnet_cli.evaluation.calibration import sigmoid
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.decisions import scores_of
from resnet_cli.evaluation.files import format_csv
from resnet_cli.evaluation.ranking import Ranking
from resnet_cli.plots.ranking import MOST_CURVES, draw_ranking_curves

COLUMNS = ("class", "threshold", "sensitivity", "specificity", "precision")


def curve_files(outputs: Outputs, metrics: Mapping[str, Any], positive: int | None, *, title: str) -> dict[str, bytes]:
    """Return `curves.csv` and `curves.png` for one class, or for all if there are at most ten, else nothing.

    Args:
        outputs: The net's outputs for the images.
        metrics: Content of `metrics.json`, which has the areas.
        positive: Label of the class; None for all.
        title: Line above the picture.
    """
    found = outputs.decisions
    names = outputs.class_names
    shown = [positive] if positive is not None else range(len(names)) if len(names) <= MOST_CURVES else []
    rows: list[tuple[Any, ...]] = []
    drawn: dict[str, dict[str, Any]] = {}
    for k in shown:
        curves = Ranking(scores_of(found, k), found.are_labels[:, k]).curves()
        if not curves.positives or not curves.negatives:
            continue
        shares = {name: getattr(curves, name) for name in COLUMNS[2:]}
        columns = (sigmoid(curves.thresholds), *(100 * values for values in shares.values()))
        rows += [(names[k], *(f"{value:.6g}" for value in row)) for row in zip(*columns, strict=True)]
        areas = {name: metrics["classes"][k][name] for name in ("roc_auc", "average_precision")}
        drawn[names[k]] = {**shares, **areas}
    if not drawn:
        return {}
    text = format_csv(COLUMNS, rows).encode("utf-8", "backslashreplace")
    return {"curves.csv": text, "curves.png": draw_ranking_curves(drawn, title=title)}
