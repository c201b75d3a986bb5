"""Numbers of a plan in words."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

from resnet_cli.config.counts import counted, format_number

SQUARED = {"crop": "cropped", "squash": "squashed", "pad": "padded"}  # by `data.resize`
MOST_EXACT = 10  # from which a ratio is rounded to a whole number


def about_epochs(passes: float) -> str:
    """Return about how many epochs a number of passes is, in words."""
    if passes < 0.95:
        return f"{passes:.1g} of an epoch" if passes >= 0.05 else "hardly any of an epoch"
    return f"about {counted(round(passes), 'epoch')}"


def describe_scaling(facts: Mapping[str, Any], own_side: int, side: int) -> str:
    """Return the size of files, and what becomes of them as squares, in words.

    Args:
        facts: The facts of a plan.
        own_side: The side of the squares if files are not scaled, in pixels.
        side: The side of the squares, in pixels.
    """
    kept = "as they are" if side == own_side else "reduced" if side < own_side else "enlarged to the smallest size"
    short, long = facts["short_side"], facts["long_side"]
    if facts["aspect"] <= 1 or facts["resize"] is None:
        return f"files of {counted(short, 'pixel')}, {kept}"
    squared = f"{SQUARED[facts['resize']]} to squares"
    return f"files of {short:,} x {long:,} pixels, {squared if side == own_side else f'{kept} and {squared}'}"


class Wording(Formatter):
    """Formats texts of rules: `{images:training image}` counts, and `{imbalance:times}` is a ratio."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a value in words if the specification is a noun or `times`, else as `str.format` does."""
        if format_spec == "times":
            return f"{format_number(round(value) if value >= MOST_EXACT else value)} times"
        is_noun = format_spec[:1].isalpha() and len(format_spec) > 1  # not `d`, `.2g` or `,`
        return counted(value, format_spec) if is_noun else format(value, format_spec)
