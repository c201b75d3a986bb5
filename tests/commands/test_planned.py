"""`plan=` through the command: what is typed wins, the plan is stored, and a resumed run keeps it."""

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from resnet_cli.commands.train import plan_overrides, planned
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.planning import make
from resnet_cli.session import time_budget
from resnet_cli.session.paths import Origin
from resnet_cli.session.signals import StopSignals
from resnet_cli.sweeps.worker import LauncherContext
from resnet_cli.training.measuring import Measurement
from tests.support.images import write_class_folders
from tests.support.runs import assert_same_end, record_of

TINY = ["data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3"]
ROW = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "train_accuracy": 1.0, "val_accuracy": 1.0, "lr": 0.1}
SHORT = ["trainer.epochs=2", "model=resnet8"]


@pytest.fixture(autouse=True)
def one_rate(monkeypatch, tmp_path):
    """Let every net be as fast, so that nothing is measured, and keep the cache of this test apart."""
    monkeypatch.setattr(make, "images_per_second", lambda *arguments, **options: 1e4)
    monkeypatch.setenv("RESNET_CLI_CACHE", str(tmp_path / "cache"))


def test_a_planned_run_keeps_its_plan(train, tmp_path):
    status, _, err = train("plan=good", *TINY, *SHORT, "optimizer.lr=0.3", "hydra.run.dir=run")
    assert status == 0
    assert "plan    data.batch_size=32" in err
    run = tmp_path / "run"
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert (stored["plan"], stored["data"]["batch_size"], stored["optimizer"]["lr"]) == ("good", 32, 0.3)
    assert record_of(run)["overrides"][0] == "plan=good"
    assert not any("batch_size" in override for override in record_of(run)["overrides"])
    text = (run / "plan.yaml").read_text()
    assert "batch_size: 32  # 77 training images" in text
    assert "Set by you and not changed by the plan" in text
    assert json.loads((run / "fingerprint.json").read_text())["images"] == 86
    assert "## Plan" in (run / "card.md").read_text()


def test_plan_yaml_is_an_experiment(train, tmp_path):
    train("plan=quick", *TINY, *SHORT, "hydra.run.dir=planned")
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text((tmp_path / "planned" / "plan.yaml").read_text())
    status, _, err = train("experiment=mine", *TINY, *SHORT, "hydra.run.dir=again")
    assert status == 0
    assert "plan    " not in err
    assert_same_end(tmp_path / "planned", tmp_path / "again")


def test_cfg_shows_it_and_trains_nothing(train, tmp_path):
    status, out, err = train("plan=good", *TINY, *SHORT, "--cfg", "job")
    assert status == 0
    assert "batch_size: 32" in out
    assert "plan: good" in out
    assert "plan    data.batch_size=32" in err
    assert not (tmp_path / "outputs").exists()


def test_a_stopped_run_goes_on_with_its_plan(train, tmp_path, monkeypatch):
    line = ["plan=good", *TINY, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run", "resume=auto"]
    assert train(*line)[0] == 0
    plan = (tmp_path / "run" / "plan.yaml").read_text()
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned again"))
    assert train(*line)[0] == 0
    assert train("resume=run", "trainer.epochs=2")[0] == 0
    assert (tmp_path / "run" / "plan.yaml").read_text() == plan


def test_a_run_without_a_checkpoint_keeps_its_plan_for_the_same_command_only(train, tmp_path, monkeypatch):
    line = ["plan=good", *TINY, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run", "resume=auto"]
    assert train(*line)[0] == 0
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    other = [item.replace("count=96", "count=64") for item in line]
    planned_for = []

    def plan(level, items, **options):
        planned_for.extend(int(item.partition("=")[2]) for item in items if item.startswith("data.count"))
        return SimpleNamespace(lines=[], text="# @package _global_\n# plan=good for 64 images\n", fingerprint="{}")

    monkeypatch.setattr(make, "plan_command", plan)
    for arguments, expected in ((line, []), (other, [64])):
        with planned.planned(arguments):
            assert planned_for == expected
    for file in (tmp_path / "run").glob("*.jsonl"):
        file.unlink()
    assert train(*other)[0] == 0
    assert "data.count=64" in record_of(tmp_path / "run")["overrides"]


def test_a_run_that_begins_anew_without_a_plan_has_none(train, tmp_path):
    line = [*TINY, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run", "resume=auto"]
    assert train("plan=quick", *line)[0] == 0
    run = tmp_path / "run"
    for file in (*run.glob("checkpoints/*"), *run.glob("*.jsonl")):
        file.unlink()
    assert train(*line)[0] == 0
    assert not (run / "plan.yaml").exists()
    assert not (run / "fingerprint.json").exists()
    assert "## Plan" not in (run / "card.md").read_text()


@pytest.mark.slow
def test_jobs_of_a_sweep_have_their_plans(train, tmp_path):
    status, _, _ = train("-m", "plan=quick,good", "seed=0,1", *TINY, *SHORT, "hydra.sweep.dir=sweep")
    assert status == 0
    plans = {path.parent.name: path.read_text() for path in tmp_path.glob("sweep/*/plan.yaml")}
    assert len(plans) == 4
    assert all(f"\n# plan={name.split('=')[1].split(',')[0]} for " in text for name, text in plans.items())


def test_the_time_that_planning_takes_is_of_the_budget(train, tmp_path, monkeypatch):
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(planned, "monotonic", lambda: next(clock))
    status, _, _ = train("plan=quick", *TINY, "model=resnet8", "trainer.time_budget=4 s", "hydra.run.dir=run")
    assert status == 0
    assert record_of(tmp_path / "run")["time_budget"]["taken_seconds"] > 100


def test_the_plan_knows_what_reading_the_images_took(train, tmp_path, monkeypatch):
    measure, clock = make.measure_fingerprint, [0.0]

    def measured(*arguments):
        clock[0] += 3
        return measure(*arguments)

    def monotonic():
        clock[0] += 4
        return clock[0]

    monkeypatch.setattr(make, "measure_fingerprint", measured)
    monkeypatch.setattr(make, "monotonic", monotonic)
    for name, seconds in (("first", 7.0), ("from the cache", 0.0)):  # four seconds are in the reserve of plans
        assert train("plan=quick", *TINY, *SHORT, f"hydra.run.dir={name}")[0] == 0
        assert json.loads((tmp_path / name / "fingerprint.json").read_text())["planning_seconds"] == seconds


@pytest.mark.slow
def test_the_plan_knows_that_images_are_read_again_at_another_size(tmp_path, monkeypatch):
    for part, count in (("train", 20), ("test", 2)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (96, 96))
    monkeypatch.chdir(tmp_path)
    clock = iter([0.0, 30.0, 40.0, 40.0, 50.0, 50.0, 60.0, 90.0])
    monkeypatch.setattr(make, "monotonic", lambda: next(clock))
    line = ["plan=good", "data=image_folder", "data.root=photos", "trainer.time_budget=2 min"]

    def expected(*typed):
        with planned.planned([*line, *typed]) as plans:
            return json.loads(plans.files_of("good")["fingerprint.json"])["expected_epochs"]

    rate = 1e4 / (32 + 0.1 * 1e4)  # epochs a second
    assert expected() == round(50 * rate)  # read here and by the run, at 96 pixels: twice 30 seconds
    assert expected() == round(0.85 * 90 * rate)  # looked at before, but not read at 96 pixels
    assert expected("data.image_size=64") == round(0.85 * 120 * rate)  # as the images were looked at
    assert expected("data.image_size=64", "data.cache=null") == round(50 * rate)  # read here and by the run


def test_files_that_are_read_again_are_resized_only_by_data_that_can(monkeypatch):
    nodes, node = [], {"image_size": make.PLANNED_SIDE, "cache": None}
    split = SimpleNamespace(split=SimpleNamespace(images=None))
    monkeypatch.setattr(
        make.build, "partition", lambda node: nodes.append(node) or SimpleNamespace(samples={"train": split})
    )
    measurer = make._Measurer({}, node, [], None, None, can_resize=True)
    measurer.facts["_reading"] = 30.0
    assert measurer.reading(96, None) == 0.0
    measurer.reading(96, "pad")
    assert nodes == [{**node, "image_size": 96}, {**node, "image_size": 96, "resize": "pad"}]


def test_values_of_an_experiment_count_as_typed(train, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: resnet20\ndata:\n  batch_size: 7\n"
    )
    status, out, err = train("plan=good", "experiment=mine", *TINY, "--cfg", "job")
    assert status == 0
    assert "batch_size: 7" in out
    assert "data.batch_size" not in err
    assert "model=" not in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["plan=nice"], "error: plan=nice: takes quick, good, best or null\n"),
        (
            ["-m", "plan=good", "data=digits,synthetic"],
            "leave out plan to sweep over data, or start the runs one by one",
        ),
        (["plan=good", "data.batch_size=no"], "error: data.batch_size"),
        (["plan=good", "data=image_folder", "data.root=missing"], "data.root=missing does not exist"),
        (["plan=good", "data=image_folder", "data.root=photos", "data.layout=classes"], "has 1 class"),
        (["plan=good", *TINY[:2], "data.classes=3", "data.count=4", "data.val_fraction=0"], "too few to train on"),
        (
            ["plan=good", *TINY, "trainer.time_budget=1 h", "trainer.log_sharpness=1"],
            "a time budget cannot account for",
        ),
        (["plan=good", "reproduce=missing"], "leave out plan with reproduce"),
        (["plan=good", *TINY, "model=resnet21"], "error: model=resnet21: no such option"),
        (["-m", "plan=good", *TINY, "schedule=missing", "seed=0,1"], "error: schedule=missing: no such option"),
        (["plan=good", "experiment=missing"], "error: experiment=missing: no such option"),
    ],
)
def test_what_cannot_be_planned(train, tmp_path, arguments, problem):
    write_class_folders(tmp_path / "photos", ["cat"], 20, (40, 30))
    status, _, err = train(*arguments)
    assert status == 2
    assert problem in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("side", [6, pytest.param(1200, marks=pytest.mark.slow)])
