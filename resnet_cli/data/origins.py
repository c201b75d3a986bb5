"""Descriptions of where the parts of a data set come from: folders, a column of a table, or held out of a part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

HELD_OUT = "held out of training"


@dataclass(frozen=True)
class Origins:
    """Where each part of a data set comes from, in words.

    Args:
        train: Origin of the training images.
        test: Origin of the test images.
        val: Origin of the validation images; None if the data set has none of its own, or none are used.
        hint: Advice for the case that something was inferred wrongly; empty if that is unlikely.
        shared: A line about images that are in two parts, which new runs refuse; empty without any.
    """

    train: str
    test: str
    val: str | None = None
    hint: str = ""
    shared: str = ""

    def format(self) -> str:
        """Return the origins in one line."""
        val = "no validation images (data.val_fraction=0)" if self.val is None else f"validation {self.val}"
        line = f"training {self.train}; {val}; test {self.test}"
        return f"{line}; {self.hint}" if self.hint else line

    @property
    def is_test_held_out(self) -> bool:
        """True if the test images are held out of the training images, which depends on all of these."""
        return self.test.startswith(HELD_OUT)

    def with_validation(self, setting: str) -> "Origins":
        """Return the origins with validation images that a setting holds out of the training images."""
        return replace(self, val=held_out(setting))

    @classmethod
    def of_parts(cls, names: Mapping[str, str], test_fraction: float, hint: str = "") -> "Origins":
        """Return the origins of a data set, with a held-out test part if it has none.

        Args:
            names: Where `train` and, if present, `test` and `val` were found.
            test_fraction: Fraction of the training images that is held out for testing if there is no `test`.
            hint: See `Origins`.
        """
        test = f"from {names['test']}" if "test" in names else held_out(f"data.test_fraction={test_fraction:g}")
        val = f"from {names['val']}" if "val" in names else None
        return cls(f"from {names['train']}", test, val, hint)


def held_out(setting: str) -> str:
    """Describe a part that a setting holds out of the training images."""
    return f"{HELD_OUT} ({setting})"
