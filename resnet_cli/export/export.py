"""Export a trained run to one file, and keep the file only if its outputs match those of the run."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from resnet_cli import __version__
from resnet_cli.config.counts import counted
from resnet_cli.config.stored import dump
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError, MachineError, ParityError
from resnet_cli.export import files, parity, quantise
from resnet_cli.export.files import Format, Runner
from resnet_cli.export.graph import ExportGraph, Output, is_resized
from resnet_cli.files import move_file, replace_file, write_atomically
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.rejection import Rejection
from resnet_cli.runs.environment import utc_now
from resnet_cli.session.trained import TrainedRun

Precision = Literal["fp32", "fp16", "int8"]

TOLERANCES: Mapping[str, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1.0}  # largest difference of probabilities
LEAST_AGREEMENT: Mapping[str, float] = {"fp32": 100.0, "fp16": 99.0, "int8": 90.0}  # percent of the images
BATCHES = (1, 128)  # batch sizes for which latency is measured


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Args:
        format: `onnx` or `pt2`.
        precision: `fp32`; `fp16` for a net in half precision; `int8` (ONNX only) for 8-bit weights and activations.
        output: `probabilities` or `logits`.
        rejection: Adds an output `rejected`.
        tolerance: Largest difference of an output from the run's; None is 1e-4 for fp32, 0.02 for fp16, and no limit
            for int8.
    """

    format: Format
    precision: Precision = "fp32"
    output: Output = "probabilities"
    rejection: Rejection | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.format != "onnx":
            raise InputError("--precision int8: only with --format onnx")


