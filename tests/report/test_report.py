"""Runs side by side: what is found, what varies, what is counted, and that nothing that a run says is executed."""

import csv
import io
import json
import os
import re
import shlex
import socket
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_cli import report
from resnet_cli.commands.report import _parser, run
from resnet_cli.config import stored
from resnet_cli.errors import InputError
from resnet_cli.report.groups import Statistics, build_tables
from resnet_cli.report.page import format_html
from resnet_cli.report.runs import read_runs
from resnet_cli.report.writers import SUMMARY_COLUMNS, decimal_formatter, format_csv, format_duration, format_markdown
from resnet_cli.runs.reading import load_config
from tests.support.reports import write_run
from tests.support.runs import tiny


def tables_of(folder, **options):
    return report.build_tables(report.read_runs([folder]).runs, **options)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_mean_and_sample_deviation(values):
    spread = Statistics.from_values([None, *values])
    assert spread.n == len(values)
    assert spread.mean == pytest.approx(sum(values) / len(values))
    text = decimal_formatter(2)(spread)
    if len(values) == 1:
        assert spread.std is None
        assert "±" not in text
    else:
        assert spread.std == pytest.approx(statistics.stdev(values), abs=1e-9)
        assert text == f"{spread.mean:,.2f} ± {spread.std:,.2f}"


def test_durations_have_their_unit():
    assert [format_duration(Statistics(s, None, 1)) for s in (9.26, 600, 36000)] == ["9.3 s", "10.0 min", "10.0 h"]
    assert format_duration(Statistics(600, 60, 3)) == "10.0 ± 1.0 min"


def test_groups_everything_but_the_seed(tmp_path):
    for rate in (0.1, 0.05):
        for seed, val in enumerate((90.0, 92.0, 97.0)):
            write_run(tmp_path / f"{rate}-{seed}", f"optimizer.lr={rate}", f"seed={seed}", val=val, test=val - 1)
    (table,) = tables_of(tmp_path)
    assert table.columns == ["optimizer.lr"]
    assert [group.values["optimizer.lr"] for group in table.groups] == [0.05, 0.1]
    for group in table.groups:
        assert group.statistics("val_accuracy") == Statistics(93.0, pytest.approx(13**0.5), 3)
        assert group.statistics("test_accuracy").mean == 92.0
        assert group.statistics("seconds").mean == 6.0
    assert len(tables_of(tmp_path, single=True)[0].groups) == 6
    assert len(tables_of(tmp_path, over=("seed", "optimizer.lr"))[0].groups) == 1


def test_seeds_of_a_part_are_a_study_of_their_own(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"all-{seed}", f"seed={seed}", val=90 + 4 * seed)
        write_run(tmp_path / f"init-{seed}", "seed=0", f"seed_init={seed}", val=90 + seed)
    (table,) = tables_of(tmp_path)
    assert table.columns == ["own seeds"]
    assert {group.values["own seeds"]: len(group.averaged) for group in table.groups} == {"-": 2, "init": 2}


