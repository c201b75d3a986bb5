"""Statistics of a measure over runs."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """Mean, sample standard deviation (None for a single value) and number of values."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def from_values(cls, values: Iterable[float | None]) -> "Statistics | None":
        """Return the statistics of the values that are not None, or None if there are none."""
        present = [value for value in values if value is not None]
        if not present:
            return None
        return cls(statistics.fmean(present), statistics.stdev(present) if len(present) > 1 else None, len(present))