def export_run(
    run: TrainedRun, classifier: Classifier, path: Path, options: ExportOptions, loaders: Loaders
) -> dict[str, Any]:
    """Export a run, compare the file with the run, and write `PATH.json` beside it.

    Args:
        run: The run, on the CPU in float32.
        classifier: The run as a classifier, with the temperature that is exported.
        path: The file to write.
        options: Options of the export.
        loaders: The run's loaders.

    Returns:
        The content of `PATH.json`.

    Raises:
        InputError: The net cannot be traced, or a package is missing.
        ParityError: The outputs differ too much from the run's; the file is removed.
        MachineError: The file cannot be written.
    """
    files.require_packages(options.format)
    resizes = is_resized(run.settings.get("data"))
    graph = ExportGraph(
        classifier, resizes=resizes, output=options.output, rejection=options.rejection,
        precision="fp16" if options.precision == "fp16" else "fp32",
    ).eval()  # fmt: skip
    files.require_one_file(graph, options.format)
    references = parity.collect_references(classifier, loaders, to_output(classifier, options.output))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        with _machine_errors(path):
            _write(graph, run, classifier, temporary, options, loaders, references.images)
            run_file = files.load(temporary, options.format)
        found = parity.compare(run_file, references, options.rejection, _rejection_margin(options))
        _require_parity(found, run_file, classifier, options, resizes=resizes)
        report = {
            "file": path.name, "format": options.format, "precision": options.precision, "output": options.output,
            "bytes": temporary.stat().st_size, "at": utc_now(), "checkpoint": run.file.name, "epoch": run.epoch,
            "temperature": classifier.temperature, **_thresholds(classifier),
            "rejection": None if options.rejection is None else options.rejection.record(),
            "takes": _input_text(classifier, resizes=resizes), **_range(classifier),
            "class_names": list(run.class_names),
            "parity": found.record(), "latency_ms": _latencies(run_file, classifier, references.images[0]),
            "threads": torch.get_num_threads(),
            "versions": {"resnet_cli": __version__, "torch": torch.__version__, **_onnx_versions(options.format)},
        }  # fmt: skip
        move_file(temporary, path)
        write_atomically(path.with_name(f"{path.name}.json"), json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        return report
    finally:
        temporary.unlink(missing_ok=True)


def to_output(classifier: Classifier, output: Output) -> Callable[[Tensor], Tensor]:
    """Return the function from logits to the exported output."""
    return classifier.to_probabilities if output == "probabilities" else lambda logits: logits


def _write(
    graph: ExportGraph,
    run: TrainedRun,
    classifier: Classifier,
    temporary: Path,
    options: ExportOptions,
    loaders: Loaders,
    images: Tensor,
) -> None:
    """Trace the graph and write it, quantised with `precision="int8"`."""
    resizes = graph.resize is not None
    example = images[:2] if len(images) > 1 else images.expand(2, *images.shape[1:])
    program = files.trace(graph, example.contiguous(), resizes=resizes)
    facts = {
        "class_names": list(run.class_names), "in_size": list(run.in_size), "resizes": resizes,
        "output": options.output, "temperature": classifier.temperature, "epoch": run.epoch,
        "labels": "multi" if run.has_label_sets else "single", **_thresholds(classifier), **_range(classifier),
        "resnet_cli": __version__,
        "rejection": None if options.rejection is None else options.rejection.record(),
    }  # fmt: skip
    metadata = files.metadata_of(run.settings, facts, dump(run.settings))
    outputs = [options.output, *(["rejected"] if options.rejection is not None else [])]
    files.write(program, temporary, options.format, metadata, outputs, resizes=resizes)
    if options.precision == "int8":
        whole = temporary.with_name(f"{temporary.name}.fp32")
        replace_file(temporary, whole)
        try:
            quantise.quantise(whole, temporary, loaders)
        finally:
            whole.unlink(missing_ok=True)
        files.set_metadata(temporary, metadata)


def _thresholds(classifier: Classifier) -> dict[str, list[float]]:
    """Return the probability of each class above which an image with several labels has it; empty with one label.

    They apply to the exported probabilities, also with a temperature.
    """
    if not classifier.has_label_sets:
        return {}
    return {"thresholds": classifier.thresholds or [0.5] * len(classifier.class_names)}


def _require_parity(
    found: parity.Parity, run_file: Runner, classifier: Classifier, options: ExportOptions, *, resizes: bool
) -> None:
    """Raise a `ParityError` if the file differs too much from the run."""
    scale = 1.0 if options.output == "probabilities" else 10.0  # logits are larger, and so is their rounding
    tolerance = TOLERANCES[options.precision] * scale if options.tolerance is None else options.tolerance
    checks_difference = options.precision != "int8" or options.tolerance is not None
    problems = []
    if checks_difference and not found.largest_difference <= tolerance:
        problems.append(f"by up to {found.largest_difference:.2g}, tolerance {tolerance:g}")
    if not found.top1_agreement >= LEAST_AGREEMENT[options.precision]:
        problems.append(
            f"only {found.top1_agreement:.2f} % of {counted(found.images, 'image')} have the same best class"
        )
    alike = found.rejection_agreement
    if alike is not None and not alike >= LEAST_AGREEMENT[options.precision]:
        problems.append(f"only {alike:.2f} % of {counted(found.images, 'image')} are rejected or kept as in the run")
    if problems:
        raise ParityError(f"the exported file's outputs differ from the run's: {'; '.join(problems)}; it was discarded")
    if resizes and checks_difference:
        parity.require_equal_resizing(run_file, classifier, to_output(classifier, options.output), tolerance)


def _rejection_margin(options: ExportOptions) -> float:
    """Return the distance of a score from the threshold within which rounding may decide; 0 without checks."""
    if options.rejection is None or (options.precision == "int8" and options.tolerance is None):
        return 0.0
    if options.tolerance is not None:
        return options.tolerance
    return TOLERANCES[options.precision] * (10.0 if options.rejection.method == "energy" else 1.0)


def _latencies(run_file: Runner, classifier: Classifier, image: Tensor) -> dict[str, dict[str, float]]:
    """Return the milliseconds that the file and PyTorch take for each batch size."""
    contenders = {"file": run_file, "pytorch": classifier.forward}
    return {
        name: {str(batch): round(parity.latency(forward, image, batch), 3) for batch in BATCHES}
        for name, forward in contenders.items()
    }


def _range(classifier: Classifier) -> dict[str, list[float]]:
    """Return the values that are 0 and 255 in the images that the file takes; empty if the run has no `data.range`."""
    found = classifier.preprocessing.decoding.value_range
    return {} if found is None else {"range": list(found)}


def _input_text(classifier: Classifier, *, resizes: bool) -> str:
    channels, height, width = classifier.preprocessing.in_size
    scaled = "".join(
        f", scaled so that data.range=[{low:g},{high:g}] is 0 to 255" for low, high in _range(classifier).values()
    )
    return f"uint8 [N, {'H, W' if resizes else f'{height}, {width}'}, {channels}]{scaled}"


def _onnx_versions(format_name: Format) -> dict[str, str]:
    return {name: version(name) for name in files.PACKAGES[format_name]}


@contextmanager
def _machine_errors(path: Path) -> Iterator[None]:
    """Convert disk errors to `MachineError`s, which are shown in one line."""
    try:
        yield
    except OSError as error:
        raise MachineError(error.errno, f"{path}: cannot be written: {error.strerror or error}") from None
