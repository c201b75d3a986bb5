"""The descriptions of networks by resnet-info as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.info.analysis_tables import format_analysis
from resnet_cli.info.run_table import format_run
from resnet_cli.info.text_table import LABEL_WIDTH, align_columns

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
    lines = [*(f"{name:{LABEL_WIDTH}}{value}" for name, value in facts.items()), ""]
    if "figure" not in report:
        return [*lines, *_format_layers(report)]
    return [*lines, *format_analysis(report), "", f"figure  {report['figure']}"]


def _network_facts(report: Report) -> dict[str, str]:
    """Return the properties of the whole network, formatted, by their names."""
    facts = {}
    if "in_size" in report:
        facts["images"] = f"{_format_shape(report['in_size'])}, {counted(report['classes'], 'class')}"
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
        rows = [
            [f"w_{i}", f"{weight:g}", "not finite" if state is None else f"{state:.6g}"]
            for i, (weight, state) in enumerate(chain, start=1)
        ]
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
    if "figure" in reports[0]:
        return [*lines, "", *format_analysis(reports[0]), "", f"figure  {reports[0]['figure']}"]
    for title, report in zip(titles, reports, strict=True):
        lines += ["", title, *_format_layers(report)]
    return lines


def _format_shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides)) or "1"
