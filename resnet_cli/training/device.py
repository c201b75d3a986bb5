"""Which device, which precision, and the process-wide switches that go with them for the length of a run."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from resnet_cli.seeding import derive_seed

GRAPHS = 64  # of one model: sizes of full, last and accumulated batches of three parts, times two modes, come to 18

PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


def resolve_device(name: str | torch.device | None) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:1` or `mps` names here; None is `cpu`.

    Raises:
        ValueError: no such device is known, or this machine does not have it.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name or "cpu")
    except RuntimeError:
        raise ValueError(f"trainer.device: {name!r} is no device; it takes auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(
                f"trainer.device: {name} is not here: {count} CUDA devices; use trainer.device=auto or cpu"
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("trainer.device: mps is not here; use trainer.device=auto or cpu")
    if device.type not in ("cpu", "mps", "meta"):
        raise ValueError(f"trainer.device: {name} is not supported; it takes auto, cpu, cuda, cuda:1 or mps")
    return device


def device_name(device: torch.device) -> str:
    """The device in words, for the log: the card's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads != 1 else ''})" if device.type == "cpu" else str(device)


def has_bf16_matrix_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware. False where the kernel does not say.

    That is Intel's AMX, or the dot products of AVX-512: on a Zen 4 they made matrix products 2.4 times as fast as in
    float32, and convolutions with their gradients 1.7 to 2 times.
    """
    try:
        return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False


@dataclass(frozen=True)
class Precision:
    """A precision as it is used: `name` is one of fp32, tf32, bf16, fp16."""

    name: str
    device: torch.device

    @property
    def scales(self) -> bool:
        """Whether gradients need a scaler: float16 alone has too few exponents."""
        return self.name == "fp16"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes."""
        if self.name in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.name == "bf16" else torch.float16
            return torch.autocast(self.device.type, dtype=dtype)
        return nullcontext()


def resolve_precision(name: PrecisionName, device: torch.device, *, cpu_bf16: bool = False) -> Precision:
    """What `auto` is on a device.

    CUDA: bf16 where the card has it (compute capability 8.0 and newer), else fp16. Elsewhere fp32, but bf16 on a CPU
    that multiplies bf16 in hardware when `cpu_bf16` asks for it.

    Raises:
        ValueError: the device does not have the precision that was asked for.
    """
    if name == "auto":
        if device.type == "cuda":
            return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16", device)
        return Precision("bf16" if device.type == "cpu" and cpu_bf16 and has_bf16_matrix_units() else "fp32", device)
    if name == "tf32" and device.type != "cuda":
        raise ValueError(f"trainer.precision: tf32 needs a CUDA device, and this run is on {device}; use auto or fp32")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("trainer.precision: fp16 is not for the CPU; use auto, fp32 or bf16")
    return Precision(name, device)


@contextmanager
def backend_switches(precision: Precision, *, deterministic: bool, compiled: bool = False) -> Iterator[None]:
    """Set PyTorch's process-wide switches for a run, and put them back: jobs of a sweep must not see each other's.

    `deterministic` makes every operation repeatable on one machine and refuses those that cannot be. Otherwise cuDNN
    measures which convolution is fastest. TF32 is on for `tf32` and off for the others. `compiled` leaves room for a
    graph for each size of batch: past its limit, which may come at another step after a restart, torch goes eager.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    conv = getattr(cudnn, "conv")  # noqa: B009  the stubs do not know it
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, matmul.fp32_precision, conv.fp32_precision)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA is first used
    _set_deterministic(deterministic)
    cudnn.benchmark = not deterministic
    matmul.fp32_precision = conv.fp32_precision = "tf32" if precision.name == "tf32" else "ieee"
    try:
        with _compiler_limits() if compiled else nullcontext():
            yield
    finally:
        _set_deterministic(before[0])
        cudnn.benchmark, matmul.fp32_precision, conv.fp32_precision = before[1:]


def _set_deterministic(mode: bool) -> None:
    if torch.are_deterministic_algorithms_enabled() != mode:  # a call imports the compiler, which takes a second
        torch.use_deterministic_algorithms(mode)


def _compiler_limits() -> AbstractContextManager[Any]:
    from torch._dynamo import config  # takes a second, which only compiled runs spend

    if not torch.cuda.is_available():  # with a CUDA toolkit but no card, torch tells every compiled run so
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    patch: AbstractContextManager[Any] = config.patch(recompile_limit=GRAPHS)
    return patch


def seed_device(device: torch.device, *parts: int | str) -> None:
    """Seed the device's default generator, which dropout draws from, by `mix(*parts)`.

    A generator takes a seed in about 2 us; `torch.manual_seed` seeds every device in about 220 us.
    """
    seed = derive_seed(*parts)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
