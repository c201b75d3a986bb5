"""Schedules of parameter groups: in a run they set the rates of their groups alone."""

import pytest

from resnet_cli.errors import InputError
from resnet_cli.session import build

POINTS = {"_target_": "resnet_cli.schedules.piecewise_linear", "points": [[0, 1.0], [2.5, 0.0]]}
CONSTANT = {"_target_": "resnet_cli.schedules.constant"}


def test_groups_have_factors_of_their_own_in_fractional_epochs():
    groups = {"bias": {"schedule": POINTS}, "head": {"lr": 3.0}}
    schedule = build.schedule(CONSTANT, total_steps=40, steps_per_epoch=4, groups=groups)
    assert [schedule(step) for step in (0, 5, 39)] == [1, 1, 1]
    assert set(schedule.groups) == {"bias"}
    assert [schedule.groups["bias"](step) for step in (0, 5, 10, 39)] == [1, 0.5, 0, 0]


def test_without_schedules_of_groups_it_is_the_run_s():
    plain = build.schedule(CONSTANT, total_steps=40, steps_per_epoch=4, groups={"head": {"lr": 3.0}})
    assert plain == build.schedule(CONSTANT, total_steps=40, steps_per_epoch=4)


def test_a_schedule_of_a_group_that_is_too_long_is_named():
    groups = {"bias": {"schedule": POINTS}}
    with pytest.raises(InputError, match=r"optimizer\.groups\.bias\.schedule\.points: 2\.5 .* beyond the end"):
        build.schedule(CONSTANT, total_steps=8, steps_per_epoch=4, groups=groups)