def test_unfinished_runs_and_second_ones_do_not_enter_the_means(tmp_path):
    write_run(tmp_path / "a", val=90.0)
    write_run(tmp_path / "copy of a, newer", val=80.0, ended="2027-01-01T00:00:00+00:00")
    write_run(tmp_path / "b", "seed=1", val=84.0)
    for i, status in enumerate(("failed", "interrupted", "running", "running")):
        write_run(tmp_path / f"x{i}", f"seed={i}", status=status, val=10.0)
    (tmp_path / "x3" / ".lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
    (group,) = tables_of(tmp_path)[0].groups
    assert group.statistics("val_accuracy") == Statistics(82.0, pytest.approx(8**0.5), 2)
    assert group.excluded == {"failed": 1, "interrupted": 1, "running": 1, "killed": 1, "repeated": 1}


@pytest.mark.parametrize(
    ("lock", "status"),
    [("pid {dead} on {here}\n", "killed"), ("pid {dead} on elsewhere\n", "running"), ("", "running")],
)
def test_a_run_whose_process_is_gone_was_killed(tmp_path, lock, status):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_run(tmp_path / "a", status="running")
    (tmp_path / "a" / ".lock").write_text(lock.format(dead=gone.pid, here=socket.gethostname()))
    assert report.read_runs([tmp_path]).runs[0].status == status


@pytest.mark.parametrize(
    "other",
    ["data.val_fraction=0.2", "data.split_seed=1", "data.train_size=100", "data._target_=resnet_cli.data.noise",
     "trainer.max_batches=2", "trainer.overfit_batches=1", "data.image_size=8"],
)  # fmt: skip
def test_runs_of_other_protocols_come_apart(tmp_path, other):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", other, "seed=1")
    write_run(tmp_path / "c", other, status="failed")
    found = report.read_runs([tmp_path])
    tables = report.build_tables(found.runs)
    assert sorted(len(group.runs) for table in tables for group in table.groups) == [1, 2]
    assert all("±" not in line for line in report.format_text(found, tables).splitlines()[2:])
    assert "Protocol 2 of 2, not comparable" in report.format_text(found, tables)
    assert "Protocol 2 of 2" in report.format_html(found, tables)
    single = next(table for table in tables if len(table.groups[0].runs) == 1)
    assert single.protocol.endswith(f", in {single.groups[0].runs[0].display_path}")


@pytest.mark.parametrize(
    "used",
    [{"selection": {"weights": "last epoch", "by": None, "val_samples": 0}}, {"test": {"accuracy": 9, "samples": 9}}],
)
def test_what_was_really_used_keeps_runs_apart(tmp_path, used):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "seed=1", **used)
    assert len(tables_of(tmp_path)) == 2


@pytest.mark.parametrize(
    "other", ["name=mine", "trainer.device=cuda:1", "data.workers=7", "data.root=/data", "trainer.log_gradients=true"]
)
def test_what_cannot_change_a_result_is_not_told(tmp_path, other):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", other, "seed=1")
    (table,) = tables_of(tmp_path)
    assert (table.columns, len(table.groups)) == ([], 1)


@pytest.mark.parametrize("verify", ["true", "false"])
def test_a_published_data_set_is_the_same_in_every_place_if_it_is_verified(tmp_path, verify):
    for place in ("a", "b"):
        own = ["data._target_=resnet_cli.data.mnist", f"data.verify={verify}", f"data.root={place}"]
        write_run(tmp_path / place, *own)
    assert len(tables_of(tmp_path)) == (1 if verify == "true" else 2)


def test_the_images_of_a_users_own_function_are_those_of_its_root(tmp_path):
    for place in ("raw", "denoised"):
        for seed in (0, 1):
            own = ["data._target_=mydata.photos", f"data.root={place}", f"seed={seed}"]
            write_run(tmp_path / f"{place}{seed}", *own)
    tables = tables_of(tmp_path)
    assert [len(group.averaged) for table in tables for group in table.groups] == [2, 2]


@pytest.mark.parametrize(
    ("name", "others", "key"),
    [
        ("image_folder", [], "data.root"),
        ("csv", ["data.file=x.csv"], "data.root"),
        ("csv", [], "data.file"),
        ("webdataset", [], "data.shards"),
        ("webdataset", ["data.shards=x"], "data.test_shards"),
    ],
)
def test_own_images_from_another_place_are_other_data(tmp_path, name, others, key):
    for place in ("a", "b"):
        write_run(tmp_path / place, f"data._target_=resnet_cli.data.{name}", *others, f"{key}={place}")
    assert len(tables_of(tmp_path)) == 2


def recorded(tmp_path, **values):
    """The field `paths` of a record, of paths that were typed in `tmp_path`."""
    return {
        key.replace("__", "."): {"value": typed, "absolute": str(tmp_path / typed)} for key, typed in values.items()
    }


def test_another_spelling_of_a_path_is_the_same_data(tmp_path):
    own = ["data._target_=resnet_cli.data.image_folder"]
    for seed, typed in enumerate(("photos", "photos/", f"{tmp_path}/photos", "./photos")):
        paths = recorded(tmp_path, data__root=typed) if seed < 3 else {}  # former versions recorded none
        write_run(tmp_path / f"{seed}", *own, f"seed={seed}", f"data.root={typed}", "teacher=runs/a", paths=paths)
    (group,) = tables_of(tmp_path)[0].groups
    assert len(group.averaged) == 4
    write_run(tmp_path / "other", *own, "data.root=others", "teacher=runs/a/")
    found = report.read_runs([tmp_path])
    tables = report.build_tables(found.runs)
    assert [len(table.groups[0].runs) for table in tables] == [4, 1]
    assert "data.root=photos" in tables[0].protocol
    assert "data.root=others" in tables[1].protocol


