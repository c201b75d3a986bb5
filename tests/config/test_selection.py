"""What the best epoch is selected by, in rows and records."""

import math

import pytest

from resnet_cli.config import selection

ROWS = [
    {"epoch": 1, "val_accuracy": 90.0, "val_loss": 0.9, "val_balanced_accuracy": 40.0},
    {"epoch": 2, "val_accuracy": 90.0, "val_loss": 0.8, "val_balanced_accuracy": 50.0},
    {"epoch": 3, "val_accuracy": 80.0, "val_loss": 0.5, "val_balanced_accuracy": 60.0},
    {"epoch": 4, "val_accuracy": 81.0, "val_loss": 0.5, "val_balanced_accuracy": None},
]


@pytest.mark.parametrize(("name", "epoch"), [("val_accuracy", 2), ("val_loss", 4), ("val_balanced_accuracy", 3)])
def test_the_best_row_is_the_first_by_its_measure_then_by_the_other(name, epoch):
    assert max(ROWS, key=lambda row: selection.ranking(row, name))["epoch"] == epoch


def test_the_score_of_a_record_is_that_of_its_measure():
    assert selection.selected_score({"best": {**ROWS[0], "select_by": "val_loss"}}) == 0.9
    assert selection.rank_of_best({"best": {**ROWS[0], "select_by": "val_loss"}}) == -0.9
    assert selection.selected_score({"best": ROWS[0]}) == 90.0  # of a version that did not say
    for record in ({}, {"best": None}, {"best": {"val_accuracy": math.nan}}, {"best": "none"}):
        assert selection.rank_of_best(record) is None


@pytest.mark.parametrize("best", [None, [1], *({"val_accuracy": value} for value in ("n/a", True, 10**400))])
def test_a_record_without_a_number_has_no_score(best):
    assert selection.selected_score({"best": best}) is None
    assert selection.rank_of_best({"best": best}) is None