def test_images_of_any_size_are_planned_for_without_a_budget(train, side):
    status, out, _ = train(
        "plan=quick", "data=synthetic", f"data.image_size={side}", "data.count=48", "data.test_count=4", "--cfg", "job"
    )
    assert status == 0
    assert "plan: quick" in out


def damage(*files):
    for file in files:
        file.write_bytes(file.read_bytes()[:60])


@pytest.mark.parametrize("count", [1, 24])
def test_damaged_files_are_refused_before_nets_are_measured(train, tmp_path, monkeypatch, count):
    monkeypatch.setattr(make, "images_per_second", lambda *a, **o: pytest.fail("measured"))
    write_class_folders(tmp_path / "photos" / "train", ["cat", "dog"], 12, (40, 30))
    write_class_folders(tmp_path / "photos" / "test", ["cat", "dog"], 2, (40, 30))
    files = sorted((tmp_path / "photos" / "train").rglob("*.*"))
    damage(*files[-count:])
    line = ["data=image_folder", "data.root=photos", "data.image_size=8", "trainer.time_budget=30 s"]
    status, _, err = train("plan=quick", *line)
    assert status == 2
    assert err.count("\n") == 1 + ("looking at the training images" in err)
    path = files[-count].relative_to(tmp_path / "photos")
    assert f"error: plan: {count} of 24 training files cannot be decoded (the first: " in err
    assert f"{path}: " in err
    assert err.count("cannot be decoded") == 1
    assert err.endswith("); resnet-data lists them; delete or replace them\n")
    assert train(*line)[0] == 2, "the run would not refuse them"


@pytest.mark.parametrize("part", ["val", "test"])
def test_damaged_files_of_other_splits_are_refused_before_nets_are_measured(train, tmp_path, monkeypatch, part):
    for folder in ("train", "val", "test"):
        write_class_folders(tmp_path / "photos" / folder, ["cat", "dog"], 8, (40, 30))
    line = ["plan=quick", "data=image_folder", "data.root=photos", *SHORT]
    assert train(*line, "--cfg", "job")[0] == 0  # so that the fingerprint is in the cache
    monkeypatch.setattr(make, "images_per_second", lambda *a, **o: pytest.fail("measured"))
    damage(file := next((tmp_path / "photos" / part).rglob("*.*")))
    status, _, err = train(*line)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert str(file.relative_to(tmp_path)) in err


