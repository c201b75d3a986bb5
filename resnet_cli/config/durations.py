"""Parse durations such as `30 min`, `1h30m`, `90 s` or a number of seconds, and format them for the log."""

import math
import re

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNIT = r"s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?"
PART = re.compile(rf"\s*(\d+(?:\.\d*)?|\.\d+)\s*({UNIT})(?![a-z])\s*", re.IGNORECASE)


def parse_seconds(value: object) -> float | None:
    """Parse a duration and return it in seconds; None if it is not a duration above zero.

    Args:
        value: A number of seconds, or numbers with units in a text, such as `1h30m`.
    """
    seconds: float | None = None
    if type(value) in (int, float):
        seconds = float(value)  # type: ignore[arg-type]
    elif isinstance(value, str):
        seconds = _parse_text(value)
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def _parse_text(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    position, total = 0, 0.0
    while position < len(text):
        part = PART.match(text, position)
        if part is None:
            return None
        total += float(part[1]) * SECONDS[part[2][0].lower()]
        position = part.end()
    return total


def format_seconds(seconds: float) -> str:
    """Return a time in words with its two largest units: `3 min 20 s`, `1 h 5 min`; below ten seconds `2.5 s`."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"


def normalise_duration(value: object) -> object:
    """Return a duration in one spelling, for comparisons: `5 min 0 s` for `300s`; what is no duration as it is."""
    seconds = parse_seconds(value)
    if seconds is None:
        return value
    words = format_seconds(seconds)
    return words if parse_seconds(words) == seconds else f"{seconds:g} s"
