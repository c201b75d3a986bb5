"""Intervals by the bootstrap over images (Efron 1979): the spread of a metric over images drawn with replacement.

Shapes: N images, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Estimates = dict[str, Floats]
Statistic = Callable[[Floats], Estimates]  # weights [R, N] -> values [R] by name

LEVEL = 95  # percent of the resamples that lie in an interval
RESAMPLES = 1000
FEWEST = 200  # defined resamples that an interval needs
CHUNK = 2_000_000  # weights that are drawn at once: 16 MB


def draw_weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each resample contains each image, float64 [r, N], in chunks of r resamples.

    Args:
        count: N; each resample has as many images.
        resamples: R.
        seed: The weights are a function of these three numbers alone.
    """
    source = np.random.default_rng(seed)
    at_once = max(1, CHUNK // max(count, 1))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = source.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def bootstrap_intervals(
    count: int, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, list[float]]:
    """Return the confidence interval of each metric: percentiles over resamples, [low, high].

    Resamples in which a metric is undefined (NaN) are left out; a metric with too few others gets no interval.

    Args:
        count: Number of images.
        statistic: Computes the metrics of resamples.
        resamples: Number of resamples.
        seed: Seed of the draw.
    """
    found: dict[str, list[Floats]] = {}
    for weights_RN in draw_weights(count, resamples, seed):
        for name, values_R in statistic(weights_RN).items():
            found.setdefault(name, []).append(values_R)
    tail = (100 - LEVEL) / 2
    intervals = {}
    for name, parts in found.items():
        values_R = np.concatenate(parts)
        values_R = values_R[np.isfinite(values_R)]
        if len(values_R) >= min(FEWEST, resamples):
            intervals[name] = [float(bound) for bound in np.percentile(values_R, [tail, 100 - tail])]
    return intervals


def point_estimates(count: int, statistic: Statistic) -> dict[str, float]:
    """Return the metrics of the images themselves, each counted once."""
    return {name: float(values_R[0]) for name, values_R in statistic(np.ones((1, count))).items()}


def to_plain(value: Any) -> Any:
    """Return plain data for JSON, with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
