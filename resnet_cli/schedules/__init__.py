"""Learning-rate schedules: pure functions of the step, importable and plottable without torch."""

from resnet_cli.schedules.curves import Schedule, Warmup, constant, cosine, multistep, one_cycle, piecewise_linear
from resnet_cli.schedules.grouped import GroupedSchedule
from resnet_cli.schedules.run_length import RunLength

__all__ = [
    "GroupedSchedule",
    "RunLength",
    "Schedule",
    "Warmup",
    "constant",
    "cosine",
    "multistep",
    "one_cycle",
    "piecewise_linear",
]
