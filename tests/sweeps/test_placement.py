"""Which run in a sweep's folder is that of a job: beyond the config, its weights, its images and its length."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnet_cli.config.stored import dump
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.paths import Origin
from resnet_cli.sweeps import job_validation
from resnet_cli.sweeps.folder import SweepCommand, SweepDir
from resnet_cli.sweeps.job import SweepJob, conflict_line, finished_line
from resnet_cli.sweeps.job_facts import JobContext
from resnet_cli.sweeps.placement import JobPlacement, resolve_job_folder
from tests.support.runs import job, record_of, tiny

SETTINGS = {"name": "a", "seed": 0, "trainer": {"epochs": 2}}
SAME = {"sha256": hashlib.sha256(b"same").hexdigest()}
MOVED = {"start": "a.pt", "paths": {"init_from": {"value": "a.pt", "absolute": "/gone/a.pt"}}, "weights": SAME}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with `b.pt`, which has the weights of `SAME`, and `c.pt`, which has others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.pt").write_bytes(b"same")
    (tmp_path / "c.pt").write_bytes(b"other")
    return tmp_path


def with_run(settings=SETTINGS, folder="s/0", **record):
    """Write a run; one that is in the folder already keeps the fields of its record that are not given here."""
    RunDir(folder).create(dump(settings), **{"status": "finished", **record})
    return Path(folder)


@pytest.mark.parametrize(
    ("record", "init_from", "is_same"),
    [
        ({}, "a", True),  # nothing is recorded
        ({"start": "epoch 3"}, "a", True),
        ({"start": "scratch"}, None, True),
        ({"start": "scratch"}, "a", False),
        ({"start": "scratch", "resumed_from": [{"step": 1}]}, "a", True),  # as 0.1.0 recorded it of any start
        ({"start": "a"}, None, False),
        ({"start": "a"}, "./a/", True),
        ({"start": "a"}, "{here}/a", True),
        ({"start": "a"}, "b", False),
        ({"start": "a", "paths": {"init_from": {"value": "a", "absolute": "{here}/b.pt"}}}, "b.pt", True),
        (MOVED, "a.pt", True),
        (MOVED, "b.pt", True),
        (MOVED, "c.pt", False),
        (MOVED, "nowhere.pt", False),
    ],
)
def test_a_job_with_other_initial_weights_is_another_one(here, record, init_from, is_same):
    record = json.loads(json.dumps(record).replace("{here}", str(here)))
    given = {**SETTINGS, "init_from": init_from and init_from.replace("{here}", str(here))}
    folder = with_run(**record)
    placement = resolve_job_folder(folder, given)
    assert (placement.is_finished, placement.conflicting_folder) == (is_same, None if is_same else folder)
    assert (placement.run.path == folder) is is_same


@pytest.mark.parametrize("init_from", ["x" * 300, "a\0.pt"], ids=["long", "null"])
def test_weights_at_a_path_that_cannot_be_looked_at_are_other_ones(here, init_from):
    folder = with_run(**MOVED)
    assert resolve_job_folder(folder, {**SETTINGS, "init_from": init_from}).conflicting_folder == folder


@pytest.mark.parametrize(("teacher", "is_same"), [("./t", True), ("b.pt", True), ("c.pt", False), ("u", False)])
def test_a_job_with_another_teacher_is_another_one_and_found_again(here, teacher, is_same):
    folder = with_run({**SETTINGS, "teacher": "t"}, start="scratch", teacher=SAME)
    given = {**SETTINGS, "teacher": teacher}
    placement = resolve_job_folder(folder, given)
    assert placement.is_finished is is_same
    with_run(given, placement.run.path, start="scratch", teacher={"sha256": "0"})
    again = resolve_job_folder(folder, given)
    assert (again.run.path, again.is_finished) == (placement.run.path, True)


def test_an_unfinished_job_takes_another_teacher_by_force_or_before_it_has_begun(here):
    folder = with_run({**SETTINGS, "teacher": "t"}, status="failed")
    given = {**SETTINGS, "teacher": "c.pt"}
    assert resolve_job_folder(folder, given).run.path == folder
    with_run({**SETTINGS, "teacher": "t"}, status="interrupted", start="scratch", teacher=SAME)
    assert resolve_job_folder(folder, given).conflicting_folder == folder
    assert resolve_job_folder(folder, {**given, "resume_force": True}).run.path == folder


BOTH = ("teacher", "init_from")


@pytest.mark.parametrize(("changed", "given", "is_same"), [((), (), False), (BOTH, (), True), (BOTH, BOTH, False)])
def test_weights_that_an_earlier_command_has_named_anew_are_not_compared_again(here, changed, given, is_same):
    taught = with_run({**SETTINGS, "teacher": "t"}, start="scratch", teacher=SAME)
    started = with_run(folder="s/1", **MOVED)
    origin = Origin(given=given)
    for folder, key in ((taught, "teacher"), (started, "init_from")):
        settings = {**SETTINGS, key: "c.pt"}
        sweep_job = SweepJob(settings, [], 0, folder, SweepDir("s"), "", origin=origin, changed=frozenset(changed))
        for context in (JobContext(origin=origin, changed=changed), sweep_job.context):
            assert resolve_job_folder(folder, settings, context).is_finished is is_same


@pytest.mark.parametrize(
    ("overrides", "changed", "is_same"),
    [
        (["data.root=photos"], (), True),
        (["+data.root=./photos/", "data.workers=2"], (), True),
        (["data.root={here}/photos"], (), True),
        (["data.root=others"], (), False),
        (["data.root=others"], ("data.root",), True),
        ([], (), False),
        (["data.root=photos", "trainer.test_tta=flip"], (), False),
        (["data.root=photos", "init_from=a", "seed=0"], (), True),  # compared by what the run records
    ],
)
def test_a_job_with_other_images_is_another_one_in_folders_that_the_user_names(here, overrides, changed, is_same):
    sweep, folder = SweepDir("s"), with_run(overrides=["data.root=photos"])
    sweep.add_command(SweepCommand(("-m",)), {"0": ["data.root=photos"]})
    context = JobContext(sweep.path, [word.replace("{here}", str(here)) for word in overrides], changed=changed)
    placement = resolve_job_folder(folder, SETTINGS, context)
    assert placement.is_finished is is_same
    name = placement.run.path.name
    with_run(folder=placement.run.path, overrides=context.overrides)
    sweep.add_command(SweepCommand(("-m",)), {name: context.overrides})
    again = resolve_job_folder(folder, SETTINGS, context)
    assert (again.run.path.name, again.is_finished) == (name, True)


def test_a_job_whose_images_have_moved_is_found_by_both_paths(here):
    sweep, folder = SweepDir("s"), with_run(overrides=["data.root=old"])
    sweep.add_command(SweepCommand(("-m",)), {"0": ["data.root=new"]})
    for place, is_same in (("old", True), ("new", True), ("third", False)):
        context = JobContext(sweep.path, [f"data.root={place}"])
        assert resolve_job_folder(folder, SETTINGS, context).is_finished is is_same


@pytest.mark.parametrize(
    ("root", "is_same"),
    [("{here}/../photos", True), ("link", True), ("/gone/photos", True), ("photos", False), ("../others", False)],
)
def test_a_job_is_found_however_the_place_of_its_images_is_spelt(here, root, is_same):
    def settings(root):
        return {**SETTINGS, "data": {"_target_": "resnet_cli.data.image_folder", "root": root}}

    root = root.replace("{here}", str(here))
    (here / "link").symlink_to(here.parent / "photos")
    paths = {"data.root": {"value": "../photos", "absolute": "/gone/photos", "from_run": "../../../photos"}}
    sweep, folder = SweepDir("s"), with_run(settings("../photos"), overrides=["data.root=../photos"], paths=paths)
    sweep.add_command(SweepCommand(("-m",)), {"0": ["data.root=../photos"]})
    placement = resolve_job_folder(folder, settings(root), JobContext(sweep.path, [f"data.root={root}"]))
    assert (placement.is_finished, placement.run.path == folder) == (is_same, is_same)
    if not is_same:
        assert conflict_line(placement, sweep.path) == (
            f"data.root differs from that of s/0; starting a new job in {placement.run.path}; if the images have only "
            "moved, use resnet-train -m resume=s data.root=PATH"
        )


def test_the_line_about_another_job_names_what_differs():
    run = RunDir(Path("s/1"))
    both = "init_from, teacher differ from those"
    for conflicts, words in (((), "config differs from that"), (BOTH[::-1], both)):
        placement = JobPlacement(run, {}, conflicting_folder=Path("s/0"), conflicts=conflicts)
        assert conflict_line(placement, Path("s")) == f"{words} of s/0; starting a new job in s/1"


def test_different_jobs_of_a_new_sweep_need_folders_of_their_own(train, tmp_path):
    folders = ["hydra.sweep.dir=s", "hydra.sweep.subdir=s${seed}"]
    status, _, err = train("-m", *tiny("trainer.test_tta=none,flip", "seed=0,1", *folders))
    assert status == 2
    assert err.startswith(
        "error: hydra.sweep.subdir=s${seed}: jobs 0 and 2 differ in trainer.test_tta=flip, trainer.test_tta=none, "
        "but have one folder, s0; "
    )
    assert not (tmp_path / "s").exists()


LONGER = {**SETTINGS, "trainer": {"epochs": 40}}
EXTENDED = {"resumed_from": [{"changes": ["trainer.epochs: 2 -> 4"]}, {"changes": ["trainer.epochs: 4 -> 40"]}]}


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_a_job_that_was_made_longer_by_itself_stays_as_long(here, status):
    folder = with_run(LONGER, status=status, **EXTENDED)
    placement = resolve_job_folder(folder, SETTINGS)
    assert (placement.run.path, placement.is_finished) == (folder, status == "finished")
    assert placement.with_kept(SETTINGS) == LONGER
    assert SETTINGS["trainer"] == {"epochs": 2}
    line = finished_line(0, ["seed=0"], {"status": "finished"}, placement.kept["trainer.epochs"])
    assert line == "job 0 (seed=0): already finished, with 40 epochs: done"


def test_a_job_that_was_never_shorter_is_another_one(here):
    folder = with_run(LONGER, resumed_from=None)
    assert resolve_job_folder(folder, SETTINGS).conflicting_folder == folder
    others = {**SETTINGS, "seed": 1}
    assert resolve_job_folder(with_run(LONGER, "s/1", **EXTENDED), others).conflicting_folder == Path("s/1")


def test_a_job_that_has_begun_beside_a_longer_one_stays_there(here):
    """Former versions started it anew."""
    folder = with_run(LONGER, resumed_from=None)
    other = resolve_job_folder(folder, SETTINGS).run.path
    with_run(folder=other)
    with_run(LONGER, **EXTENDED)
    placement = resolve_job_folder(folder, SETTINGS)
    assert (placement.run.path, placement.is_finished) == (other, True)


def test_a_job_keeps_the_steps_that_a_time_budget_has_chosen(here):
    """They are fewer than an epoch has; the record says that there was a budget once the run has none."""
    chosen = {"epochs": 1, "steps_per_epoch": 37}
    folder = with_run({**SETTINGS, "trainer": {**chosen, "time_budget": "10 min"}}, time_budget={"epochs": 1})
    given = {**SETTINGS, "trainer": {"epochs": 3, "time_budget": None}}
    placement = resolve_job_folder(folder, given)
    assert (placement.run.path, placement.is_finished) == (folder, False)
    assert placement.with_kept(given)["trainer"] == {"epochs": 3, "time_budget": None, "steps_per_epoch": 37}
    with_run(placement.with_kept(given), time_budget=None)
    assert resolve_job_folder(folder, given).is_finished
    with_run({**SETTINGS, "trainer": {**chosen, "epochs": 3}}, "s/1")
    assert resolve_job_folder(Path("s/1"), given).conflicting_folder == Path("s/1")


def test_fewer_epochs_than_a_time_budget_has_chosen_start_no_job_anew(here, monkeypatch):
    launch = SimpleNamespace(typed_keys={"trainer.epochs"}, changed_keys={"trainer.epochs"})
    monkeypatch.setattr(job_validation, "active_launch", lambda: launch)
    chosen = {"epochs": 10, "steps_per_epoch": 37, "time_budget": "10 min"}
    folder = with_run({**SETTINGS, "trainer": chosen}, time_budget={"epochs": 10})
    given = {**SETTINGS, "trainer": {"epochs": 5, "time_budget": None}}
    placement = resolve_job_folder(folder, given)
    assert placement.conflicting_folder == folder
    line = "trainer.epochs=5: fewer epochs than the job has already"
    assert job_validation._refused_change(placement, given) == line


def test_a_job_with_a_budget_that_was_made_longer_by_itself_stays_as_long(here):
    folder = with_run(LONGER, time_budget=None, **EXTENDED)
    given = {**SETTINGS, "trainer": {"epochs": None, "time_budget": "10 min"}}
    placement = resolve_job_folder(folder, given)
    assert (placement.run.path, placement.is_finished) == (folder, True)
    assert placement.with_kept(given)["trainer"] == {"epochs": 40, "time_budget": None}


@pytest.mark.slow
def test_a_sweep_leaves_a_job_that_was_made_longer_as_it_is(train, tmp_path):
    command = ["-m", *tiny("trainer.epochs=1", "trainer.max_batches=1"), "hydra.sweep.dir=s"]
    assert train(*command, "seed=0,1")[0] == 0
    run = job(tmp_path / "s", "seed=0")
    assert train(f"resume={run}", "trainer.epochs=2")[0] == 0
    for again in (["-m", "resume=s"], [*command, "seed=0,1"]):
        status, out, err = train(*again)
        assert (status, err, out.count("already finished")) == (0, "", 2)
        assert "seed=0): already finished, with 2 epochs: best " in out
    status, _, err = train("-m", "resume=s", "trainer.epochs=1")
    assert (status, "seed=0): trainer.epochs=1: fewer epochs than the job has already" in err) == (2, True)
    assert train("-m", "resume=s", "trainer.epochs=2")[0] == 0
    assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir()]) == 2
    assert train(f"resume={run}", "trainer.epochs=3")[0] == 0
    assert train("-m", "resume=s")[0] == 0
    assert (record_of(run)["epochs"], record_of(job(tmp_path / "s", "seed=1"))["epochs"]) == (3, 2)