@pytest.mark.slow
def test_damaged_files_that_the_run_does_not_read_are_no_obstacle(train, tmp_path):
    write_class_folders(tmp_path / "photos" / "train", ["cat", "dog"], 12, (40, 30))
    write_class_folders(tmp_path / "photos" / "test", ["cat", "dog"], 2, (40, 30))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "data.image_size=8", "data.train_size=8", *SHORT]
    assert train(*line, "data.val_fraction=0.2", "hydra.run.dir=whole")[0] == 0
    used = json.loads((tmp_path / "whole" / "splits.json").read_text())
    files = sorted((tmp_path / "photos" / "train").rglob("*.*"))
    names = {f"{folder}/{name}" for part in ("train", "val") for folder in used[part] for name in used[part][folder]}
    unused = [file for file in files if file.relative_to(tmp_path / "photos").as_posix() not in names]
    assert 0 < len(unused) < len(files)
    content = unused[0].read_bytes()
    unused[0].write_bytes(content[: len(content) // 2] + b"\0" * 100 + content[-12:])  # with its header and end
    line += ["data.val_fraction=0.2", "data.cache=null"]
    known = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"]
    assert train(*line, "data.backend=stream", *known, "hydra.run.dir=part")[0] == 0
    for reads_all in (["data.backend=device", *known], ["data.backend=stream"]):
        assert "plan: 1 of 24 training files cannot be decoded" in train(*line, *reads_all)[2]
    damage(next(file for file in files if file not in unused))
    assert "plan: 1 of 24 training files cannot be decoded" in train(*line, "data.backend=stream", *known)[2]


def test_the_facts_of_a_sample_are_not_those_of_all_images(train, tmp_path, monkeypatch):
    for part, count in (("train", 12), ("test", 2)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (10, 10))
    looked, measure = [], make.measure_fingerprint
    monkeypatch.setattr(make, "measure_fingerprint", lambda *arguments: looked.append(1) or measure(*arguments))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "data.image_size=8", *SHORT, "--cfg", "job"]
    known = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"]
    counts = []
    for backend in ("stream", "device", "stream", "device"):
        assert train(*line, *known, f"data.backend={backend}")[0] == 0
        counts.append(len(looked))
    assert counts == [1, 2, 2, 2]


def test_files_of_unlike_sizes_are_refused_before_nets_are_measured(train, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "images_per_second", lambda *a, **o: pytest.fail("measured"))
    write_class_folders(tmp_path / "photos", ["cat"], 12, (40, 30))
    write_class_folders(tmp_path / "photos", ["dog"], 12, (30, 30))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "trainer.time_budget=30 s"]
    status, _, err = train(*line, "data.image_size=null")
    assert status == 2
    assert "error: " in err
    assert "data.image_size=N, such as 64, makes all images N x N" in err


@pytest.mark.parametrize(
    "content", [b"a: [", b"- a\n", b"\xff", b"defaults: a\n", b"# @package _global_\ndefaults:\ntrainer: {epochs: 2}\n"]
)
def test_damaged_experiments_are_left_to_hydra(train, tmp_path, content):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(content)
    status, _, err = train("plan=quick", "experiment=mine", *TINY, "--cfg", "job")
    assert status == 2
    assert err.startswith("error: conf/experiment/mine.yaml")


