"""Quantisation of an ONNX file to 8-bit integers by onnxruntime, calibrated on training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data import Loaders
from resnet_cli.export.files import INPUT, quiet
from resnet_cli.export.parity import read_pixels

CALIBRATION_IMAGES = 256
BATCH = 32
OPERATORS = ["Conv", "Gemm"]  # not MatMul, which resizing uses in float64


def quantise(source: Path, target: Path, loaders: Loaders) -> None:
    """Write an ONNX file with 8-bit activations and 8-bit weights scaled by channel.

    Args:
        source: A file in float32.
        target: The file to write.
        loaders: The run's loaders, for training images that calibrate the ranges of activations.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class TrainingImages(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration_batches(loaders))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    prepared = target.with_name(f"{target.name}.prepared")
    try:
        with quiet():
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared), str(target), TrainingImages(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=OPERATORS,
            )  # fmt: skip
    finally:
        prepared.unlink(missing_ok=True)


def calibration_batches(loaders: Loaders) -> Iterator[Tensor]:
    """Yield training images, spread evenly over the training set: uint8 [B, H, W, C]."""
    samples = loaders.samples["train"]
    indices = samples.indices
    chosen = indices[torch.linspace(0, len(indices) - 1, min(CALIBRATION_IMAGES, len(indices))).long()]
    for part in torch.split(chosen, BATCH):
        yield read_pixels(samples.split.images, part)
