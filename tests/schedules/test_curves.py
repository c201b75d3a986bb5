"""Schedules: durations, warm-up, shapes, and the same trajectories as torch's schedulers."""

import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.errors import InputError
from resnet_cli.schedules import RunLength, constant, cosine, multistep, one_cycle, piecewise_linear

EPOCH = 10
MAKERS = {
    "constant": constant,
    "multistep": lambda **options: multistep(milestones=["50%", "75%"], **options),
    "cosine": lambda **options: cosine(final=0.1, **options),
    "one_cycle": lambda **options: one_cycle(peak_at="50%", **options),
    "one_cycle_cosine": lambda **options: one_cycle(peak_at="50%", shape="cosine", **options),
    "piecewise_linear": lambda **options: piecewise_linear(points=[(0, 0.2), ("50%", 1), ("90%", 0.07)], **options),
}
every_schedule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
quick = settings(max_examples=30, deadline=None)


def trajectory(schedule, total):
    return [schedule(step) for step in range(total)]


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(0, 0), (3, 30), (0.27, 3), (1.5, 15), ("400 steps", 400), ("1 step", 1), ("5 epochs", 50), ("0.5epochs", 5),
     ("10%", 20), ("12.5 %", 25), ("1e2 steps", 100), (" 2 epochs ", 20)],
)  # fmt: skip
def test_durations(duration, expected):
    assert RunLength(200, EPOCH).parse_duration(duration) == expected


@pytest.mark.parametrize(
    "duration",
    ["", "5", "five epochs", "5 hours", "-1 epochs", -1, "2.5 steps", "nan%", "%", "1.2.3%"],
)
def test_malformed_durations_name_key_value_and_what_is_allowed(duration):
    with pytest.raises(InputError, match=r"^warmup=.*: it takes a number of epochs .*steps.*%") as caught:
        cosine(total_steps=100, steps_per_epoch=EPOCH, warmup=duration)
    assert repr(duration) in str(caught.value)


def test_milestones_give_torchs_trajectory():
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.4)
    expected = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 45], gamma=0.2)
    schedule = multistep(total_steps=60, steps_per_epoch=EPOCH, milestones=[3, "75%"], gamma=0.2)
    for step in range(65):
        assert 0.4 * schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        expected.step()


def test_cosine_gives_torchs_trajectory():
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.4)
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60, eta_min=0.02)
    schedule = cosine(total_steps=60, steps_per_epoch=EPOCH, final=0.05)
    for step in range(61):
        assert 0.4 * schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        expected.step()


def test_he_recipe_of_resnet_110():
    schedule = multistep(
        total_steps=64_000, steps_per_epoch=391, milestones=["32000 steps", "48000 steps"],
        warmup="400 steps", warmup_start=0.1, warmup_shape="constant",
    )  # fmt: skip
    for begin, end, factor in ((0, 400, 0.1), (400, 32_000, 1), (32_000, 48_000, 0.1), (48_000, 64_000, 0.01)):
        assert schedule(begin) == schedule(end - 1) == pytest.approx(factor)


@every_schedule
@quick
@given(total=st.integers(1, 300), share=st.integers(0, 50), start=st.floats(0, 0.1))
def test_the_warm_up_climbs_to_the_curve_which_then_goes_on(make, total, share, start):
    plain = make(total_steps=total, steps_per_epoch=EPOCH)
    schedule = make(total_steps=total, steps_per_epoch=EPOCH, warmup=f"{share}%", warmup_start=start)
    length = RunLength(total, EPOCH).parse_duration(f"{share}%")
    ramp = trajectory(schedule, length)
    assert all(0 < factor <= 1 for factor in ramp)
    if length:
        assert ramp == sorted(ramp)
        assert ramp[-1] == pytest.approx(schedule(length))  # no jump
        assert ramp[0] == pytest.approx(start + (schedule(length) - start) / length)  # no step at the start itself
    assert schedule(total) == plain(total)  # it is not stuck
    if share == 0:
        assert trajectory(schedule, total + 5) == trajectory(plain, total + 5)


