"""Reading of many images by threads, in order."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def map_in_order(function: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """Yield `function(i)` for i from 0 to `count` - 1, in order, computed by threads at most 256 ahead."""
    if threads == 1:
        yield from map(function, range(count))
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, 256):
            yield from pool.map(function, range(start, min(start + 256, count)))