def test_lists_of_paths_are_the_same_if_all_items_are(tmp_path):
    own = ["data._target_=resnet_cli.data.webdataset"]
    paths = recorded(tmp_path, data__shards__0="a", data__shards__1="b")
    write_run(tmp_path / "1", *own, "data.shards=[a,b]", paths=paths)
    write_run(tmp_path / "2", *own, "seed=1", f"data.shards=[./a,{tmp_path}/b]", paths={
        "data.shards.0": {"value": "./a", "absolute": str(tmp_path / "a")},
        "data.shards.1": {"value": str(tmp_path / "b"), "absolute": str(tmp_path / "b")},
    })  # fmt: skip
    assert len(tables_of(tmp_path)) == 1
    write_run(tmp_path / "3", *own, "data.shards=[a,c]", paths=recorded(tmp_path, data__shards__0="a"))
    assert len(tables_of(tmp_path)) == 2


@pytest.mark.parametrize("change", ["data.label_noise=0.3", "data.shuffle_buffer=9", "data.lanes=2"])
def test_what_changes_training_alone_is_a_column(tmp_path, change):
    key, _, value = change.partition("=")
    write_run(tmp_path / "a", f"{key}=0")
    write_run(tmp_path / "b", change)
    (table,) = tables_of(tmp_path)
    assert (table.columns, [str(group.values[key]) for group in table.groups]) == ([key], ["0", value])


@pytest.mark.parametrize(
    ("change", "count"), [("data.split_seed=1", "val"), ("data.val_fraction=0.2", "val"), ("data.splits=b.csv", "both")]
)
def test_counts_that_follow_from_an_averaged_key_are_no_protocols(tmp_path, change, count):
    selection = {"weights": "best epoch", "by": "val_accuracy", "val_samples": 139}
    test = {"accuracy": 89.0, "samples": 351} if count == "both" else 89.0
    key = change.partition("=")[0]
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", change, selection=selection, test=test)
    assert len(tables_of(tmp_path)) == 2
    (table,) = tables_of(tmp_path, over=[*report.REPETITIONS, key])
    assert len(table.groups[0].averaged) == 2
    assert "144 validation" not in table.protocol
    assert ("355 test images" in table.protocol) is (count == "val")
    write_run(tmp_path / "b", change, selection={**selection, "weights": "last epoch"}, test=test)
    assert len(tables_of(tmp_path, over=[*report.REPETITIONS, key])) == 2


def test_runs_of_several_processes_are_noted(tmp_path):
    write_run(tmp_path / "a", "seed=0")
    write_run(tmp_path / "b", "seed=1", "trainer.processes=8", processes=8)
    [table] = build_tables(read_runs([tmp_path]).runs)
    assert (len(table.groups), list(table.notes)) == (1, ["number of processes differs: 1, 8"])


def test_a_time_budget_is_the_same_however_it_is_spelt(tmp_path):
    for seed, budget in enumerate(("5m", "300 s", 300)):
        write_run(tmp_path / str(seed), f"seed={seed}", f"trainer.time_budget={budget}")
    write_run(tmp_path / "3", "trainer.time_budget=300.5")
    [table] = build_tables(read_runs([tmp_path]).runs)
    counts = {group.values["trainer.epochs"]: len(group.averaged) for group in table.groups}
    assert counts == {"in 5 min 0 s": 3, "in 300.5 s": 1}


def test_an_option_that_was_added_since_has_its_default(tmp_path):
    write_run(tmp_path / "old")
    write_run(tmp_path / "new", "model.width=1", "data.batch_size=128", "seed=1")
    write_run(tmp_path / "other", "model.width=2", "seed=1")
    (table,) = tables_of(tmp_path)
    assert [(g.values, len(g.runs)) for g in table.groups] == [({"model.width": 1}, 2), ({"model.width": 2}, 1)]


