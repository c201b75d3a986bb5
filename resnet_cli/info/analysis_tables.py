"""The analyses of resnet-info as lines of text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resnet_cli.info.text_table import align_columns

Report = Mapping[str, Any]
Series = Mapping[str, Sequence[Report]]


def format_analysis(report: Report) -> list[str]:
    """Format the rows of the analysis that a report has; empty if there is none."""
    return next((formatted(report[name]) for name, formatted in FORMATS.items() if name in report), [])


def _format_gradients(series: Series) -> list[str]:
    """Format a row for each layer, in the order of the calls, and a column for each network; `-` for missing layers."""
    return _by_name(series, {"weights": lambda row: f"{row['weights']:,}"}, _format_gradient)


def _by_name(
    series: Series, facts: Mapping[str, Callable[[Report], str]], cell: Callable[[Report | None], str]
) -> list[str]:
    """Format a row for each name, with the same facts for all networks, and a column for each network."""
    columns = {label: {row["name"]: row for row in rows} for label, rows in series.items()}
    longest = max(columns.values(), key=len)
    names = list(dict.fromkeys([*longest, *(name for column in columns.values() for name in column)]))
    rows = []
    for name in names:
        row = next(column[name] for column in [longest, *columns.values()] if name in column)
        cells = [cell(column.get(name)) for column in columns.values()]
        rows.append([str(row["depth"]), name, row["kind"], *(fact(row) for fact in facts.values()), *cells])
    return align_columns(["depth", "layer", "kind", *facts, *columns], rows, left=3)


def _format_gradient(row: Report | None) -> str:
    """Format the gradient of a scalar with its sign, and the norm of others."""
    if row is None:
        return "-"
    value = row.get("gradient", row["norm"])
    return "not finite" if value is None else f"{value:.4g}"


def _format_signal(series: Series) -> list[str]:
    head = ["block", "name", "kind", "variance", "of the branch", "squared mean"]
    return _by_network(series, head, lambda row: [
        str(row["depth"]), row["name"] or "(itself)", row["kind"], _number(row["variance"]),
        _number(row["branch_variance"]), _number(row["mean_squared"]),
    ])  # fmt: skip


def _format_activations(series: Series) -> list[str]:
    head = ["depth", "layer", "kind", "mean", "std", "zero", "saturated", "dead units"]
    return _by_network(series, head, lambda row: [
        str(row["depth"]), row["name"] or "(itself)", row["kind"], _number(row["mean"]), _number(row["std"]),
        _share(row["zeros"]), _share(row["saturated"]), _share(row["dead"]),
    ])  # fmt: skip


def _by_network(series: Series, head: Sequence[str], cells: Callable[[Report], list[str]]) -> list[str]:
    lines: list[str] = []
    for label, rows in series.items():
        lines += [*([""] if lines else []), label, *align_columns(head, [cells(row) for row in rows], left=3)]
    return lines


def _format_shattered(series: Series) -> list[str]:
    lags = zip(*series.values(), strict=True)
    rows = [[str(row[0]["lag"]), f"{row[0]['distance']:.3f}", *(_number(of["autocorrelation"]) for of in row)]
            for row in lags]  # fmt: skip
    return align_columns(["lag", "distance", *series], rows, left=0)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


FORMATS: Mapping[str, Callable[[Series], list[str]]] = {
    "gradients": _format_gradients,
    "signal": _format_signal,
    "shattered": _format_shattered,
    "activations": _format_activations,
}
