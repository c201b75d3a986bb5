"""The descriptions of networks by resnet-info as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.info.run_table import format_run

Report = Mapping[str, Any]


def format_report(report: Report | Sequence[Report]) -> list[str]:
    """Format the description of one network, or of two for comparison."""
    if not isinstance(report, Mapping):
        return _format_comparison(report)
    run = [*format_run(report["run"]), ""] if report.get("run") else []
    if "problems" in report:
        return [
            *run,
            *(f"network not shown, and there is no usable checkpoint: {problem}" for problem in report["problems"]),
        ]
    return [*run, *_format_network(report)]


def _format_network(report: Report) -> list[str]:
    facts = {"model": f"{report['model']} ({report['target']})", **_network_facts(report)}
    lines = [*(f"{name:17}{value}" for name, value in facts.items()), ""]
    if "gradients" not in report:
        return [*lines, *_format_layers(report)]
    return [*lines, *_format_gradients(report["gradients"]), "", f"figure  {report['figure']}"]


def align_columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Format a table with two spaces between columns; the first `left` are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]


def _network_facts(report: Report) -> dict[str, str]:
    """Return the properties of the whole network, formatted, by their names."""
    facts = {}
    if "in_size" in report:
        facts["images"] = f"{_format_shape(report['in_size'])}, {report['classes']} classes"
    facts["parameters"] = f"{report['parameters']:,}"
    if "layers" in report:
        facts["multiply-adds"] = f"{report['multiply_adds']:,}"
        facts["depth"] = "unknown" if report["depth"] is None else f"{report['depth']} layers"
        facts["receptive field"] = _format_receptive_field(report)
    return facts


def _format_receptive_field(report: Report) -> str:
    field = report["receptive_field"]
    if field is None:
        return "none, or unknown"
    return "whole image" if list(field) == list(report["in_size"][1:]) else f"{_format_shape(field)} pixels"


def _format_layers(report: Report) -> list[str]:
    """Format a row for each layer; for a scalar chain, its weights and states."""
    if "layers" not in report:
        chain = zip(report["weights"], report["states"][1:], strict=True)
        rows = [[f"w_{i}", f"{weight:g}", f"{state:.6g}"] for i, (weight, state) in enumerate(chain, start=1)]
        return align_columns(["layer", "weight", f"output (input {report['states'][0]:g})"], rows, left=1)
    rows = [
        [row["name"] or "(itself)", row["kind"], _format_shape(row["out_shape"]), f"{row['parameters']:,}",
         f"{row['multiply_adds']:,}", f"{row['share']:.1f} %"]
        for row in report["layers"]
    ]  # fmt: skip
    total = ["total", "", "", f"{report['parameters']:,}", f"{report['multiply_adds']:,}", ""]
    return align_columns(["layer", "kind", "output", "parameters", "multiply-adds", "share"], [*rows, total], left=3)


def _format_comparison(reports: Sequence[Report]) -> list[str]:
    """Format the settings of two networks, their properties in two columns, and the layers of each."""
    titles = [f"{letter}: {report['model']}" for letter, report in zip("AB", reports, strict=True)]
    facts = [_network_facts(report) for report in reports]
    rows = [[name, *(own.get(name, "-") for own in facts)] for name in {**facts[0], **facts[1]}]
    lines = [f"{letter}  {report['settings']}" for letter, report in zip("AB", reports, strict=True)]
    lines += ["", *align_columns(["", *titles], rows, left=1)]
    for title, report in zip(titles, reports, strict=True):
        lines += ["", title, *_format_layers(report)]
    return lines


def _format_gradients(series: Mapping[str, Sequence[Report]]) -> list[str]:
    """Format a row for each layer, in the order of the calls, and a column for each network; `-` for missing layers."""
    columns = {label: {row["name"]: row for row in rows} for label, rows in series.items()}
    longest = max(columns.values(), key=len)
    names = list(dict.fromkeys([*longest, *(name for column in columns.values() for name in column)]))
    rows = []
    for name in names:
        row = next(column[name] for column in [longest, *columns.values()] if name in column)
        cells = [_format_gradient(column.get(name)) for column in columns.values()]
        rows.append([str(row["depth"]), name, row["kind"], f"{row['weights']:,}", *cells])
    return align_columns(["depth", "layer", "kind", "weights", *columns], rows, left=3)


def _format_gradient(row: Report | None) -> str:
    """Format the gradient of a scalar with its sign, and the norm of others."""
    if row is None:
        return "-"
    value = row.get("gradient", row["norm"])
    return "not finite" if value is None else f"{value:.4g}"


def _format_shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides)) or "1"