def test_group_choices_stand_for_their_keys(tmp_path):
    sweep = "resnet-train -m model=resnet8,plain20 optimizer.lr=0.1,0.2 optimizer=sgd,adamw"
    for optimizer in ("SGD", "AdamW"):
        for rate in (0.1, 0.2):
            name = f"optimizer.lr={rate},optimizer={optimizer.lower()}"
            target = f"optimizer._target_=torch.optim.{optimizer}"
            rest = (f"optimizer.lr={rate}", target)
            write_run(tmp_path / f"model=resnet8,{name}", *rest, command=sweep)
            write_run(
                tmp_path / f"model=plain20,{name}", "model.depth=20", "model.residual=false", "name=plain20", *rest,
                command=sweep,
            )  # fmt: skip
    (table,) = tables_of(tmp_path)
    assert table.columns == ["model", "optimizer", "optimizer.lr"]
    assert {g.values["model"] for g in table.groups} == {"resnet8", "plain20"}
    assert {g.values["optimizer"] for g in table.groups} == {"sgd", "adamw"}


def test_a_choice_that_is_unknown_leaves_the_class(tmp_path):
    write_run(tmp_path / "a", "optimizer._target_=torch.optim.AdamW", command="resnet-train optimizer=adamw")
    write_run(tmp_path / "b")
    (table,) = tables_of(tmp_path)
    assert [g.values["optimizer"] for g in table.groups] == ["AdamW", "SGD"]


def test_a_name_that_an_experiment_sets_is_no_option(tmp_path):
    write_run(tmp_path / "a", "model._target_=resnet_cli.models.CNN", "name=mine", overrides=["experiment=mine"])
    write_run(tmp_path / "b", overrides=["model=resnet8"])
    (table,) = tables_of(tmp_path)
    assert {g.values["model"] for g in table.groups} == {"CNN", "CifarResNet"}


def test_a_class_that_the_option_does_not_determine_is_a_column(tmp_path):
    for option, target in (("mine", "a.Net"), ("mine", "b.Net"), ("resnet8", "resnet_cli.models.CifarResNet")):
        write_run(tmp_path / target, f"model._target_={target}", f"name={option}", overrides=[f"model={option}"])
    (table,) = tables_of(tmp_path)
    assert table.columns == ["model", "model._target_"]
    assert [len(group.averaged) for group in table.groups] == [1, 1, 1]


def test_options_of_data_that_share_a_protocol_stay_apart(tmp_path):
    for option, size, fraction in (("small", 64, 0.1), ("large", 128, 0.1), ("other", 64, 0.2)):
        changes = (f"data.batch_size={size}", f"data.val_fraction={fraction}")
        write_run(tmp_path / option, *changes, overrides=[f"data={option}"])
    assert sorted(len(table.groups) for table in tables_of(tmp_path)) == [1, 2]


def test_other_weights_at_the_start_are_another_config(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", start="outputs/teacher")
    assert tables_of(tmp_path)[0].columns == ["init_from"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty"), ('{"status": "fini', "half-written"), ("[1]", "not a record"), ('{"a": 1}', "not a record"),
     ("[" * 100_000, "half-written"), ("\0", "half-written")],
)  # fmt: skip
def test_a_damaged_record_is_told_in_a_line_and_left_out(tmp_path, text, said):
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / "run.json").write_text(text)
    found = report.read_runs([tmp_path])
    assert [r.display_path for r in found.runs] == ["good"]
    (line,) = found.problems
    assert str(tmp_path / "bad" / "run.json") in line
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["- a", "a: &x [1]\nb: [*x, *x]", "? " * 900, "[" * 900, "- " * 6000, "a: 2026-01-01"])
def test_a_config_that_is_none_is_refused_as_elsewhere(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as ours:
        load_config(path)
    with pytest.raises(InputError) as theirs:
        stored.read(path)
    assert ours.value.problems == theirs.value.problems


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1, max_size=5), plain, max_size=4))
def test_configs_are_read_like_the_slow_way(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(stored.dump(settings), encoding="utf-8")
    assert load_config(path) == stored.read(path)


def test_former_names_of_targets_are_replaced(tmp_path):
    former = write_run(tmp_path / "a", "data._target_=resnet_cli.data.bundled.digits")
    assert load_config(former / "config.yaml")["data"]["_target_"] == "resnet_cli.data.digits"
    write_run(tmp_path / "b", "seed=1")
    (table,) = tables_of(tmp_path)
    assert (table.columns, len(table.groups)) == ([], 1)


def test_folders_are_searched_once_and_loops_end(tmp_path, capsys):
    write_run(tmp_path / "deep" / "er" / "a")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "deep" / "run.json")
    found = report.read_runs([tmp_path / "deep", tmp_path, tmp_path / "empty", tmp_path / "deep" / "er" / "a"])
    assert [r.display_path for r in found.runs] == ["er/a"]
    assert len(found.problems) == 4  # the pipe, and three folders with nothing new
    assert report.read_runs([tmp_path / "deep" / "er" / "a"]).runs
    assert run([str(tmp_path / "empty")]) == 2
    assert re.fullmatch(r"error: .*empty: no run found below.*\n", capsys.readouterr().err)


