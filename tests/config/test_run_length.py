"""Times as users type them, and the keys that determine the length of a run."""

import pytest

from resnet_cli.config.durations import format_seconds, parse_seconds
from resnet_cli.config.run_length import BUDGET, EPOCHS, keys_without_difference, require_one_length
from resnet_cli.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30 min", 1800), ("1h30m", 5400), ("90 s", 90), ("2 h", 7200), ("1.5 hours", 5400), ("1 d", 86400),
        ("1h 5 min 10s", 3910), (45, 45), (0.5, 0.5), ("45", 45), ("20 SEC", 20),
        ("", None), ("30 minuts", None), ("1h and", None), ("-5 s", None), ("0 s", None), (0, None), (True, None),
        ("nan", None), ("inf", None), ("min", None), (None, None), ([1], None), ("1:30", None),
    ],
)  # fmt: skip
def test_times_are_read_as_users_type_them(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.034, "0.034 s"), (2.54, "2.5 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"), (3900, "1 h 5 min"), (180000, "2 d 2 h"),
    ],
)  # fmt: skip
def test_times_are_said_with_two_units(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("given", "in_files", "is_wrong"),
    [
        ([BUDGET], [], False),
        ([BUDGET, EPOCHS], [], True),
        ([EPOCHS], [BUDGET], True),
        ([BUDGET], [EPOCHS], False),
        ([], [BUDGET, EPOCHS], True),
    ],
)
def test_a_budget_and_epochs_are_not_both_given(given, in_files, is_wrong):
    settings = {"trainer": {"epochs": 20, "time_budget": "1 h"}}
    if is_wrong:
        with pytest.raises(
            InputError, match=r"^trainer\.epochs: 20 cannot be combined with trainer\.time_budget=1 h, which"
        ):
            require_one_length(settings, given, in_files)
    else:
        require_one_length(settings, given, in_files)
    require_one_length({"trainer": {"epochs": 20, "time_budget": None}}, given, in_files)


def test_the_same_budget_keeps_what_it_chose():
    chosen = {BUDGET: "1 h", EPOCHS: 90}
    assert EPOCHS in keys_without_difference(chosen, {BUDGET: "60 min", EPOCHS: 20})
    assert not keys_without_difference(chosen, {BUDGET: "2 h", EPOCHS: 20})
    assert not keys_without_difference({EPOCHS: 20}, {BUDGET: "2 h", EPOCHS: 20})
    assert keys_without_difference(chosen, {EPOCHS: 180}) == {BUDGET}
