"""Fixtures of the tests of loggers."""

import pytest

from resnet_cli.session import record as run_record
from resnet_cli.training.trainer import ClassifierTrainer
from tests.support.loggers import ROW


@pytest.fixture
def untrained(monkeypatch):
    """Replace training and the test by one row, so that a run takes no time."""

    def evaluate_test_set(prepared, *_):
        prepared.loggers.row(ROW)
        prepared.run.update_record(status="finished")

    monkeypatch.setattr(ClassifierTrainer, "fit", lambda *_, **__: None)
    monkeypatch.setattr(run_record, "evaluate_test_set", evaluate_test_set)