@every_schedule
@quick
@given(total=st.integers(1, 300), warmup=st.integers(0, 50))
def test_factors_stay_in_bounds_and_the_last_one_is_kept(make, total, warmup):
    schedule = make(total_steps=total, steps_per_epoch=EPOCH, warmup=f"{warmup}%", warmup_start=0.01)
    assert all(0 <= factor <= 1 for factor in trajectory(schedule, total))
    assert schedule(total + 1) == schedule(total * 10) == schedule(total)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_one_cycle_rises_to_its_peak_and_falls_to_its_end(shape):
    schedule = one_cycle(total_steps=100, steps_per_epoch=EPOCH, peak_at="30%", start=0.2, final=0.05, shape=shape)
    factors = trajectory(schedule, 101)
    assert (factors[0], factors[30], factors[100]) == pytest.approx((0.2, 1, 0.05))
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)
    # both shapes are symmetric about the middle of each leg, so the trapezoids' area is that of the triangle
    area = sum(factors) - (factors[0] + factors[-1]) / 2
    assert area == pytest.approx(30 * (0.2 + 1) / 2 + 70 * (1 + 0.05) / 2)


def test_the_warm_up_of_one_cycle_ends_at_its_start():
    schedule = one_cycle(total_steps=100, steps_per_epoch=EPOCH, peak_at="50%", start=0.5, warmup="10%")
    assert schedule(9) == schedule(10) == pytest.approx(0.5)
    assert schedule(30) == pytest.approx(0.75)


@pytest.mark.parametrize(("make", "options"), [(cosine, {}), (one_cycle, {"peak_at": "100%"})])
def test_a_warm_up_over_the_whole_run_rises_to_the_peak(make, options):
    """At the end of the run these curves are at 0, which was the end of the warm-up too: no step trained anything."""
    schedule = make(total_steps=10, steps_per_epoch=EPOCH, warmup=1, **options)
    assert trajectory(schedule, 10) == pytest.approx([(step + 1) / 10 for step in range(10)])


def test_points_are_met_jumps_are_sharp_and_outside_is_flat():
    points = [(1, 0.5), (2, 1.0), ("50 steps", 0.4), ("50 steps", 0.1), ("80%", 0.2)]
    schedule = piecewise_linear(total_steps=100, steps_per_epoch=EPOCH, points=points)
    assert [schedule(step) for step in (0, 10, 15, 20, 35, 50, 65, 80, 99)] == pytest.approx(
        [0.5, 0.5, 0.75, 1, 0.7, 0.1, 0.15, 0.2, 0.2]
    )
    assert schedule(49) == pytest.approx(0.42)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (constant, {"warmup": 20}, r"warmup=20 is 200 steps, longer than the run of 100 steps"),
        (constant, {"warmup": 1, "warmup_shape": "constant"}, r"warmup_start=0 with warmup_shape=constant"),
        (multistep, {"milestones": ["75%", "50%"]}, r"milestones: '50%' \(step 50\) comes after '75%' \(step 75\)"),
        (multistep, {"milestones": [5, 60]}, r"milestones: 60 \(step 600\) is beyond the end of the run at step 100"),
        (multistep, {"milestones": [1], "warmup": 2}, r"milestones: 1 \(step 10\) is inside the warm-up.* step 20"),
        (one_cycle, {"peak_at": "10%", "warmup": "20%"}, r"peak_at: '10%' \(step 10\) is inside the warm-up"),
        (one_cycle, {"peak_at": 11}, r"peak_at: 11 \(step 110\) is beyond"),
        (piecewise_linear, {"points": []}, r"points=\[\]: it takes at least one pair"),
        (piecewise_linear, {"points": [[3, 1], [2, 0]]}, r"points: 2 \(step 20\) comes after 3 \(step 30\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_values(make, options, message):
    with pytest.raises(InputError, match=message):
        make(total_steps=100, steps_per_epoch=EPOCH, **options)


def test_all_misplaced_milestones_are_named_at_once():
    with pytest.raises(InputError) as caught:
        multistep(total_steps=100, steps_per_epoch=EPOCH, milestones=[50, 5, 60])
    assert len(caught.value.problems) == 3


@every_schedule
def test_the_shortest_runs(make):
    assert 0 < make(total_steps=1, steps_per_epoch=1)(0) <= 1
    assert 0 <= make(total_steps=0, steps_per_epoch=1)(0) <= 1


@every_schedule
def test_a_schedule_survives_pickling(make):
    schedule = make(total_steps=50, steps_per_epoch=EPOCH, warmup="10%")
    assert trajectory(pickle.loads(pickle.dumps(schedule)), 60) == trajectory(schedule, 60)


def test_importing_schedules_does_not_import_torch():
    code = "import sys, resnet_cli.schedules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
