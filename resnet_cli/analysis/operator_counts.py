"""Multiply-adds of operators that a module runs itself: products of matrices that are no layer, as in attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


class OperatorCounter:
    """Separates the operators that a module's call ran itself from those of the calls inside it.

    Args:
        flops: Counts the operators, two for each multiply-add.
    """

    def __init__(self, flops: "FlopCounterMode") -> None:
        self._flops, self._attributed = flops, 0
        self._before: dict[str, int] = {}

    def start_call(self, name: str) -> None:
        """Note that a call of a module begins."""
        self._before[name] = self._unattributed()

    def count_call(self, name: str) -> int:
        """Return the multiply-adds since the call of a module began that are attributed to no call inside it."""
        return self._unattributed() - self._before[name]

    def attribute(self, multiply_adds: int) -> None:
        """Leave out multiply-adds of a call that ends from the counts of the calls around it."""
        self._attributed += multiply_adds

    def _unattributed(self) -> int:
        return self._flops.get_total_flops() // 2 - self._attributed


@contextmanager
def count_operators() -> Iterator[OperatorCounter]:
    """Count products of matrices and convolutions; attention is computed by such operators, not by one of its own."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes a while

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            yield OperatorCounter(flops)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
