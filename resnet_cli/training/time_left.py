"""TimeLeft: estimate of the time left in a run, from its recent epochs."""

from collections import deque

LEAST_EPOCHS, LEAST_SECONDS = 5, 10.0  # minimum span of the recent epochs; a shared machine changes its speed


class TimeLeft:
    """Estimates the time left from the recent epochs.

    The first epoch warms up: it counts only while it is alone, and not at all if it takes less than ten seconds.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.epochs = 0

    def add(self, seconds: float) -> None:
        """Add the time of a whole epoch: its steps, validation and saves."""
        self.epochs += 1
        if self.epochs == 2:
            self._recent.clear()
        self._recent.append(seconds)
        while len(self._recent) > LEAST_EPOCHS and sum(self._recent) - self._recent[0] >= LEAST_SECONDS:
            self._recent.popleft()

    def estimate(self, epochs: int) -> float | None:
        """Return the seconds that `epochs` more epochs take; None while no epoch counts."""
        if self.epochs == 0 or (self.epochs == 1 and self._recent[0] < LEAST_SECONDS):
            return None
        return sum(self._recent) / len(self._recent) * epochs
