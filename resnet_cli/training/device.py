"""Devices and precisions: names from the config resolved on this machine, and seeding of a device's generator."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from resnet_cli.seeding import derive_seed, python_random_state, reseed_python, seed_python

PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]

TORCH_ALONE = ("torch", "torchvision", "resnet_cli")  # packages whose layers and losses draw from torch's generators


def resolve_device(name: str | torch.device | None) -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:1` or `mps` on this machine; None is `cpu`.

    For CUDA, also set what cuBLAS reads when the process first uses it.

    Raises:
        ValueError: the device is unknown or not available on this machine.
    """
    device = _find_device(name)
    if device.type == "cuda":
        configure_cublas()
    return device


def configure_cublas() -> None:
    """Set the workspace that cuBLAS needs for deterministic products, unless the user has set one.

    PyTorch looks at this in the first product of the process and never again, so it is set for all runs: a
    deterministic one may follow in the process, as in a sweep, after a plan or in a notebook.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _find_device(name: str | torch.device | None) -> torch.device:
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device("cpu" if name is None else name)
    except (RuntimeError, TypeError):
        raise ValueError(f"trainer.device: {name!r} is not a device; it takes auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(
                f"trainer.device: {name} is not available on this machine: {count} CUDA devices; "
                "use trainer.device=auto or cpu"
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("trainer.device: mps is not available on this machine; use trainer.device=auto or cpu")
    if device.type not in ("cpu", "mps"):
        raise ValueError(f"trainer.device: {name} is not supported; it takes auto, cpu, cuda, cuda:1 or mps")
    return device


def device_of_model(model: torch.nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def device_name(device: torch.device) -> str:
    """Return a description for logs: the card's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads != 1 else ''})" if device.type == "cpu" else str(device)


def has_bf16_matrix_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return True if this CPU multiplies bfloat16 in hardware; False also if the kernel does not list its features.

    The features are Intel's AMX and the dot products of AVX-512. On a Zen 4 they made matrix products 2.4 times as fast
    as in float32, and convolutions with their gradients 1.7 to 2 times.
    """
    try:
        return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False


def resolve_precision(name: PrecisionName, device: torch.device, *, cpu_bf16: bool = False) -> str:
    """Return the precision with `auto` resolved on a device: `fp32`, `tf32`, `bf16` or `fp16`.

    On CUDA, `auto` is bf16 where the GPU supports it (compute capability 8.0 and newer), else fp16. Elsewhere it is
    fp32, except on a CPU that multiplies bf16 in hardware if `cpu_bf16` is true.

    Raises:
        ValueError: the device does not support the precision.
    """
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if device.type == "cpu" and cpu_bf16 and has_bf16_matrix_units() else "fp32"
    if name == "tf32" and device.type != "cuda":
        raise ValueError(f"trainer.precision: tf32 needs a CUDA device, and this run is on {device}; use auto or fp32")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("trainer.precision: fp16 is not supported on the CPU; use auto, fp32 or bf16")
    return name


def seed_device(device: torch.device, *parts: int | str, python: bool = False) -> None:
    """Seed the device's default generator, which dropout draws from, and the CPU's with `derive_seed(*parts)`.

    Seeding one generator takes about 2 us; `torch.manual_seed` seeds every device in about 220 us.

    Args:
        device: The device that is trained on. Nets may draw single numbers on the CPU even if it is another one.
        *parts: What the draws are a function of.
        python: Also seed the global generators of Python and NumPy, which takes about 15 us; see `draws_outside_torch`.
    """
    seed = derive_seed(*parts)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    torch.default_generator.manual_seed(seed)
    if python:
        seed_python(seed)


@contextmanager
def reseeded_for_caller(device: torch.device, *, python: bool = False) -> Iterator[None]:
    """On exit, seed the generators that `seed_device` seeds by the states that they had on entry.

    What the caller draws next is then a function of what it has seeded and drawn itself, and not of seeds inside the
    block. It differs after each block, as if the block had drawn from these generators. Inside, nothing changes.

    Args:
        device: As in `seed_device`.
        python: As in `seed_device`.
    """
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.default_generators[device.index or 0].get_state())
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    outside = python_random_state() if python else None
    try:
        yield
    finally:
        seed_device(device, "caller", *(state.numpy().tobytes().hex() for state in states))
        if outside is not None:
            reseed_python(outside)


def draws_outside_torch(*parts: object) -> bool:
    """Return whether models, losses or optimizers may draw from Python's or NumPy's generators: user-defined ones."""
    whole = [part.func if isinstance(part, partial) else part for part in parts]
    found = [module for part in whole for module in (part.modules() if isinstance(part, torch.nn.Module) else [part])]
    packages = {(getattr(one, "__module__", None) or "").partition(".")[0] for one in found if one is not None}
    return not packages.issubset(TORCH_ALONE)
