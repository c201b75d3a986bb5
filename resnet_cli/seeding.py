"""Randomness as a function of (seed, purpose, epoch, step): no generator state has to survive a restart."""

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Hash `parts` to a seed from 0 to 2**63 - 1.

    Equal parts have the same seed on every machine and in every version of Python. An integer and its string differ
    (`1` and `"1"`), and so do different splits of the same letters (`"ab", "c"` and `"a", "bc"`).
    """
    digest = _prefix_digest(parts[:-1]).copy()
    for part in parts[-1:]:
        digest.update(_encode(part))
    return int.from_bytes(digest.digest(), "big") >> 1


@lru_cache(maxsize=16)
def _prefix_digest(parts: tuple[int | str, ...]) -> "hashlib.blake2b":
    """Hash all parts but the last, which alone changes from step to step."""
    return hashlib.blake2b(b"".join(map(_encode, parts)), digest_size=8)


def _encode(part: int | str) -> bytes:
    data = part.encode() if isinstance(part, str) else b"%d" % part
    return b"%c%d:%b" % (b"s" if isinstance(part, str) else b"i", len(data), data)


@contextmanager
def random_state_kept(device: torch.device | None = None, *, python: bool = True) -> Iterator[None]:
    """Restore torch's random state of the CPU and of GPUs on exit.

    Args:
        device: The GPU that is used, if one is; without it, all GPUs if CUDA is in use.
        python: Also restore the global states of Python and NumPy.
    """
    devices: list[int | torch.device] = []
    if device is not None and device.type == "cuda":
        devices = [device]
    elif device is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = list(range(torch.cuda.device_count()))
    with python_random_state_kept() if python else nullcontext(), torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def python_random_state_kept() -> Iterator[None]:
    """Restore the global random states of Python and NumPy on exit."""
    python, numpy = random.getstate(), sys.modules.get("numpy.random")  # NumPy imports it when it is first used
    state = None if numpy is None else numpy.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(state)
        elif "numpy.random" in sys.modules:
            np.random.seed()  # from the operating system, as when it was imported


def python_random_state() -> tuple[Any, Any]:
    """Return the states of the global random generators of Python and NumPy, for `set_python_random_state`."""
    return random.getstate(), np.random.get_state(legacy=False)


def set_python_random_state(state: tuple[Any, Any]) -> None:
    """Set the global random generators of Python and NumPy."""
    python, numpy = state
    random.setstate(python)
    np.random.set_state(numpy)


def reseed_python(state: tuple[Any, Any]) -> None:
    """Seed the global random generators of Python and NumPy by numbers that each draws in `python_random_state`'s."""
    set_python_random_state(state)
    random.seed(random.getrandbits(63))
    np.random.seed(int(np.random.randint(2**32, dtype=np.uint64)))


def seed_python(seed: int) -> None:
    """Seed the global random generators of Python and NumPy."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_everywhere(seed: int) -> None:
    """Seed the global random generators of torch, on all devices, of Python and of NumPy."""
    torch.manual_seed(seed)
    seed_python(seed)


def seeded_generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """Return a generator on `device` seeded with `parts`, such as `seeded_generator("cpu", seed, "order", epoch)`.

    Creating one takes about 3 us. The algorithm depends on the device: a CPU and a GPU draw different numbers.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(*parts))
    return generator
