"""Backend: where and how a run computes - device, precision, memory format, determinism and compilation."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from resnet_cli.training.device import PrecisionName, configure_cublas, resolve_device, resolve_precision
from resnet_cli.warning_filters import ignore_warning

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W]; classes [B] or class probabilities [B, K]
CompileMode = Literal["off", "model", "step"]

# Compiled graphs of one model, unless images have more sizes. Full, last and accumulated batches in three sizes, in
# training and in evaluation mode, come to 18.
MAX_COMPILED_GRAPHS = 64


@dataclass(frozen=True)
class Backend:
    """Where and how a run computes.

    Attributes:
        device: Device of the model and its batches.
        precision: `fp32`, `tf32`, `bf16` or `fp16`.
        channels_last: Keep convolution weights and images in channels-last memory format.
        deterministic: Use only operations whose results are reproducible on one machine.
        compile: What `torch.compile` compiles: nothing (`off`), the model or the whole step.
        max_graphs: Number of graphs that may be compiled of one function.
    """

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    deterministic: bool = False
    compile: CompileMode = "off"
    max_graphs: int = MAX_COMPILED_GRAPHS

    @classmethod
    def resolve(
        cls,
        device: str | torch.device | None,
        precision: PrecisionName,
        *,
        cpu_bf16: bool = False,
        channels_last: bool = False,
        deterministic: bool = False,
        compile: CompileMode = "off",  # noqa: A002
    ) -> "Backend":
        """Return the backend with `auto` resolved on this machine.

        Raises:
            ValueError: the device is unknown or not available, or does not support the precision.
        """
        found = resolve_device(device)
        return cls(found, resolve_precision(precision, found, cpu_bf16=cpu_bf16), channels_last, deterministic, compile)

    @property
    def scales_gradients(self) -> bool:
        """True if gradients need a scaler: float16 alone has too small a range of exponents."""
        return self.precision == "fp16"

    @property
    def is_reproducible(self) -> bool:
        """True if the same steps give the same bits in another process on this machine."""
        return self.deterministic or self.device.type == "cpu"

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in place, with convolution weights in the memory format."""
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        moved: nn.Module = model.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        return moved

    def compile_model(self, model: nn.Module) -> nn.Module:
        """Return the model compiled if `compile` is `model`, else the model itself.

        Each batch size gets its own graph. A graph with dynamic sizes would round differently from the static graph it
        replaces, and the step at which it is compiled would depend on the order of sizes, which a restart changes.
        """
        return cast(nn.Module, torch.compile(model, dynamic=False)) if self.compile == "model" else model

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device, with images [B, C, H, W] in the memory format."""
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context manager for forward passes."""
        if self.precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
            return torch.autocast(self.device.type, dtype=dtype)
        return nullcontext()

    @contextmanager
    def switches(self) -> Iterator[None]:
        """Set PyTorch's process-wide switches, and restore them on exit: jobs of a sweep share the process.

        With `deterministic`, PyTorch raises an error for operations without a deterministic implementation. Without it,
        cuDNN benchmarks convolution algorithms. On CUDA, TF32 is enabled for the precision `tf32` only. Compiled runs
        get a limit that allows a graph per batch size: past the limit, which a restart may reach at another step,
        `torch.compile` falls back to eager code.
        """
        cudnn = torch.backends.cudnn
        before = cudnn.benchmark
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        if self.deterministic or self.device.type == "cuda":
            configure_cublas()
        _use_deterministic_algorithms(self.deterministic)
        cudnn.benchmark = not self.deterministic
        try:
            with (
                self.float32() if self.device.type == "cuda" else nullcontext(),
                _compiler_settings(self.max_graphs) if self.compile != "off" else nullcontext(),
            ):
                yield
        finally:
            _use_deterministic_algorithms(was_deterministic)
            cudnn.benchmark = before

    @contextmanager
    def float32(self) -> Iterator[None]:
        """Set how PyTorch computes float32 on GPUs, with TF32 or not, and restore it on exit; see `switches`."""
        is_tf32 = self.precision == "tf32"
        name = "tf32" if is_tf32 else "ieee"
        ignore_warning("Please use the new API settings")  # of the older switches
        before = _read_float32()
        _write_float32([name, name, name, "ieee"], "high" if is_tf32 else "highest", is_tf32)
        try:
            yield
        finally:
            _write_float32(*before)


def _read_float32() -> tuple[list[str], str, bool]:
    """Return PyTorch's switches for float32: those of operations, and the older ones of products and of cuDNN.

    The older switches are kept besides the others, and reading one that contradicts them is an error. Therefore the
    others are all `ieee` afterwards: then only cuDNN's can contradict them, if it is True.
    """
    operations = [operation.fp32_precision for operation in _operations()]
    for operation in _operations():
        operation.fp32_precision = "ieee"
    matmul = torch.get_float32_matmul_precision()
    try:
        cudnn = torch.backends.cudnn.allow_tf32
    except RuntimeError:
        cudnn = True
    return operations, matmul, cudnn


def _write_float32(operations: Sequence[str], matmul: str, cudnn: bool) -> None:
    """Set PyTorch's switches for float32, as `_read_float32` returns them; the older ones change the others."""
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn
    for operation, precision in zip(_operations(), operations, strict=True):
        operation.fp32_precision = precision


def _operations() -> list[Any]:
    """Return the operations that have a switch: products, convolutions and recurrences on GPUs, and oneDNN's products.

    The last is set as well, since the older switch, `torch.set_float32_matmul_precision`, must agree with it too.
    """
    from torch.backends.cudnn import rnn

    conv = getattr(torch.backends.cudnn, "conv")  # noqa: B009  torch's stubs lack these
    return [torch.backends.cuda.matmul, conv, rnn, getattr(torch.backends.mkldnn, "matmul")]  # noqa: B009


def _use_deterministic_algorithms(mode: bool) -> None:
    if torch.are_deterministic_algorithms_enabled() != mode:  # the call imports torch._dynamo, which takes a second
        torch.use_deterministic_algorithms(mode)


@contextmanager
def _compiler_settings(max_graphs: int) -> Iterator[None]:
    """Raise the limits of graphs, and silence warnings that the user cannot act on."""
    from torch._dynamo import config  # takes a second, which only compiled runs spend

    if not torch.cuda.is_available():  # with a CUDA toolkit but no card, torch warns in every compiled run
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    limits = {
        "recompile_limit": max_graphs,
        "accumulated_recompile_limit": max(max_graphs, config.accumulated_recompile_limit),
    }
    ignore_warning("TensorFloat32 tensor cores")  # the precision is the user's choice
    ignore_warning(r"\s*Online softmax is disabled")  # a hint to the authors of torch
    with config.patch(limits):
        yield
