"""TimeLeft: how long the rest of a run takes, by its recent epochs."""

from collections import deque

LEAST_EPOCHS, LEAST_SECONDS = 5, 10.0  # that count as recent; a machine that others use changes its speed


class TimeLeft:
    """Estimates the time left from the recent epochs; the first counts only while it is alone, since it warms up."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.epochs = 0

    def add(self, seconds: float) -> None:
        """Add a whole epoch: its steps, validation and saves."""
        self.epochs += 1
        if self.epochs == 2:
            self._recent.clear()
        self._recent.append(seconds)
        while len(self._recent) > LEAST_EPOCHS and sum(self._recent) - self._recent[0] >= LEAST_SECONDS:
            self._recent.popleft()

    def estimate(self, epochs: int) -> float | None:
        """Return the seconds that `epochs` more epochs take; None before the first epoch."""
        return sum(self._recent) / len(self._recent) * epochs if self._recent else None
