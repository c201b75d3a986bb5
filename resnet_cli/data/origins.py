"""Where the parts of a data set come from, in words: folders, a column of a table, or held out of another part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Origins:
    """Where each part of a data set comes from.

    Args:
        train: Of the training images.
        test: Of the test images.
        val: Of the validation images; None if the data set has none of its own, or none are used.
        hint: What to set if something was inferred wrongly; empty if nothing is likely to be.
    """

    train: str
    test: str
    val: str | None = None
    hint: str = ""

    def format(self) -> str:
        """Return one line that says it."""
        val = "no validation images (data.val_fraction=0)" if self.val is None else f"validation {self.val}"
        line = f"training {self.train}; {val}; test {self.test}"
        return f"{line}; {self.hint}" if self.hint else line

    def with_validation(self, setting: str) -> "Origins":
        """Return the origins where the validation images are held out of the training images by a setting."""
        return replace(self, val=held_out(setting))

    @classmethod
    def of_parts(cls, names: Mapping[str, str], test_fraction: float, hint: str = "") -> "Origins":
        """Return the origins of a data set whose test part is held out if it has none.

        Args:
            names: Where `train` and, if present, `test` and `val` were found.
            test_fraction: Fraction of the training images that is held out for testing if there is no `test`.
            hint: As in the class.
        """
        test = f"from {names['test']}" if "test" in names else held_out(f"data.test_fraction={test_fraction:g}")
        val = f"from {names['val']}" if "val" in names else None
        return cls(f"from {names['train']}", test, val, hint)


def held_out(setting: str) -> str:
    """Return the words for a part that is held out of the training images by a setting."""
    return f"held out of training ({setting})"
