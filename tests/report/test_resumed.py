"""Runs that were resumed with other settings: marked in every form, and in no mean of runs that had them all along."""

import csv
import io
import re

import pytest

from resnet_cli.commands.report import run as report
from resnet_cli.report import build_tables, read_runs
from resnet_cli.report.sweep_table import format_sweep_table
from tests.support.reports import write_run

RATE = "optimizer.lr: 0.1 -> 0.01 after epoch 5"


def resumed(*changes, epoch=5):
    return {"step": 100, "epoch": epoch, "checkpoint": "last.pt", "at": "2026-11-21", "changes": list(changes)}


@pytest.fixture
def runs(tmp_path):
    """Three seeds with the smaller rate: all along, all along after a kill, and from the fifth epoch on."""
    own = {"overrides": ["optimizer.lr=0.01"]}
    write_run(tmp_path / "runs/a", "optimizer.lr=0.01", val=90.0, resumed_from=None, **own)
    write_run(tmp_path / "runs/b", "optimizer.lr=0.01", "seed=1", val=92.0, resumed_from=[resumed()], **own)
    changed = [resumed("optimizer.lr: 0.1 -> 0.01"), resumed("optimizer.lr: 0.1 -> 0.01"), resumed(epoch=7)]
    write_run(tmp_path / "runs/c", "optimizer.lr=0.01", "seed=2", val=50.0, resumed_from=changed, overrides=[])
    return tmp_path / "runs"


def test_a_run_with_changed_settings_is_a_group_of_its_own(runs):
    (table,) = build_tables(read_runs([runs]).runs)
    assert table.columns == list(table.shown) == ["resumed with"]
    found = {group.values["resumed with"]: group.statistics("val_accuracy") for group in table.groups}
    assert {name: (own.mean, own.n) for name, own in found.items()} == {"-": (91.0, 2), RATE: (50.0, 1)}


def test_seeds_that_were_resumed_alike_are_averaged_and_marked(runs):
    same = [resumed("optimizer.lr: 0.1 -> 0.01")]
    for seed, name in enumerate("abd"):
        write_run(runs / name, "optimizer.lr=0.01", f"seed={seed + 5}", resumed_from=same, overrides=[])
    (table,) = build_tables(read_runs([runs]).runs)
    assert [(group.values, len(group.averaged)) for group in table.groups] == [({"resumed with": RATE}, 4)]
    (table,) = build_tables(read_runs([runs]).runs, columns=["optimizer.lr"])
    assert table.columns == ["optimizer.lr", "resumed with"]
    assert [group.values for group in table.groups] == [{"optimizer.lr": 0.01, "resumed with": RATE}]
    write_run(runs / "e", "optimizer.lr=0.01", "seed=9", resumed_from=[resumed(*same[0]["changes"], epoch=6)])
    assert len(build_tables(read_runs([runs]).runs)[0].groups) == 2, "other epochs had the former rate"


@pytest.mark.parametrize(("kind", "text"), [
    ("table", RATE), ("csv", RATE), ("markdown", RATE.replace(">", "&gt;")),
    ("latex", RATE.replace(">", r"\textgreater{}")), ("html", RATE.replace(">", "&gt;")),
])  # fmt: skip
def test_every_form_has_the_column_where_a_run_has_one(runs, capsys, kind, text):
    def shown():
        assert report([str(runs), "--format", kind]) == 0
        return capsys.readouterr().out

    out = shown()
    assert "resumed with" in out
    assert text in out
    if kind == "csv":
        cells = [row["resumed with"] for row in csv.DictReader(io.StringIO(out))]
        assert cells == ["-", RATE]
    write_run(runs / "c", "seed=2")
    assert "resumed with" not in shown()


@pytest.mark.parametrize(("kind", "line"), [
    ("table", r"\nfirst  optim"), ("markdown", r"\| first \| "), ("latex", "first & "), ("html", ">first</"),
])  # fmt: skip
def test_a_run_that_only_its_resumption_distinguishes_is_named(tmp_path, capsys, monkeypatch, kind, line):
    monkeypatch.setenv("COLUMNS", "200")
    changed = [resumed("optimizer.lr: 0.1 -> 0.01")]
    write_run(tmp_path / "c", "optimizer.lr=0.01", "name=first", resumed_from=changed, overrides=[])
    assert report([str(tmp_path), "--format", kind]) == 0
    out = capsys.readouterr().out
    assert re.search(line, out), out
    (table,) = build_tables(read_runs([tmp_path]).runs)
    assert table.label(table.groups[0]) == f"first, resumed with={RATE}"


def test_a_sweep_ends_with_the_same_mark(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert RATE in format_sweep_table(runs)


@pytest.mark.parametrize("damaged", ["x", 3, ["x", 3, None, {"changes": "x"}, {"changes": []}, {}]])
def test_a_damaged_record_marks_nothing(runs, damaged):
    write_run(runs / "c", "optimizer.lr=0.01", "seed=2", resumed_from=damaged)
    (table,) = build_tables(read_runs([runs]).runs)
    assert table.columns == []