def test_numbers_that_are_none_and_broken_rows_leave_gaps(tmp_path):
    folder = write_run(tmp_path / "a", best={"val_accuracy": float("nan"), "epoch": "x"}, test="none", parameters=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_loss": NaN, "val_loss": 1e999}\n{"epoch": 5, "tr')
    found = report.read_runs([tmp_path])
    (only,) = found.runs
    assert [getattr(only, figure.name) for figure in SUMMARY_COLUMNS] == [None, None, None, 4, 6.0, None]
    assert found.problems == [f"{folder / 'metrics.jsonl'}: line 5 is not a row of metrics; skipped"]
    for write in report.FORMATS.values():
        assert "nan" not in write(found, report.build_tables(found.runs)).lower().replace("isnan", "")


HOSTILE = ["<script>alert(1)</script>", "a|b\nc", "=cmd()", "\x1b[31mred", "</script><!--", "`x` *y*", "\udc80"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_run_says_is_escaped(tmp_path, text):
    write_run(
        tmp_path / "a", f"model.norm={json.dumps(text)}", f"name={json.dumps(text)}", status="failed", reason=text,
        overrides=[f"experiment={text}", f"model={text}", f"model.norm={text}", text],
    )  # fmt: skip
    write_run(tmp_path / "b", overrides=[])
    found = report.read_runs([tmp_path])
    tables = report.build_tables(found.runs)
    page = report.format_html(found, tables)
    assert page.count("<script") == 2  # data and program
    assert page.count("</script>") == 2
    assert "<!--" not in page
    head, _, body = report.format_markdown(found, tables).partition("|---")
    assert "\n\n" in head
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body.splitlines()[1:] if line.startswith("|")} == {
        len(re.findall(r"(?<!\\)\|", head.splitlines()[-1]))
    }
    cells = [cell for line in csv.reader(io.StringIO(report.format_csv(found, tables))) for cell in line]
    assert not any(cell[:1] in ("=", "+", "@") for cell in cells)
    for written in (
        page,
        *(write(found, tables) for write in report.FORMATS.values()),
        report.format_sweep_table(tmp_path),
    ):
        assert all(c.isprintable() or c == "\n" for c in written)
        written.encode()


def test_csv_has_whole_texts_and_tables_their_two_ends(tmp_path):
    places = [f"outputs/2026-11-21/10-02-11-resnet20-kqzd/checkpoints/{name}.pt" for name in ("best", "last", "x" * 40)]
    for seed, place in enumerate(places):
        write_run(tmp_path / str(seed), f"optimizer.note={place}", f"seed={seed}")
    found = report.read_runs([tmp_path])
    tables = report.build_tables(found.runs)
    rows = csv.DictReader(io.StringIO(report.format_csv(found, tables)))
    assert {row["optimizer.note"] for row in rows} == set(places)
    assert f"...{places[2][-29:]}" in report.format_markdown(found, tables)


def test_averaging_over_what_the_table_shows(tmp_path, capsys):
    for seed, start in enumerate(("runs/a", "runs/b")):
        write_run(tmp_path / start.replace("/", "-"), "seed=0", start=start, test=90.0 + seed)
    assert run([str(tmp_path), "--over", "init_from", "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["n"], float(row["test_accuracy_mean"])) == ("2", 90.5)
    assert run([str(tmp_path), "--over", "optimizer"]) == 2
    assert "--over optimizer: a group of keys; give one of optimizer." in capsys.readouterr().err
    assert run([str(tmp_path), "--over", ""]) == 2
    assert "--over '': no run has this key" in capsys.readouterr().err


def test_a_folder_is_no_number_of_seconds_and_no_port(tmp_path, capsys):
    for flag in ("--watch", "--serve"):
        assert run([flag, str(tmp_path)]) == 2
        assert "folders come before the options" in capsys.readouterr().err


def test_csv_has_full_numbers(tmp_path):
    for seed, test in enumerate((90.0, 91.0)):
        write_run(tmp_path / str(seed), f"seed={seed}", "optimizer.lr=0.1", test=test)
    write_run(tmp_path / "c", "optimizer.lr=0.2", status="failed")
    found = report.read_runs([tmp_path])
    first, second = csv.DictReader(io.StringIO(report.format_csv(found, report.build_tables(found.runs))))
    assert (first["optimizer.lr"], first["n"], float(first["test_accuracy_mean"])) == ("0.1", "2", 90.5)
    assert float(first["test_accuracy_std"]) == pytest.approx(0.5**0.5)
    assert (second["n"], second["test_accuracy_mean"], second["failed"]) == ("0", "", "1")


def test_the_best_is_chosen_on_validation(tmp_path):
    write_run(tmp_path / "a", "optimizer.lr=0.1", val=91.0, test=80.0)
    write_run(tmp_path / "b", "optimizer.lr=0.2", val=90.0, test=99.0)
    found = report.read_runs([tmp_path])
    markdown = report.format_markdown(found, report.build_tables(found.runs))
    assert re.findall(r"\| \*\*(.*?)\*\* \|", markdown) == ["91.00"]


def test_the_short_table_of_a_sweep(tmp_path):
    write_run(tmp_path / "a", "optimizer.lr=0.1")
    write_run(tmp_path / "b", "optimizer.lr=0.2", "seed=1", status="failed", reason="DivergedError: at step 4")
    lines = report.format_sweep_table(tmp_path).splitlines()
    assert lines[0].split() == ["status", "optimizer.lr", "seed", "best", "val", "%", "test", "%", "training", "time"]
    assert lines[2].split() == ["finished", "0.1", "0", "90.00", "89.00", "6.0", "s"]
    assert lines[3].split()[:3] == ["failed", "0.2", "1"]
    assert lines[4:] == ["b: DivergedError: at step 4", "2 runs: 1 finished, 1 failed"]


@pytest.mark.parametrize(
    ("name", "begins"),
    [("r.txt", "1 run:"), ("r.md", "1 run: "), ("r.csv", "protocol,"), ("r.HTML", "<!doctype html>")],
)
def test_the_file_name_chooses_the_format(tmp_path, name, begins):
    write_run(tmp_path / "a")
    assert run([str(tmp_path), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["RUNS", "--out", "RUNS/x.doc"], "x.doc: name it"), (["RUNS", "--out", "RUNS/no/x.md"], "folder does not exist"),
     (["RUNS", "--out", "RUNS"], "is a folder"), (["RUNS", "--out", "x.md", "--format", "csv"], "is a file of format"),
     (["RUNS", "--over", "data.split_sed"], "did you mean data.split_seed?"), (["nowhere"], "no such folder"),
     (["RUNS", "--over", "seed", "--single"], "cannot be combined"), ([], "--help"),
     (["RUNS", "--frmat", "csv"], "--help"), (["RUNS/a/run.json"], "not a folder")],
)  # fmt: skip
def test_wrong_commands_get_a_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    assert run([argument.replace("RUNS", str(tmp_path)) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_names_its_run(tmp_path):
    folder = write_run(tmp_path / "a") / "checkpoints"
    folder.mkdir()
    (folder / "best.pt").touch()
    assert [r.display_path for r in report.read_runs([folder / "best.pt"]).runs] == ["a"]


def test_a_real_sweep(train, tmp_path):
    place = tmp_path / "sweep"
    status, _, err = train(
        "-m", *tiny("trainer.epochs=1", "model=residual_mlp,plain_mlp", "seed=0"), f"hydra.sweep.dir={place}"
    )
    assert status == 0, err
    (table,) = tables_of(place)
    assert table.columns == ["model"]
    assert [(g.values["model"], len(g.averaged), g.statistics("epochs").mean) for g in table.groups] == [
        ("plain_mlp", 1, 1), ("residual_mlp", 1, 1)
    ]  # fmt: skip


def test_neither_torch_nor_hydra_is_needed(tmp_path):
    write_run(tmp_path / "a", "model.width=2")
    write_run(tmp_path / "b")
    code = (
        "import sys\nfrom resnet_cli import report\n"
        f"report.format_sweep_table({str(tmp_path)!r}); found = report.read_runs([{str(tmp_path)!r}])\n"
        "report.format_html(found, report.build_tables(found.runs))\n"
        "assert not {'torch', 'torchvision', 'matplotlib', 'numpy', 'hydra'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_commands_in_the_documentation_are_accepted(repository):
    page = repository / "docs" / "howto" / "sweeps.md"
    found = re.findall(r"^ +(resnet-report.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) > 1
    for line in found:
        _parser().parse_intermixed_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(
    ("measure", "title"),
    [
        ("val_map", "mAP"), ("val_macro_f1", "macro F1"), ("val_balanced_accuracy", "balanced"),
    ],
)  # fmt: skip
def test_the_measure_of_the_selection_is_the_first_result(tmp_path, measure, title):
    for folder, score in (("a", 40.0), ("b", 60.0)):
        best = {"epoch": 2, "val_accuracy": 100 - score, "val_loss": 0.4, measure: score, "select_by": measure}
        test = {"accuracy": 50.0, "loss": 0.5, "samples": 9, measure.removeprefix("val_"): score + 1}
        selection = {"weights": "best epoch", "by": measure, "val_samples": 144}
        write_run(tmp_path / folder, f"model.depth={score:.0f}", test=test, best=best, selection=selection)
    found = read_runs([tmp_path])
    tables = build_tables(found.runs)
    head, *_, row = [line for line in format_markdown(found, tables).splitlines() if line.startswith("| ")]
    columns = [cell.strip() for cell in head.split("|")]
    assert columns[3] == f"best val {title} %"
    assert columns.index(f"test {title} %") > columns.index("best val %") - 1 > 2
    assert "**60.00**" in row
    assert "61.00" in row
    assert f"{measure}_mean" in format_csv(found, tables)
    assert f'"metrics":["{measure}","val_accuracy"' in format_html(found, tables)
    assert format_html(found, tables).index(f'data-key="{measure}"') < format_html(found, tables).index(
        '"val_accuracy"'
    )


def test_other_measures_are_no_columns_of_runs_without_them(tmp_path):
    write_run(tmp_path / "a")
    found = read_runs([tmp_path])
    assert "mAP" not in format_markdown(found, build_tables(found.runs))
    assert "balanced" not in format_csv(found, build_tables(found.runs))


def test_options_with_the_same_settings_are_one_group_beside_others_too(tmp_path):
    options = ["resnet20", "cifar_resnet"]
    for seed, option in enumerate(options):
        write_run(tmp_path / option, f"seed={seed}", "model.depth=20", overrides=[f"model={option}"])
    write_run(tmp_path / "plain", "seed=0", "model.depth=20", "model.residual=false", overrides=["model=plain20"])
    (table,) = tables_of(tmp_path)
    assert sorted(len(group.averaged) for group in table.groups) == [1, 2]


def test_names_of_columns_are_no_formulas(tmp_path):
    for value in (1, 2):
        with (write_run(tmp_path / str(value)) / "config.yaml").open("a") as config:
            config.write(f"'=SUM(1)': {value}\n")
    found = read_runs([tmp_path])
    head = next(csv.reader(io.StringIO(format_csv(found, tables_of(tmp_path)))))
    assert [name for name in head if "SUM" in name] == ["'=SUM(1)"]
