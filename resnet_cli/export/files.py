"""Exported files: write them, and run them as their users do."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.export.graph import ExportGraph

Format = Literal["onnx", "pt2"]
Runner = Callable[[Tensor], list[Tensor]]  # uint8 images [B, H, W, C] -> the outputs

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
INPUT = "images"
OPSET = 20
MOST_ONNX_BYTES = 1536 * 2**20  # from here on torch writes weights to a second file; the format's limit is 2 GB


def require_packages(format_name: Format) -> None:
    """Raise an `InputError` if a package that a format needs is not installed."""
    missing = [name for name in PACKAGES[format_name] if find_spec(name) is None]
    if missing:
        raise InputError(f"--format {format_name}: needs {', '.join(missing)}: pip install 'resnet-cli[export]'")


def require_one_file(graph: ExportGraph, format_name: Format) -> None:
    """Raise an `InputError` if a net is too large for one file of a format."""
    size = sum(tensor.nbytes for tensor in (*graph.parameters(), *graph.buffers()))
    if format_name == "onnx" and size > MOST_ONNX_BYTES:
        raise InputError(
            f"--format onnx: the net has {size / 1e9:.1f} GB of weights, and an ONNX file holds "
            f"{MOST_ONNX_BYTES / 1e9:.1f} GB; use --precision fp16 or --format pt2"
        )


def axis_names(*, resizes: bool) -> dict[int, str]:
    """Return the names of the axes of the images whose size is not fixed, by position."""
    return {0: "batch", **({1: "height", 2: "width"} if resizes else {})}


def trace(graph: ExportGraph, example: Tensor, *, resizes: bool) -> torch.export.ExportedProgram:
    """Trace a graph for any number of images, and, if it resizes, any size.

    Args:
        graph: The graph in evaluation mode.
        example: uint8 images [B, H, W, C]; B is at least 2, since tracing treats a size of 1 as a constant.
        resizes: Whether height and width are dynamic too.

    Raises:
        InputError: The net cannot be traced.
    """
    shapes = {axis: torch.export.Dim(name, min=1) for axis, name in axis_names(resizes=resizes).items()}
    try:
        with quiet():
            return torch.export.export(graph, (example,), dynamic_shapes=(shapes,))
    except Exception as error:  # a user-defined net may raise anything
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"the net cannot be traced by torch.export: {reason[:300]}") from error


def write(
    program: torch.export.ExportedProgram,
    path: Path,
    format_name: Format,
    metadata: Mapping[str, str],
    outputs: Sequence[str],
    *,
    resizes: bool = False,
) -> None:
    """Write a traced program.

    Args:
        program: The program.
        path: The file.
        format_name: Its format.
        metadata: Texts by name, stored in the file.
        outputs: Names of the outputs, for ONNX.
        resizes: Whether height and width are dynamic, for their names in ONNX.

    Raises:
        InputError: The installed onnxscript is too old for torch.
    """
    with quiet():
        if format_name == "pt2":
            buffer = io.BytesIO()  # writing to the file itself, torch raises a RuntimeError when the disk is full
            torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(dict(metadata))})
            path.write_bytes(buffer.getbuffer())
            return
        try:
            converted = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=list(outputs), opset_version=OPSET,
                verbose=False, optimize=True,
                dynamic_shapes=(axis_names(resizes=resizes),),  # a program has numbered symbols, no names
            )  # fmt: skip
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("onnxscript."):
                raise
            advice = "install a later one: pip install -U onnxscript"
            raise InputError(f"--format onnx: torch {torch.__version__} needs {error.name}; {advice}") from error
        assert converted is not None
        converted.model.metadata_props.update(metadata)
        converted.save(path)


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Set the metadata of an ONNX file, which quantisation drops."""
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def load(path: Path, format_name: Format) -> Runner:
    """Load an exported file with the library that its users run it with: onnxruntime, or `torch.export.load`."""
    if format_name == "pt2":
        with quiet():
            module = torch.export.load(path).module()

        def run_pt2(images: Tensor) -> list[Tensor]:
            with torch.no_grad():
                return [output.detach() for output in module(images)]

        return run_pt2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run_onnx(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {INPUT: images.numpy()})]

    return run_onnx


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the output and warnings of exporters inside this context."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch._dynamo", "root")
    loggers = [logging.getLogger(name if name != "root" else None) for name in names]
    before = [found.level for found in loggers]
    try:
        for found in loggers:
            found.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for found, level in zip(loggers, before, strict=True):
            found.setLevel(level)


def metadata_of(settings: Mapping[str, Any], facts: Mapping[str, Any], config_text: str) -> dict[str, str]:
    """Return the metadata of an exported file: facts as JSON, and the config as YAML."""
    return {**{name: json.dumps(value) for name, value in facts.items()}, "name": str(settings.get("name")),
            "config": config_text}  # fmt: skip
