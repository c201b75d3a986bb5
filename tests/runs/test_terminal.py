"""Lines on terminals of several widths, with and without colour; in a pipe they stay as they are."""

import io
import logging
import re
import sys
from types import ModuleType

import pytest

from resnet_cli import streams
from resnet_cli.runs.logs import RunLog, warnings_on_stderr
from resnet_cli.runs.terminal import colour_line, format_record, has_colour, shorten_paths
from resnet_cli.training import epoch_lines

ROW = {"epoch": 3, "step": 9, "lr": 0.002128, "train_loss": 1.25, "train_accuracy": 41.2, "val_loss": 29.4751,
       "val_accuracy": 100.0, "samples_per_second": 1234.0, "seconds": 3.5}  # fmt: skip


class Stream(io.StringIO):
    """A stream that is a terminal, or none."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.fixture
def environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "on_terminal", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_when_there_is_colour(environment, variables, on_terminal, in_pipe):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert (has_colour(Stream(True)), has_colour(Stream(False))) == (on_terminal, in_pipe)


def test_a_closed_stream_has_no_reader():
    stream = io.StringIO()
    stream.close()
    assert not streams.is_terminal(stream)


def logged(monkeypatch, *rows, **options):
    records = []
    monkeypatch.setattr(epoch_lines.logger, "info", lambda *args, extra: records.append((args[1], extra["layouts"])))
    for row, is_best, left in rows:
        epoch_lines.log_epoch(row, 20, is_best=is_best, seconds_left=left, **options)
    return [(text, logging.makeLogRecord({"layouts": layouts})) for text, layouts in records]


@pytest.mark.parametrize("columns", [60, 72, 80, 100, 120, 200])
def test_epochs_are_aligned_at_every_width(environment, columns):
    rows = [
        (ROW, True, 3599.0),
        (
            {**ROW, "epoch": 11, "lr": 0.1, "train_loss": 0.0123, "train_accuracy": 100.0, "samples_per_second": 98.0},
            False,
            61.0,
        ),
        ({**ROW, "epoch": 20, "val_loss": 0.5, "val_accuracy": 9.5, "seconds": 100.0}, True, None),
    ]
    environment.setenv("NO_COLOR", "1")
    environment.setenv("COLUMNS", str(columns))
    found = logged(environment, *rows)
    lines = [format_record(text, record, Stream(True)) for text, record in found]
    assert max(map(len, lines)) <= columns
    assert len({line.index("loss") for line in lines}) == 1
    assert len({re.search(r"  val ", line).start() for line in lines}) == 1
    assert len({line.index("  best") for line in lines if "  best" in line}) == 1
    assert "100.00 %" in lines[1]
    if columns == 200:
        assert lines == [text for text, _ in found]
    assert [format_record(text, record, Stream(False)) for text, record in found] == [text for text, _ in found]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_control_characters_of_names_are_escaped_and_colours_and_lines_stay(environment, is_terminal):
    environment.setenv("FORCE_COLOR", "1")
    stream, layouts = Stream(is_terminal), [(300, "model   a\x1b[2Jb"), (20, "short")]
    record = logging.makeLogRecord({"layouts": layouts if is_terminal else ()})
    environment.setenv("COLUMNS", "400")
    rest = "" if is_terminal else "\nnext\\x07\\x9b\\r\\té"
    shown = format_record("model   a\x1b[2Jb\nnext\x07\x9b\r\té", record, stream)
    assert shown == f"\x1b[2mmodel\x1b[0m   a\\x1b[2Jb{rest}"


def test_the_terminal_gets_escapes_and_the_log_what_was_logged(tmp_path, capsys):
    with RunLog() as log:
        log.attach(tmp_path / "train.log")
        log.info("weights layer\x1b]0;title\x07.weight")
    assert capsys.readouterr().out == "weights layer\\x1b]0;title\\x07.weight\n"
    assert (tmp_path / "train.log").read_text() == "weights layer\x1b]0;title\x07.weight\n"


def test_warnings_go_to_standard_error_unless_the_caller_handles_them(monkeypatch, capsys, caplog):
    package = logging.getLogger("resnet_cli")
    with warnings_on_stderr():
        package.warning("for the caller")
    assert caplog.messages == ["for the caller"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with warnings_on_stderr():
        package.info("not shown")
        package.warning("%s: \x1b[31m\nsecond line", "a.png")
    assert capsys.readouterr() == ("", "a.png: \\x1b[31m\nsecond line\n")
    assert (package.handlers, package.propagate) == ([], True)


def test_a_notebook_has_a_width(environment):
    stream = Stream(False)
    assert streams.columns_of(stream) is None
    environment.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert streams.columns_of(stream) is None
    environment.setattr(sys, "stdout", stream)
    [(text, record)] = logged(environment, (ROW, True, 3599.0))
    assert len(text) > streams.NOTEBOOK_COLUMNS >= len(format_record(text, record, stream))


def test_an_epoch_without_validation_is_short_too(environment):
    environment.setenv("COLUMNS", "60")
    text, record = logged(environment, ({**ROW, "val_loss": None, "val_accuracy": None}, False, 5.0))[0]
    assert "val" not in format_record(text, record, Stream(True))


def test_long_paths_lose_their_middle(environment):
    line = "folder  /data/people/somebody/projects/photographs/outputs/2026-11-28/14-16-19-resnet20-lbrm"
    assert shorten_paths(line, 200) == line
    assert shorten_paths(line, 60) == "folder  /data/.../outputs/2026-11-28/14-16-19-resnet20-lbrm"
    command = f"stopped; resume with: resnet-train resume={line[8:]}"
    assert shorten_paths(command, 60) == command
    environment.setenv("HOME", "/data/people/somebody")
    assert shorten_paths(line, 75) == "folder  ~/projects/photographs/outputs/2026-11-28/14-16-19-resnet20-lbrm"


@pytest.mark.parametrize(
    "line",
    [
        "data    digits: 1,298 training, 144 validation, 355 test images of 1x16x16, 10 classes",
        "plan    optimizer=muon            Muon needs fewer passes than SGD, and costs little with this net",
        "budget  1 min 0 s: an epoch takes 5.9 s (measured on 12 steps); 8 epochs, end expected at 13:00:18",
    ],
)
def test_labelled_lines_are_wrapped_between_words(environment, line):
    environment.setenv("COLUMNS", "60")
    environment.setenv("NO_COLOR", "1")
    lines = format_record(line, logging.makeLogRecord({}), Stream(True)).split("\n")
    assert [len(text) <= 60 for text in lines] == [True, True]
    assert lines[1].startswith("        ")
    assert " ".join([lines[0], lines[1].strip()]) == line


@pytest.mark.parametrize(
    ("line", "coloured"),
    [
        ("error: a: b", "\x1b[31;1merror:\x1b[0m a: b"),
        ("hint: resnet-train", "\x1b[36mhint:\x1b[0m resnet-train"),
        ("model   CNN", "\x1b[2mmodel\x1b[0m   CNN"),
        ("epoch 1/2  loss 1  best", "epoch 1/2  loss 1  \x1b[32mbest\x1b[0m"),
        ("test accuracy 98.59 %, loss 0.1", "\x1b[1mtest accuracy 98.59 %\x1b[0m, loss 0.1"),
        ("stopped; resume with: x", "stopped; resume with: x"),
    ],
)
def test_colours(line, coloured):
    assert colour_line(line) == coloured
