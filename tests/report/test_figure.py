"""The figure of several runs: whose means are drawn, by what, and into which files."""

import pytest

from resnet_cli import report
from resnet_cli.commands.report import run
from resnet_cli.errors import InputError
from resnet_cli.plots.comparison import Curve, Panel, draw_comparison
from resnet_cli.report import figure
from tests.support.reports import write_run

SIGNATURES = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture
def drawn(monkeypatch):
    """Returns the panels that would be drawn for the runs below a folder."""
    found = []
    monkeypatch.setattr(figure, "draw_comparison", lambda rows, kind: found.extend(rows) or b"")

    def draw(folder):
        figure.format_figure(report.build_tables(report.read_runs([folder]).runs), "png")
        return found

    return draw


def test_means_and_deviations_over_the_finished_seeds(tmp_path, drawn):
    for seed, val in enumerate((90.0, 92.0, 97.0)):
        write_run(tmp_path / f"{seed}", f"seed={seed}", val=val)
    write_run(tmp_path / "failed", "seed=3", val=10.0, status="failed")
    ((loss, accuracy),) = drawn(tmp_path)
    assert (loss.title, accuracy.title) == ("training loss", "validation accuracy, %")
    (curve,) = accuracy.curves
    assert curve.label == "resnet8 (n=3)"
    assert curve.epochs == (1, 2, 3)
    assert curve.means == (91.0, 92.0, 93.0)
    assert curve.deviations == pytest.approx([13**0.5] * 3)
    assert loss.curves[0].means == pytest.approx((1, 1 / 2, 1 / 3))


def test_the_best_eight_groups_are_drawn_in_the_order_of_the_table(tmp_path, drawn):
    for depth in (8, 14, 20, 26, 32, 38, 44, 50, 56, 62):
        write_run(tmp_path / f"{depth}", f"model.depth={depth}", val=50.0 + depth)
    ((loss, accuracy),) = drawn(tmp_path)
    assert loss.title == "training loss, the best 8 of 10"
    assert [curve.label for curve in accuracy.curves] == [f"depth={n}" for n in range(20, 63, 6)]


def test_without_validation_the_training_accuracy_is_drawn_and_each_protocol_has_a_row(tmp_path, drawn):
    write_run(tmp_path / "a")
    other = write_run(tmp_path / "b", "data.val_fraction=0")
    lines = other.joinpath("metrics.jsonl").read_text(encoding="utf-8").replace('"val_', '"no_')
    other.joinpath("metrics.jsonl").write_text(lines, encoding="utf-8")
    titles = [panel.title for panels in drawn(tmp_path) for panel in panels]
    assert len(titles) == 4
    assert {"validation accuracy, %", "training accuracy, %"} < set(titles)
    assert {f"training loss, protocol {n} of 2, not comparable" for n in (1, 2)} < set(titles)


def test_runs_without_an_epoch_have_no_figure(tmp_path):
    write_run(tmp_path / "a", epochs=0)
    with pytest.raises(InputError, match="none of the runs has finished an epoch"):
        figure.format_figure(report.build_tables(report.read_runs([tmp_path]).runs), "png")


@pytest.mark.parametrize("kind", SIGNATURES)
def test_files_are_of_their_kind_and_the_same_each_time(kind):
    curves = (Curve("$x, \u3042", (1, 2), (1.0, 2.0), (0.1, 0.0)), Curve("one epoch", (1,), (3.0,), (0.0,)))
    first = draw_comparison([[Panel("a $", curves), Panel("b", curves)]], kind)
    assert first.startswith(SIGNATURES[kind])
    assert first == draw_comparison([[Panel("a $", curves), Panel("b", curves)]], kind)


def test_the_ending_chooses_a_figure_or_latex(tmp_path, capsys):
    write_run(tmp_path / "a_b", "name=50%_of & more")
    assert run([str(tmp_path), "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(SIGNATURES["png"])
    assert run([str(tmp_path), "--out", str(tmp_path / "c.tex")]) == 0
    text = (tmp_path / "c.tex").read_text(encoding="utf-8")
    assert r"run & n & best val \% & test \%" in text
    assert r"50\%\_of \& more & 1 & 90.00 & 89.00" in text
    capsys.readouterr()
    for arguments, message in (
        (["--format", "figure"], "--format=figure: needs --out FILE, a .png, .pdf or .svg file"),
        (["--format", "figure", "--out", str(tmp_path / "a")], "name it *.txt"),
    ):
        assert run([str(tmp_path), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_row_of_latex_does_not_begin_with_what_the_line_before_would_take(tmp_path):
    for seed, channels in enumerate(("[8,8]", "[16,32]")):
        write_run(tmp_path / str(seed), f"model.channels={channels}")
    found = report.read_runs([tmp_path])
    text = report.format_latex(found, report.build_tables(found.runs))
    assert "\n{}[8,8] & 1" in text
    assert "\n[" not in text


def test_the_best_of_a_latex_table_is_bold(tmp_path):
    for rate, val in ((0.1, 90.0), (0.05, 95.0)):
        write_run(tmp_path / f"{rate}", f"optimizer.lr={rate}", val=val)
    found = report.read_runs([tmp_path])
    text = report.format_latex(found, report.build_tables(found.runs))
    assert text.count(r"\textbf{") == 1
    assert r"0.05 & 1 & \textbf{95.00} & 89.00" in text
    assert text.count(r"\begin{tabular}{lrrrrrrr}") == text.count(r"\end{tabular}") == 1
