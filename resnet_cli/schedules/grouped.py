"""GroupedSchedule: the schedule of a run in which parameter groups have schedules of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupedSchedule:
    """Factor on the learning rates as a function of the step, with separate factors for some parameter groups.

    Attributes:
        default: Schedule of all other groups.
        groups: The `schedule` entry of a parameter group, which is its pattern -> schedule of that group.
    """

    default: Callable[[int], float]
    groups: Mapping[str, Callable[[int], float]]

    def __call__(self, step: int) -> float:
        """Return the factor of the groups without a schedule of their own."""
        return self.default(step)
