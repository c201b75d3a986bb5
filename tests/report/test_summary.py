"""What a report shows of unlike runs: what was typed and differs, in the terminal's width, or what is asked for."""

import csv
import io
import json
import re

import pytest

from resnet_cli import report
from resnet_cli.commands.report import run
from resnet_cli.report.fit import TextTable
from tests.support.reports import write_run

UNLIKE = {
    "plain": ["model.depth=20", "model.residual=false"],
    "cnn": ["model._target_=resnet_cli.models.CNN", "model.channels=[4, 6]", "model.hidden_dims=[8]"],
    "mlp": ["model._target_=resnet_cli.models.ResidualMLP", "optimizer.weight_decay=0.01", "trainer.averaging=ema"],
    "resnet8": ["optimizer.lr=0.3", "trainer.label_smoothing=0.1", "schedule.warmup=2"],
    "resnet8 ": ["optimizer._target_=torch.optim.AdamW", "optimizer.betas=[0.9, 0.99]"],
    "resnet8  ": [],
}  # fmt: skip
TYPED = {
    "plain": ["model=plain"],
    "cnn": ["model=cnn", "model.channels=[4,6]"],
    "mlp": ["model=mlp", "trainer.averaging=ema", "optimizer.weight_decay=0.01"],
    "resnet8": ["optimizer.lr=0.3", "trainer.label_smoothing=0.1"],
    "resnet8 ": ["model=resnet8", "optimizer=adamw"],
    "resnet8  ": ["model=resnet8"],
}


@pytest.fixture
def unlike(tmp_path):
    """A folder of six unlike runs."""
    for i, (name, changes) in enumerate(UNLIKE.items()):
        write_run(tmp_path / "runs" / str(i), f"name={name.strip()}", *changes, overrides=TYPED[name], val=90.0 + i)
    return tmp_path / "runs"


def printed(capsys, *arguments):
    assert run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
