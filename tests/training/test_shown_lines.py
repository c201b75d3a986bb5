"""What `verbose` calls of a trainer show: lines that logging would drop are printed, and others are not doubled."""

import logging
import sys
from types import ModuleType

import pytest

from resnet_cli.errors import InputError
from resnet_cli.runs.logs import RunLog
from resnet_cli.streams import NOTEBOOK_COLUMNS
from resnet_cli.training.epoch_lines import log_epoch
from resnet_cli.training.shown_lines import lines_shown
from tests.support.trainers import loader, make_trainer, net

LOGGER = logging.getLogger("resnet_cli")
ROW = {"epoch": 3, "step": 9, "lr": 0.002128, "train_loss": 1.25, "train_accuracy": 41.2, "val_loss": 29.4751,
       "val_accuracy": 100.0, "samples_per_second": 1234.0, "seconds": 3.5}  # fmt: skip


def settings():
    return LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)


def without_configuration(monkeypatch):
    """Remove the handlers of pytest, which it adds before each phase of a test."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def begins(text):
    return [line[:9] for line in text.splitlines()]


def test_a_program_that_has_not_configured_logging_sees_the_lines(monkeypatch, capsys):
    without_configuration(monkeypatch)
    trainer = make_trainer(net())
    trainer.fit(loader(), loader(), num_epochs=2)
    trainer.test_epoch(loader())
    assert begins(capsys.readouterr().out) == ["epoch 1/2", "epoch 2/2", "test loss"]
    trainer.fit(loader(), loader(), num_epochs=1, verbose=False)
    trainer.test_epoch(loader(), verbose=False)
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="no batch"):
        trainer.fit([], None, num_epochs=1)
    assert settings() == (logging.NOTSET, True, [])


def test_lines_of_an_epoch_by_hand_are_shown_too(monkeypatch, capsys):
    without_configuration(monkeypatch)
    monkeypatch.setattr("resnet_cli.training.progress.LINE_SECONDS", -1.0)
    make_trainer(net()).train_epoch(loader())
    assert begins(capsys.readouterr().out) == ["epoch 1  "] * 3


def test_lines_that_the_caller_s_handlers_take_are_not_printed_too(capsys, caplog):
    with caplog.at_level("INFO"):
        make_trainer(net()).fit(loader(), None, num_epochs=1)
        assert settings() == (logging.NOTSET, True, [])
    assert begins("\n".join(caplog.messages)) == ["epoch 1/1"]
    assert capsys.readouterr().out == ""


def test_lines_in_a_run_are_shown_once(capsys):
    with RunLog():
        make_trainer(net()).fit(loader(), None, num_epochs=1)
    assert begins(capsys.readouterr().out) == ["epoch 1/1"]


def test_with_a_root_logger_for_warnings_they_go_there_and_the_lines_are_printed(capsys, caplog):
    trainer = make_trainer(net(), lr=0.0, early_stopping=1, epochs=50)
    trainer.fit(loader(), loader(), verbose=False)
    trainer.fit(loader(), loader(), 5)
    assert capsys.readouterr().out == ""
    trainer.fit(loader(), loader(), 1, early_stopping=0)
    assert begins(capsys.readouterr().out) == ["epoch 3/3"]
    assert [message.partition(":")[0] for message in caplog.messages] == ["nothing to train"]


def test_a_level_that_the_caller_gave_the_package_s_logger_is_kept(monkeypatch, capsys):
    without_configuration(monkeypatch)
    LOGGER.setLevel(logging.WARNING)
    make_trainer(net()).fit(loader(), None, num_epochs=1)
    assert capsys.readouterr().out == ""
    assert LOGGER.level == logging.WARNING


def test_lines_fit_into_a_notebook(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    with lines_shown(verbose=True):
        log_epoch(ROW, 20, is_best=True, seconds_left=3599.0)
    line = capsys.readouterr().out.rstrip("\n")
    assert 0 < len(line) <= NOTEBOOK_COLUMNS
