"""Randomness as a function of (seed, purpose, epoch, step): no generator state has to survive a restart."""

import hashlib
from contextlib import AbstractContextManager
from functools import lru_cache

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


def random_state_kept(device: torch.device | None = None) -> AbstractContextManager[None]:
    """Return a context manager that restores torch's random state of the CPU and of GPUs on exit.

    Args:
        device: The GPU that is used, if one is; without it, all GPUs if CUDA is in use.
    """
    if device is not None:
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if in_use else ())


def seeded_generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """Return a generator on `device` seeded with `parts`, such as `seeded_generator("cpu", seed, "order", epoch)`.

    Creating one takes about 3 us. The algorithm depends on the device: a CPU and a GPU draw different numbers.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(*parts))
    return generator