def test_a_table_of_unlike_runs_has_the_width_of_the_terminal(unlike, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    out = printed(capsys, unlike)
    assert max(map(len, out.splitlines())) <= width
    assert "model" in out
    assert "best val %" in out
    assert "test %" in out
    assert ("not shown: " in out) == (width < 120)


@pytest.mark.parametrize("width", [72, 80, 100])
def test_runs_of_earlier_versions_and_sweeps_fit_too(unlike, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for path in unlike.glob("*/run.json"):
        record = json.loads(path.read_text())
        del record["overrides"]
        path.write_text(json.dumps(record))
    assert max(map(len, printed(capsys, unlike).splitlines())) <= width
    assert max(map(len, report.format_sweep_table(unlike).splitlines())) <= width


def test_rows_tell_what_was_typed_and_keys_of_some_models_are_no_columns(unlike, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    lines = printed(capsys, unlike).splitlines()
    assert lines[4].split()[:3] == ["model", "overrides", "n"]
    rows = [line[: lines[4].index("best val")].rsplit(None, 1)[0].split(None, 1) for line in lines[6:12]]
    assert sorted((name, *rest) for name, *rest in (map(str.strip, row) for row in rows)) == [
        ("cnn", "channels=[4,6]"),
        ("mlp", "weight_decay=0.01, averaging=ema"),
        ("plain", "-"),
        ("resnet8", "-"),
        ("resnet8", "lr=0.3, label_smoothing=0.1"),
        ("resnet8", "optimizer=adamw"),
    ]


def test_what_nobody_typed_is_shown_only_where_rows_would_look_the_same(tmp_path):
    write_run(tmp_path / "a", "optimizer.lr=0.1", "optimizer.groups.bias=1", overrides=["trainer.device=cpu"])
    write_run(tmp_path / "b", "optimizer.lr=0.2", "optimizer.groups.bias=2", overrides=["trainer.device=cpu"])
    (table,) = report.build_tables(report.read_runs([tmp_path]).runs)
    assert len(table.columns) == 2
    assert [len(group.overrides) for group in table.groups] == [1, 1]
    assert len({table.label(group) for group in table.groups}) == 2


def test_an_experiment_is_told(tmp_path):
    write_run(tmp_path / "a", "optimizer.lr=0.1", overrides=["experiment=first"])
    write_run(tmp_path / "b", "optimizer.lr=0.2", overrides=["experiment=second"])
    (table,) = report.build_tables(report.read_runs([tmp_path]).runs)
    assert [table.label(group) for group in table.groups] == ["experiment=first", "experiment=second"]


def test_files_have_all_columns_unless_some_are_chosen(unlike, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    (full,) = report.build_tables(report.read_runs([unlike]).runs)
    assert {"model", "optimizer", "schedule.warmup", "trainer.averaging"} <= {*full.columns}
    text = printed(capsys, unlike, "--format", "csv")
    assert next(csv.reader(io.StringIO(text)))[1 : 1 + len(full.columns)] == full.columns
    text = printed(capsys, unlike, "--format", "csv", "--columns", "model.depth,seed", "--columns", "model")
    assert next(csv.reader(io.StringIO(text)))[1:5] == ["model.depth", "seed", "model", "n"]
    assert printed(capsys, unlike, "--format", "markdown", "--columns", "model.depth").count("| model.depth | n |") == 1
    head = printed(capsys, unlike, "--columns", "all").splitlines()[4].split()
    assert head[: len(full.columns)] == full.columns
    assert "parameters" in head


@pytest.mark.parametrize(
    ("names", "said"), [("model.dept", "did you mean model.depth?"), ("modle", "did you mean model?"), (",", "no key")]
)
def test_wrong_columns_get_a_line(unlike, capsys, names, said):
    assert run([str(unlike), "--columns", names, "--out", str(unlike / "x.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --columns")
    assert said in line
    assert not (unlike / "x.md").exists()


def test_a_column_that_does_not_vary_can_be_asked_for(unlike):
    (table,) = report.build_tables(report.read_runs([unlike]).runs, columns=["data", "trainer.epochs"])
    assert [dict(group.values) for group in table.groups] == [{"data": "digits", "trainer.epochs": 3}] * 6


def test_what_does_not_fit_is_left_out_or_goes_on_in_further_lines():
    keys = {"model.depth": ["8", "20"], "optimizer.lr": ["0.1", "0.2"]}
    table = TextTable(
        keys, [{"a.b": "x" * 190}, {}], {"test %": ["1", "2"], "epochs": ["3", "4"], "parameters": ["5", "6"]}
    )
    lines = table.lines(50)
    assert lines[0].split() == ["depth", "overrides", "test", "%"]
    assert lines[2].split()[:2] == ["8", "lr=0.1,"]
    assert lines[3].strip() == "x" * len(lines[3].strip())
    assert lines[3].startswith(" " * len("depth  "))
    assert lines[4].endswith("x…")
    assert lines[5].split() == ["20", "lr=0.2", "2"]
    assert all(len(line) <= 50 for line in lines)
    assert " ".join(lines[6:]) == "not shown: epochs, parameters (resnet-report --columns all)"


def test_the_page_shows_what_the_terminal_shows_and_holds_the_rest(unlike):
    found = report.read_runs([unlike])
    tables = report.build_tables(found.runs)
    page = report.format_html(found, tables)
    assert '<th scope="col" data-key="overrides" title="overrides"' in page
    for key in tables[0].columns:
        (head,) = [part for part in page.split("<th ") if f'data-key="{key}"' in part]
        assert (" hidden>" in head) == (key not in tables[0].shown)


@pytest.fixture
def swept(tmp_path):
    """Runs over two learning rates and eight seeds."""
    for seed in range(8):
        for lr in (0.05, 0.1):
            write_run(tmp_path / "runs" / f"{lr},{seed}", f"optimizer.lr={lr}", f"seed={seed}", overrides=[])
    return tmp_path / "runs"


def test_a_column_shows_all_values_of_a_group(swept, capsys):
    lines = printed(capsys, swept, "--columns", "optimizer.lr,seed", "--over", "optimizer.lr").splitlines()
    assert re.split(" {2,}", lines[6].strip())[:3] == ["0.05, 0.1", "0, 1, 2, ..., 7", "16"]
    assert "| 0.05, 0.1 | 16 |" in printed(
        capsys, swept, "--columns", "optimizer.lr", "--over", "optimizer.lr", "--format", "markdown"
    )
    text = printed(capsys, swept, "--columns", "seed", "--format", "csv")
    assert [row["seed"] for row in csv.DictReader(io.StringIO(text))] == ["0, 1, 2, 3, 4, 5, 6, 7"] * 2
    page = printed(capsys, swept, "--columns", "seed", "--format", "html")
    assert page.count('data-v="0, 1, 2, 3, 4, 5, 6, 7">0, 1, 2, ..., 7</td>') == 2
    single = printed(capsys, swept, "--columns", "seed", "--single", "--format", "csv")
    assert [row["seed"] for row in csv.DictReader(io.StringIO(single))] == [*map(str, range(8))] * 2


def test_the_last_part_of_a_key_is_enough_where_it_is_unique(swept, capsys):
    lines = printed(capsys, swept, "--columns", "lr").splitlines()
    assert lines[4].split()[:2] == ["optimizer.lr", "n"]
    assert [line.split()[:2] for line in lines[6:8]] == [["0.05", "8"], ["0.1", "8"]]
    averaged = printed(capsys, swept, "--columns", "lr", "--over", "lr", "--goal", "50")
    assert averaged.splitlines()[6].split()[:3] == ["0.05,", "0.1", "16"]
    assert "runs differ in optimizer.lr: no test over seeds" in " ".join(averaged.split())
    for flag in ("--columns", "--over"):
        assert run([str(swept), flag, "_target_"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {flag} _target_: the last part of several keys; give one of data._target_, ")
        assert run([str(swept), flag, "warmpu"]) == 2
        said = "no run has this key; did you mean schedule.warmup?"
        assert capsys.readouterr().err == f"error: {flag} warmpu: {said}\n"