def test_what_an_experiment_begins_with_counts_as_typed_too(train, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("# @package _global_\ndata:\n  batch_size: 7\n")
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - base\ntrainer:\n  epochs: 2\n")
    status, out, err = train("plan=good", "experiment=mine", *TINY, "--cfg", "job")
    assert status == 0
    assert "batch_size: 7" in out
    assert "data.batch_size" not in err


@pytest.mark.parametrize(
    ("override", "values", "first"),
    [
        ("model=glob(resnet2*)", ["resnet20"], "model=resnet20"),
        ("plan='quick','good'", ["quick", "good"], "plan='quick'"),
        ("name='a b','c'", ["a b", "c"], "name='a b'"),
        ("optimizer.lr=interval(0.1,1)", [0.1], "optimizer.lr=0.1"),
        ("seed=range(1,3)", [1, 2], "seed=1"),
        ("+data.x=['a',b],[c]", [["a", "b"], ["c"]], "+data.x=['a',b]"),
        ("trainer.epochs=3", [3], "trainer.epochs=3"),
        ("experiment=[]", [[]], "experiment=null"),
    ],
)
def test_overrides_of_every_form_have_values(override, values, first):
    parsed = OverridesParser.create().parse_override(override)
    found = plan_overrides.values_of(parsed, [])
    assert found == values
    assert plan_overrides.with_first_value(parsed, found[0]) == first


def test_a_sweep_over_no_plan_says_so(train):
    _, _, err = train("-m", "plan=quick,null", *TINY)
    assert err == "error: plan=null: takes quick, good, best; null is not swept over\n"


def test_a_further_command_in_a_sweep_has_the_plan_of_the_same_data_only(train, tmp_path, monkeypatch):
    line = ["-m", "plan=quick", "data=synthetic", "data.image_size=8", "model=resnet8", "hydra.sweep.dir=sweep"]
    usual = ["data.count=96", "trainer.epochs=1"]
    assert train(*line, *usual, "seed=0")[0] == 0
    planned_for = []

    def plan(level, items, **options):
        planned_for.extend(int(item.partition("=")[2]) for item in items if item.startswith("data.count"))
        return SimpleNamespace(lines=[], text="", fingerprint="")

    monkeypatch.setattr(make, "plan_command", plan)
    for further, expected in (
        ([*usual, "seed=1"], []),
        (["data.count=64", "trainer.epochs=1", "seed=0"], [64]),
        ([*usual, "optimizer.lr=0.1"], [64, 96]),
        (["data.count=96", "trainer.epochs=1,2"], [64, 96]),
    ):
        with planned.planned([*line, *further]):
            assert planned_for == expected
    next(tmp_path.glob("sweep/*/run.json")).write_text("{")
    with planned.planned([*line, *usual, "seed=1"]):
        assert len(planned_for) == 3


def sweeping_experiment(folder, **params):
    """Write `conf/experiment/swept.yaml`, which sweeps over these keys; two underscores stand for a dot."""
    lines = [f"      {key.replace('__', '.')}: {values}" for key, values in params.items()]
    own_config(
        folder,
        "experiment",
        swept="\n".join(["# @package _global_", "hydra:", "  sweeper:", "    params:", *lines, ""]),
    )


def test_what_an_experiment_sweeps_over_counts_as_typed(train, tmp_path):
    sweeping_experiment(tmp_path, model="resnet20,resnet8", optimizer__lr="0.1,0.2", seed="0,1")
    status, _, err = train("-m", "plan=good", "experiment=swept", *TINY, "optimizer.lr=0.3", "trainer=debug", "seed=0")
    assert status == 0
    assert "plan    made for model=resnet20, the first job of the sweep, and used for all jobs\n" in err
    assert not {"model", "optimizer.lr"} & set(choices_of(err))


def test_a_plan_is_not_for_an_experiment_that_sweeps_over_the_data(train, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    sweeping_experiment(tmp_path, data__label_noise="0,0.3")
    status, _, err = train("-m", "plan=good", "experiment=swept", *TINY)
    assert status == 2
    assert "leave out plan to sweep over data.label_noise" in err


def test_a_plan_is_for_experiments_on_the_same_data_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_config(
        tmp_path, "experiment", a="# @package _global_\ndefaults:\n  - override /data: digits\n",
        b="# @package _global_\ndefaults:\n  - override /data: synthetic\n",
        c="# @package _global_\ndefaults:\n  - override /data: digits\ntrainer:\n  epochs: 3\n",
    )  # fmt: skip
    made = SimpleNamespace(lines=[], text="", fingerprint="")
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: made)
    line = ["-m", "plan=quick"]
    with planned.planned([*line, "experiment=a,c"]):
        pass
    with pytest.raises(InputError, match="sweep over experiment"), planned.planned([*line, "experiment=a,b"]):
        pass
    (tmp_path / "s").mkdir()
    (tmp_path / "s/sweep.json").touch()
    with planned.planned([*line, "experiment=a,b", "hydra.sweep.dir=s"]):
        pass  # a sweep of a former version is continued


@pytest.mark.parametrize(
    "swept", ["data.augment.flip=none,random", "data.sampler=uniform,balanced", "data.val_fraction=0.2,0.3"]
)
def test_a_plan_is_for_a_sweep_over_what_leaves_the_data_as_they_are(tmp_path, monkeypatch, capsys, swept):
    monkeypatch.chdir(tmp_path)
    with planned.planned(["-m", "plan=quick", *TINY, *SHORT, swept]):
        assert f"made for {swept.partition(',')[0]}, the first job of the sweep" in capsys.readouterr().err


def test_a_sweep_keeps_its_plan_unless_a_key_differs_that_identifies_jobs(train, tmp_path, monkeypatch):
    sweeping_experiment(tmp_path, optimizer__lr="0.1,0.2")
    line = ["-m", "plan=quick", "experiment=swept", *TINY, "model=resnet8", "trainer.epochs=1", "hydra.sweep.dir=s"]
    assert train(*line)[0] == 0
    plan = next(tmp_path.glob("s/*/plan.yaml")).read_text()
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    for further in ([], ["seed=0,1", "trainer.device=cpu", "data.workers=0", "trainer.on_oom=halve"]):
        with planned.planned([*line, *further]) as plans:
            assert plans.files_of("quick")["plan.yaml"] == plan


def test_null_plans_nothing(train, monkeypatch):
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    assert train("plan=null", "experiment=null", *TINY, "--cfg", "job")[0] == 0


def test_a_plan_without_an_experiment_is_made(train):
    assert train("plan=quick", "experiment=null", "logger=null", *TINY, "--cfg", "job")[0] == 0


@pytest.mark.parametrize(
    "option", [["--cfg", "plan"], ["--info", "nothing"], ["--epochs", "3"], ["-m", "--cfg", "job"]]
)
def test_a_wrong_option_is_refused_before_the_plan_is_made(train, monkeypatch, option):
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    status, out, err = train("plan=quick", *TINY, *option)
    assert (status, out) == (2, "")
    assert option[0] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_weights_are_read_before_nets_are_measured(train, tmp_path, monkeypatch, key):
    monkeypatch.setattr(make, "measure_fingerprint", lambda *arguments: pytest.fail("looked at the images"))
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, problem in (("nowhere", "no such run folder"), ("empty.pt", "damaged, or not a ")):
        status, out, err = train("plan=quick", *TINY, f"{key}={name}")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {key}={name}: {problem}")


def test_measurements_are_remembered(train, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(make, "images_per_second", lambda *a, **o: calls.append(a) or 1e4)
    write_class_folders(tmp_path / "photos", ["cat", "dog"], 20, (40, 30))
    line = ["plan=good", "data=image_folder", "data.root=photos", "trainer.time_budget=30 s", "--cfg", "job"]
    first = train(*line)
    assert first[0] == 0
    count = len(calls)
    assert count >= 1
    assert train(*line)[1] == first[1]
    assert len(calls) == count


def test_a_net_that_did_not_fit_into_memory_is_measured_again(train, monkeypatch):
    measured = []
    monkeypatch.setattr(make, "images_per_second", lambda *arguments, **options: measured.append(1) or 0.0)
    line = ["plan=quick", *TINY, "model=resnet8", "trainer.time_budget=30 s", "--cfg", "job"]
    for _ in range(2):
        assert train(*line)[0] == 0
    assert len(measured) == 2


@pytest.mark.slow
def test_nets_are_measured_with_their_optimizer_and_batch(train, monkeypatch):
    measured = []

    def rate(nodes, *arguments, batch_size, **options):
        measured.append((nodes["optimizer"]["_target_"].rpartition(".")[2], batch_size))
        assert "groups" not in nodes["optimizer"]
        return 1e4

    monkeypatch.setattr(make, "images_per_second", rate)
    kinds = {}
    for typed in ([], ["optimizer=adamw"], ["optimizer.groups={no_such: {lr: 1}}"], ["data.batch_size=8"]):
        measured.clear()
        line = ["plan=good", *TINY, "trainer.time_budget=30 s", *typed]
        assert train(*line, "--cfg", "job")[0] == 0
        kinds[" ".join(typed).partition("=")[0]] = set(measured)
    assert ("Muon", 32) in kinds[""]
    assert {kind for kind, _ in kinds["optimizer"]} == {"AdamW"}
    assert {kind for kind, _ in kinds["optimizer.groups"]} == {"SGD"}
    assert ("Muon", 8) in kinds["data.batch_size"]


@pytest.mark.slow
def test_the_time_of_a_teacher_counts(train, trained_run, monkeypatch):
    monkeypatch.setattr(make, "teacher_images_per_second", lambda *arguments, **options: 1e4)
    photos = ["data=image_folder", f"data.root={trained_run.parent / 'photos'}", "data.image_size=[10,8]"]
    line = ["plan=quick", *photos, "trainer.time_budget=30 s", "--cfg", "job"]
    assert "trains 10,000 images per second" in train(*line)[2]
    assert "trains 5,000 images per second" in train(*line, f"teacher={trained_run}")[2]


@pytest.mark.slow
def test_several_processes_are_not_timed_and_a_line_says_so(train):
    for typed, is_said in (("trainer.processes=2", True), ("trainer.processes=1", False)):
        status, _, err = train("plan=quick", *TINY, typed, "trainer.time_budget=30 s", "--cfg", "job")
        assert status == 0
        assert ("plan    nets were timed in one process; " in err) is is_said


def choices_of(err):
    """Return what the lines of a plan choose."""
    return dict(line.split()[1].partition("=")[::2] for line in err.splitlines() if line.startswith("plan    "))


def own_config(folder, group, **files):
    """Write files of a config group, contents by name."""
    place = folder / "conf" / group
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / f"{name}.yaml").write_text(content)


@pytest.mark.parametrize(
    ("typed", "left_out"),
    [
        (["optimizer._target_=torch.optim.Adam"], {"optimizer", "optimizer.lr"}),
        (["model._target_=torch.nn.Flatten"], {"model"}),
        (["data.augment=null"], {"data.augment.flip", "data.augment.crop"}),
        (["~data.augment"], {"data.augment.flip", "data.augment.crop"}),
        (["trainer=debug"], {"trainer.epochs"}),
        (["trainer=overfit"], {"trainer.epochs"}),
        (["trainer=fast"], {"trainer.cpu_bf16"}),
        (["trainer.epochs=2.5"], {"trainer.epochs", "data.augment.erase"}),
        (["trainer.label_smoothing=0.1"], {"loss.label_smoothing"}),
        (["trainer.label_smoothing=0"], {"loss.label_smoothing"}),
        (["data.augment.resized_crop=[0.5,1]"], {"data.augment.crop"}),
        (["trainer=deterministic"], set()),
        (["trainer=default"], set()),
    ],
)
def test_what_is_chosen_as_a_whole_counts_as_typed(train, typed, left_out):
    usual = choices_of(train("plan=good", *TINY, "--cfg", "job")[2])
    status, _, err = train("plan=good", *TINY, *typed, "--cfg", "job")
    assert status == 0
    assert left_out <= {*usual, "trainer.cpu_bf16"}
    assert not left_out & set(choices_of(err))


def test_what_is_planned_for_a_typed_class_takes_effect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["plan=good", *TINY, "trainer._target_=resnet_cli.ClassifierTrainer"]
    with planned.planned(line):
        assert compose_settings(line).settings["trainer"]["epochs"] == 80


def test_no_second_kind_of_crop_is_chosen(train):
    large = [item.replace("image_size=8", "image_size=64") for item in TINY]
    for typed, is_chosen in (("seed=0", True), ("data.augment.crop=0", True), ("data.augment.crop=4", False)):
        _, _, err = train("plan=good", *large, typed, "--cfg", "job")
        assert ("data.augment.resized_crop" in choices_of(err)) == is_chosen


@pytest.mark.parametrize(
    ("typed", "side", "net"),
    [
        (["model.dropout=0.1"], "32", "resnet20"),
        (["model.dropout=0.1", "trainer.time_budget=30 s"], "32", "wrn16_4"),
        (["model=resnet20"], "32", None),
        (["model=resnet20", "model.dropout=0.1", "trainer.time_budget=30 s"], "32", None),
        (["model.norm=group"], "96", "resnet18"),
        (["~model.dropout"], "32", "resnet20"),
        (["model=resnet56"], "32", None),
        (["model=resnet50"], "32", None),
        (["init_from=weights.pt"], "32", None),
    ],
)
def test_images_get_a_size_for_which_a_net_takes_the_typed_keys(train, tmp_path, typed, side, net):
    write_class_folders(tmp_path / "photos", ["cat", "dog"], 20, (96, 96))
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pt")
    status, _, err = train("plan=good", "data=image_folder", "data.root=photos", *typed, "--cfg", "job")
    assert status == 0
    chosen = choices_of(err)
    assert (chosen["data.image_size"], chosen.get("model")) == (side, net)


@pytest.mark.parametrize(
    ("level", "typed", "net"),
    [
        ("good", ["model.block=bottleneck", "trainer.time_budget=30 s"], "resnet20"),  # others have another depth
        ("best", ["model.block=bottleneck"], "resnet20"),
        ("best", ["model.init=fixup", "model.norm=none"], "resnet8"),  # no level has it, and WRN-16-4 has another order
    ],
)
def test_a_net_that_cannot_be_built_with_the_typed_keys_is_not_chosen(train, level, typed, net):
    status, _, err = train(f"plan={level}", *TINY, *typed, "--cfg", "job")
    assert status == 0
    assert choices_of(err)["model"] == net


def test_what_files_of_the_user_set_counts_as_typed(train, tmp_path):
    target = "_target_: resnet_cli.data.synthetic\nimage_size: 8\ncount: 96\n"
    own_config(
        tmp_path, "data", small=f"{target}batch_size: 5\n", plain=f"{target}augment: null\n",
        based="defaults:\n  - synthetic\nval_fraction: 0.3\n",
    )  # fmt: skip
    chosen = choices_of(train("plan=good", "data=small", "--cfg", "job")[2])
    assert "data.batch_size" not in chosen
    assert "data.augment.flip" not in chosen  # there is no augmentation whose values could be set
    assert "data.augment.flip" not in choices_of(train("plan=good", "data=plain", "--cfg", "job")[2])
    status, out, err = train("plan=good", "data=based", *TINY[1:], "--cfg", "job")
    assert status == 0
    assert "val_fraction: 0.3" in out
    assert choices_of(err)["data.batch_size"] == "32"


@pytest.mark.parametrize("base", ["base", "/experiment/base", "base@_global_"])
def test_an_experiment_may_begin_with_another_in_any_notation(train, tmp_path, base):
    own_config(
        tmp_path, "experiment", base="# @package _global_\ndata:\n  batch_size: 7\n",
        mine=f"# @package _global_\ndefaults:\n  - {base}\n  - override /model: resnet8\ntrainer:\n  epochs: 2\n",
    )  # fmt: skip
    status, out, err = train("plan=good", "experiment=mine", *TINY, "--cfg", "job")
    assert status == 0
    assert "batch_size: 7" in out
    assert not {"data.batch_size", "model", "trainer.epochs"} & set(choices_of(err))


@pytest.mark.parametrize("line", [[], ["-m", "seed=0,1"]])
def test_an_experiment_cannot_choose_a_plan(train, tmp_path, line):
    own_config(tmp_path, "experiment", mine="# @package _global_\ndefaults:\n  - override /plan: good\n")
    status, _, err = train(*line, "experiment=mine", *TINY)
    assert status == 2
    assert err.endswith("plan=good: an experiment cannot choose a plan; type plan=good on the command line\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "multirun").exists()


def test_an_experiment_cannot_sweep_over_plans(train, tmp_path):
    sweeping_experiment(tmp_path, plan="quick,good", seed="0,1")
    status, _, err = train("-m", "experiment=swept", *TINY, *SHORT)
    assert status == 2
    typed = "type plan=quick,good on the command line"
    assert err.endswith(f"plan=quick,good: an experiment cannot choose a plan; {typed}\n")
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(("batch_size", "rate"), [("${trainer.epochs}", "0.056"), (None, "0.11")])
def test_values_that_are_references_or_taken_away_are_planned_around(train, batch_size, rate):
    typed = "~data.batch_size" if batch_size is None else f"data.batch_size={batch_size}"
    status, _, err = train("plan=good", *TINY, typed, "--cfg", "job")
    assert status == 0
    assert choices_of(err)["optimizer.lr"] == rate  # for 20 images, and for all 77 in the default of 128


@pytest.mark.parametrize(
    "typed", ["trainer.device=cuda:99", "trainer.device=nope", "trainer.precision=fp16", "trainer.precision=tf32"]
)
def test_a_device_or_precision_that_is_not_here_is_one_line(train, typed):
    device = ["trainer.device=cpu"] if "precision" in typed else []
    status, _, err = train("plan=good", *TINY, *device, typed)
    assert status == 2
    assert err.startswith(f"error: {typed.partition('=')[0]}: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_nets_are_measured_in_the_precision_of_the_run(train, monkeypatch):
    measured = []
    monkeypatch.setattr(make, "has_bf16_matrix_units", lambda: True)
    monkeypatch.setattr("resnet_cli.training.device.has_bf16_matrix_units", lambda: True)
    monkeypatch.setattr(make, "images_per_second", lambda *a, precision, **o: measured.append(precision) or 1e4)
    for typed, expected in (
        ("trainer.cpu_bf16=true", {"bf16"}), ("trainer.cpu_bf16=false", {"fp32"}), ("trainer=fast", set()),
        ("trainer.precision=fp32", set()), ("seed=1", set()),
    ):  # fmt: skip
        measured.clear()
        train("plan=good", *TINY, "trainer.device=cpu", "trainer.time_budget=30 s", typed, "--cfg", "job")
        assert set(measured) == expected, typed  # the others are known from the first commands


def test_bf16_is_chosen_only_where_the_precision_is_automatic(train, monkeypatch):
    monkeypatch.setattr(make, "has_bf16_matrix_units", lambda: True)
    for typed, is_chosen in (("trainer.precision=auto", True), ("trainer.precision=fp32", False)):
        _, _, err = train("plan=good", *TINY, "trainer.device=cpu", typed, "--cfg", "job")
        assert ("trainer.cpu_bf16" in choices_of(err)) == is_chosen


@pytest.mark.slow
def test_rates_are_measured_again_after_a_week_and_with_another_torch(train, monkeypatch):
    calls = []
    monkeypatch.setattr(make, "images_per_second", lambda *a, **o: calls.append(a) or 1e4)
    line = ["plan=good", *TINY, "trainer.time_budget=30 s", "--cfg", "job"]
    train(*line)
    once = len(calls)
    now = make.time.time()
    monkeypatch.setattr(make.time, "time", lambda: now + 6 * 24 * 3600)
    train(*line)
    assert len(calls) == once
    monkeypatch.setattr(make.time, "time", lambda: now + 8 * 24 * 3600)
    train(*line)
    assert len(calls) == 2 * once
    monkeypatch.setattr(torch, "__version__", "9.9")
    train(*line)
    assert len(calls) == 3 * once


@pytest.mark.slow
def test_a_sweep_over_what_plans_depend_on_says_for_which_value_it_is_made(train, tmp_path):
    line = ["-m", "plan=quick", *TINY, "trainer=debug"]
    note = "plan    made for model=resnet8, the first job of the sweep, and used for all jobs\n"
    assert note in train(*line, "model=resnet8,cnn")[2]
    assert "made for" not in train(*line, "model=resnet8", "seed=0,1", "data.folds=5", "data.fold=0,1")[2]


@pytest.mark.slow
def test_each_plan_of_a_sweep_over_levels_begins_with_its_level(train):
    err = train("-m", "plan=quick,good", *TINY, "trainer=debug", "model=resnet8")[2]
    lines = [line for line in err.splitlines() if line.startswith("plan    ")]
    titles = [line for line in lines if line.startswith("plan    plan=")]
    assert titles == ["plan    plan=quick", "plan    plan=good"]
    first, second = map(lines.index, titles)
    assert lines[first + 1] == lines[second + 1]
    assert "plan    plan=" not in train("-m", "plan=quick", "seed=0,1", *TINY, "trainer=debug", "model=resnet8")[2]


@pytest.mark.slow
def test_rates_are_those_of_the_net_that_an_experiment_sets(train, tmp_path, monkeypatch):
    widths = []
    monkeypatch.setattr(make, "images_per_second", lambda nodes, *a, **o: widths.append(nodes["model"]["width"]) or 1e4)
    own_config(
        tmp_path, "experiment",
        **{f"w{width}": f"# @package _global_\nmodel:\n  width: {width}\n" for width in (3, 4)},
    )  # fmt: skip
    for width in (3, 4):
        train("plan=quick", *TINY, "trainer.time_budget=30 s", f"experiment=w{width}", "--cfg", "job")
    assert set(widths) == {3, 4}


def test_the_search_path_of_hydra_is_kept(train, tmp_path):
    own_config(tmp_path / "other", "model", mine="_target_: resnet_cli.models.CifarResNet\ndepth: 8\n")
    status, out, _ = train("plan=quick", *TINY, "model=mine", "hydra.searchpath=[file://other/conf]", "--cfg", "job")
    assert status == 0
    assert "depth: 8" in out


@pytest.mark.parametrize("plus", ["+", "++"])
def test_a_plus_before_a_group_that_has_an_option_already_is_left_out(train, tmp_path, plus):
    own_config(tmp_path, "experiment", mine="# @package _global_\ndata:\n  batch_size: 7\n")
    status, out, err = train(f"{plus}plan=quick", f"{plus}experiment=mine", *TINY, "--cfg", "job")
    assert status == 0
    assert "batch_size: 7" in out
    assert "data.batch_size" not in choices_of(err)
    assert choices_of(err)["model"] == "resnet20"


def test_many_classes_of_one_image_are_planned_for_beside_others(train, tmp_path):
    write_class_folders(tmp_path / "photos" / "train", ["cat", "dog"], 12, (10, 10))
    write_class_folders(tmp_path / "photos" / "train", ["a", "b", "c", "d", "e"], 1, (10, 10))
    write_class_folders(tmp_path / "photos" / "test", ["cat", "dog", "a", "b", "c", "d", "e"], 1, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "--cfg", "job"]
    assert train(*line)[0] == 0
    status, _, err = train(*line, "data.classes=[a, b, cat]")
    assert status == 2
    assert "too few to train on" in err


def test_no_fraction_is_chosen_where_none_is_held_out(train, tmp_path):
    for part, count in (("train", 20), ("val", 4), ("test", 2)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "--cfg", "job"]
    assert "data.val_fraction" not in choices_of(train(*line)[2])
    assert "data.val_fraction" not in choices_of(train(*line, "data.folds=5")[2])
    for file in (tmp_path / "photos" / "val").rglob("*.*"):
        file.unlink()
    for folder in [*(tmp_path / "photos" / "val").iterdir(), tmp_path / "photos" / "val"]:
        folder.rmdir()
    assert choices_of(train(*line)[2])["data.val_fraction"] == "0.2"


def test_images_that_the_plan_holds_out_are_not_counted(train, tmp_path):
    for part, count in (("train", 20), ("test", 2)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "trainer.epochs=1"]
    status, out, err = train(*line, "hydra.run.dir=run")
    assert status == 0
    assert "32 training, 8 validation" in out
    assert "data.batch_size=32 32 training images" in " ".join(err.split())
    assert "for 32 training images" in (tmp_path / "run/plan.yaml").read_text(encoding="utf-8")
    for typed in ("data.val_fraction=0.1", "~data.val_fraction"):
        assert "36 training images" in train(*line, typed, "--cfg", "job")[2]
    assert "data.batch_size=32 30 training images" in " ".join(
        train(*line, "data.train_size=30", "--cfg", "job")[2].split()
    )


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (["init_from=weights.pt"], {"optimizer.lr": "0.01", "schedule": "cosine"}),
        (["init_from=weights.pt", "schedule.warmup_start=0.1"], {"schedule": "cosine"}),
        (["init_from=weights.pt", "schedule.peak_at=30%"], {"optimizer.lr": "0.01", "schedule": "one_cycle"}),
        (["model=torchvision", "model.weights=DEFAULT"],
         {"optimizer.lr": "0.01", "optimizer.head_lr": "0.1", "schedule": "cosine"}),
        (["model=torchvision"], {"optimizer.lr": "0.025", "schedule": "one_cycle"}),
    ],
)  # fmt: skip
def test_nets_that_start_from_weights_are_fine_tuned(train, tmp_path, monkeypatch, typed, keys):
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pt")
    monkeypatch.setattr("resnet_cli.session.pretrained.with_defaults_of_weights", lambda settings, keys: settings)
    status, _, err = train("plan=good", *TINY, *typed, "--cfg", "job")
    assert status == 0
    chosen = choices_of(err)
    assert {key: chosen.get(key) for key in keys} == keys
    assert ("optimizer.head_lr" in chosen) is ("optimizer.head_lr" in keys)


@pytest.mark.slow
def test_the_key_of_a_plan_in_an_experiment_is_noted(train, tmp_path):
    own_config(tmp_path, "experiment", mine="# @package _global_\nplan: good\ndata:\n  batch_size: 7\n")
    for line in ([], ["-m", "seed=0,1"]):
        status, _, err = train(*line, "experiment=mine", *TINY, *SHORT)
        assert status == 0
        assert (
            err.count("note: conf/experiment/mine.yaml: plan: good has no effect in a file; type plan=good instead\n")
            == 1
        )


def test_the_key_of_a_plan_in_an_experiment_does_not_replace_the_typed_level(train, tmp_path):
    own_config(tmp_path, "experiment", mine="# @package _global_\nplan: good\n")
    status, _, _ = train(
        "plan=quick", "experiment=mine", *TINY, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run"
    )
    assert status == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["plan"] == "quick"
    assert "\n# plan=quick for " in (tmp_path / "run" / "plan.yaml").read_text()


def test_a_plan_of_a_former_version_is_read(train, tmp_path, monkeypatch):
    line = ["plan=good", *TINY, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run", "resume=auto"]
    assert train(*line)[0] == 0
    file = tmp_path / "run" / "plan.yaml"
    file.write_text(f"{file.read_text()}plan: good\n")
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned again"))
    assert train(*line)[0] == 0


@pytest.mark.parametrize(
    ("more", "is_used"),
    [
        ("", True),
        ("trainer:\n  epochs: 3\nplan: good\n", True),
        ("defaults:\n  - override /model: resnet20\n", True),
        ("defaults:\n  - override /model: ../other\n", False),
        ("defaults:\n  - override /hydra/launcher: own\n", False),
        ("defaults:\n  - own\n", False),
        ("hydra:\n  callbacks:\n    own:\n      _target_: own.Callback\n", False),
        ("model:\n  _target_: own.Net\n", False),
        ("  augment:\n    flip: {_target_: own.Flip}\n", False),
        ("  augment:\n    resized_crop: [{_target_: own.Crop}]\n", False),
        ("optimizer:\n  lr: ${oc.env:HOME}\n", False),
        ("# @package hydra\n", False),
        ("model: [\n", False),
    ],
)
def test_a_stored_plan_that_sets_more_than_plans_do_is_not_used(tmp_path, monkeypatch, capsys, more, is_used):
    monkeypatch.chdir(tmp_path)
    made = SimpleNamespace(lines=[], text="new", fingerprint="")
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: made)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.pt").touch()
    text = f"# @package _global_\n# plan=good for 77 training images\ndata:\n  batch_size: 8\n{more}"
    (tmp_path / "run/plan.yaml").write_text(text)
    with planned.planned(["plan=good", *TINY, "hydra.run.dir=run"]) as plans:
        assert plans.files_of("good")["plan.yaml"] == (text if is_used else "new")
    assert ("plan.yaml: sets more than a plan does" in capsys.readouterr().err) is not is_used


def test_several_levels_without_multirun_are_not_planned(train, monkeypatch):
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    status, _, err = train("plan=good,quick", *TINY)
    assert status == 2
    assert "add -m for a sweep" in err


def test_what_the_split_says_is_said_once(train, tmp_path, caplog):
    write_class_folders(tmp_path / "photos", ["cat", "dog"], 12, (10, 10))
    write_class_folders(tmp_path / "photos", ["rare"], 1, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos", *SHORT]
    train(*line, "--cfg", "job")
    assert "nothing held out" not in caplog.text  # of planning
    _, out, err = train(*line)
    assert (out + err).count("nothing held out") == 2  # by the run, for the test and for validation


def test_nothing_left_to_choose_is_said(train, tmp_path):
    assert train("plan=quick", *TINY, "hydra.run.dir=run", "trainer.epochs=1")[0] == 0
    own_config(tmp_path, "experiment", mine=(tmp_path / "run" / "plan.yaml").read_text())
    _, _, err = train("plan=quick", "experiment=mine", *TINY, "trainer.epochs=1", "--cfg", "job")
    assert err.startswith("plan    nothing is left to choose: all that plans choose is set by you\n")


def test_a_run_that_is_trained_again_has_the_plan_too(train, tmp_path):
    assert train("plan=quick", *TINY, *SHORT, "hydra.run.dir=run")[0] == 0
    assert train("reproduce=run", "hydra.run.dir=again")[0] == 0
    for name in ("plan.yaml", "fingerprint.json"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "run" / name).read_text()
    assert "## Plan" in (tmp_path / "again" / "card.md").read_text()


def test_no_measure_of_validation_is_planned_without_validation(train, tmp_path):
    for name, count in (("cat", 60), ("dog", 12)):
        write_class_folders(tmp_path / "photos", [name], count, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos"]
    assert choices_of(train(*line, "--cfg", "job")[2])["trainer.select_by"] == "val_balanced_accuracy"
    status, _, err = train(*line, *SHORT, "data.val_fraction=0")
    assert status == 0
    assert "trainer.select_by" not in choices_of(err)


def test_classes_that_a_loss_of_the_users_weights_are_not_drawn_equally_too(train, tmp_path):
    own_config(tmp_path, "loss", mine="_target_: resnet_cli.losses.CrossEntropy\nclass_weights: balanced\n")
    for name, count in (("cat", 80), ("dog", 5)):
        write_class_folders(tmp_path / "photos" / "train", [name], count, (10, 10))
        write_class_folders(tmp_path / "photos" / "test", [name], 2, (10, 10))
    line = ["plan=quick", "data=image_folder", "data.root=photos", "--cfg", "job"]
    assert choices_of(train(*line)[2])["data.sampler"] == "balanced"
    for typed in ("loss=mine", "loss.class_weights=balanced"):
        assert "data.sampler" not in choices_of(train(*line, typed)[2])


@pytest.mark.slow
def test_text_lines_are_padded_to_squares(train, tmp_path):
    write_class_folders(tmp_path / "lines", ["cat", "dog"], 12, (64, 16))
    line = ["plan=quick", "data=image_folder", "data.root=lines", "--cfg", "job"]
    chosen = choices_of(train(*line)[2])
    assert (chosen["data.resize"], chosen["data.image_size"]) == ("pad", "64")
    assert choices_of(train(*line, "data.image_size=16")[2])["data.resize"] == "pad"
    for typed in ("data.image_size=[16,64]", "data.image_size=null", "data.resize=crop", "data.resize=squash"):
        assert "data.resize" not in choices_of(train(*line, typed)[2])
    assert train(*line[:-2], "trainer.epochs=1", "model=resnet8", "hydra.run.dir=run")[0] == 0
    assert "resize: pad" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(("rate", "is_said"), [(1e5, True), (30.0, False)])
def test_a_budget_that_allows_far_fewer_epochs_than_planned_says_so(train, tmp_path, monkeypatch, rate, is_said):
    monkeypatch.setattr(make, "images_per_second", lambda *arguments, **options: rate)
    monkeypatch.setattr(time_budget, "measure", lambda trainer, *a, **o: Measurement(3, 1.0, 0.0, 7, ROW))
    status, out, err = train("plan=quick", *TINY, "model=resnet8", "trainer.time_budget=12 s", "hydra.run.dir=run")
    assert status == 0
    line = next(line for line in (out + err).splitlines() if "an epoch takes" in line)
    expected = json.loads((tmp_path / "run" / "fingerprint.json").read_text())["expected_epochs"]
    assert (f" (the plan expected about {expected:,} epochs), end" in line) is is_said


def test_a_resumed_sweep_keeps_its_plan(train, tmp_path, monkeypatch):
    line = ["plan=quick", *TINY, "model=resnet8", "trainer.epochs=1", "seed=0,1", "hydra.sweep.dir=s"]
    assert train("-m", *line)[0] == 0
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    status, _, err = train("-m", "resume=s", "trainer.epochs=2", "sweep.isolate=false")
    assert (status, err) == (0, "")
    jobs = sorted(tmp_path.glob("s/*/run.json"))
    assert [len(job.with_name("metrics.jsonl").read_text().splitlines()) for job in jobs] == [2, 2]


def test_a_sweep_with_nested_folders_keeps_its_plan(train, tmp_path, monkeypatch):
    folders = ["hydra.sweep.dir=s", "hydra.sweep.subdir=nested/${seed}"]
    line = ["-m", "plan=quick", *TINY, "model=resnet8", "trainer.epochs=1", "seed=0,1", *folders]
    assert train(*line)[0] == 0
    assert (tmp_path / "s/nested/1/plan.yaml").is_file()
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    with planned.planned([*line, "data.workers=0"]) as plans:
        assert plans.files_of("quick")["plan.yaml"] == (tmp_path / "s/nested/0/plan.yaml").read_text()


@pytest.mark.slow
def test_a_run_in_the_folder_of_an_experiment_keeps_its_plan(train, tmp_path, monkeypatch):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  run:\n    dir: runs/${name}\n"
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    line = ["plan=quick", "experiment=own", "resume=auto", "name=a", *TINY, *SHORT]
    assert train(*line)[0] == 0
    monkeypatch.setattr(make, "plan_command", lambda *arguments, **options: pytest.fail("planned"))
    status, out, _ = train(*line)
    assert status == 0
    assert "nothing to do" in out


@pytest.mark.slow
def test_jobs_on_other_machines_may_be_for_a_device_that_is_not_here(tmp_path, monkeypatch, capsys):
    own_config(tmp_path, "hydra/launcher", cluster="_target_: own_launchers.Cluster\n")
    monkeypatch.chdir(tmp_path)
    line, note = ["-m", "plan=quick", *TINY, "seed=0,1"], "times nets on this machine, and the jobs may run on others"
    for device, expected in (("cuda:9", "cuda"), ("auto", "cpu")):
        with planned.planned([*line, "hydra/launcher=cluster", f"trainer.device={device}"]) as plans:
            assert json.loads(plans.files_of("quick")["fingerprint.json"])["device"] == expected
    with pytest.raises(InputError, match=r"trainer\.device: "), planned.planned([*line, "trainer.device=cuda:9"]):
        pass
    assert note not in capsys.readouterr().err
    line.append("trainer.time_budget=30 s")
    with planned.planned([*line, "hydra/launcher=cluster"]):
        assert f"plan    a plan for trainer.time_budget {note}" in capsys.readouterr().err
    with planned.planned(line):
        assert note not in capsys.readouterr().err
    cuda = ["hydra/launcher=cluster", "trainer.device=cuda:9"]
    with pytest.raises(InputError, match=f"cuda:9 is not available .*{note}"), planned.planned([*line, *cuda]):
        pass


def test_a_job_on_another_machine_has_the_plan(train):
    with planned.planned(["plan=quick", *TINY, *SHORT]) as plans:
        (file,) = map(Path, plans.options)
        text = file.read_text()
        sent = pickle.dumps(LauncherContext(StopSignals(), [], Origin(), plans, frozenset({"teacher"})))
    assert not file.parent.exists()
    received = pickle.loads(sent)
    assert (received.plans, received.changed) == (plans, {"teacher"})
    assert file.read_text() == text
    assert "batch_size: 32  # " in text
    shutil.rmtree(file.parents[1])
