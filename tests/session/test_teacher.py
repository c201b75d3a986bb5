"""`teacher=RUN` end to end: what is recorded, what is refused, and that a taught run resumes exactly."""

import json
import shutil

import pytest
import torch

from resnet_cli.runs import checkpoints
from tests.support.runs import assert_same_end, record_of, rows_of, tiny

CNN = ["model=cnn", "model.channels=[4,6]", "model.pool_every=1", "model.hidden_dims=[8]"]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A folder with a run `teacher` on the classes 0, 1, 2."""
    from resnet_cli import train

    folder = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(tiny(*CNN, "hydra.run.dir=teacher"))
    return folder


@pytest.fixture
def folder(teachers, tmp_path):
    shutil.copytree(teachers / "teacher", tmp_path / "teacher")
    return tmp_path


def altered(file, change):
    """Save a checkpoint again after a change of its content."""
    content = checkpoints.load(file)
    change(content)
    checkpoints.save(file, {key: content[key] for key in content if key not in ("format", "version")})


def test_a_taught_run_says_who_taught_it(train, folder, capsys):
    status, out, _ = train(*tiny("teacher=teacher", "distillation.temperature=2", "hydra.run.dir=student"))
    assert status == 0
    assert "teacher teacher: CNN, best.pt of epoch" in out
    run = folder / "student"
    taught_by = record_of(run)["teacher"]
    assert taught_by["run"] == "teacher"
    assert len(taught_by["sha256"]) == 64
    for name in ("best.pt", "last.pt"):
        assert torch.load(run / "checkpoints" / name, weights_only=True)["teacher"] == taught_by
    assert "- teacher: `run=teacher`" in (run / "card.md").read_text()
    assert "`temperature=2`" in (run / "card.md").read_text()
    from resnet_cli.commands.info import run as info

    assert info([str(run)]) == 0
    assert "run=teacher  file=best.pt" in capsys.readouterr().out


def test_a_run_without_a_teacher_stores_nothing_of_one(train, folder):
    assert train(*tiny("trainer.epochs=1", *CNN, "hydra.run.dir=alone"))[0] == 0
    assert "teacher" not in (folder / "alone/config.yaml").read_text()
    assert "distillation" not in (folder / "alone/config.yaml").read_text()
    assert "teacher" not in torch.load(folder / "alone/checkpoints/last.pt", weights_only=True)


def test_a_checkpoint_file_teaches_the_same_as_its_run(train, folder):
    for name, teacher in (("a", "teacher"), ("b", "teacher/checkpoints/best.pt")):
        assert train(*tiny(*CNN, f"teacher={teacher}", f"hydra.run.dir={name}"))[0] == 0
    assert_same_end(folder / "a", folder / "b")


@pytest.mark.slow
def test_weight_0_learns_from_the_labels_alone(train, folder):
    assert train(*tiny(*CNN, "hydra.run.dir=a"))[0] == 0
    assert train(*tiny(*CNN, "teacher=teacher", "distillation.weight=0", "hydra.run.dir=b"))[0] == 0
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=c"))[0] == 0
    assert rows_of(folder / "a") == rows_of(folder / "b")
    assert rows_of(folder / "a") != rows_of(folder / "c")


def test_classes_in_another_order_are_matched(train, folder):
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=a"))[0] == 0

    def turn(content):
        content["data"]["class_names"] = content["data"]["class_names"][::-1]
        last = [name for name in content["state"]["model"] if name.endswith("weight")][-1]
        for name in (last, last.replace("weight", "bias")):
            content["state"]["model"][name] = content["state"]["model"][name].flip(0)

    altered(folder / "teacher/checkpoints/best.pt", turn)
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=b"))[0] == 0
    assert rows_of(folder / "a") == rows_of(folder / "b")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["teacher=nowhere"], "teacher=nowhere: no such run folder"),
        (
            ["teacher=teacher", "data.classes=4"],
            "teacher=teacher: has different classes from the data: it lacks class 3",
        ),
        (
            ["teacher=teacher", "data.channels=1"],
            "teacher=teacher: expects images with 3 channels, but the data have 1",
        ),
        (["teacher=teacher", "distillation.temperature=0"], "distillation.temperature: 0 is not allowed"),
        (["teacher=teacher", "distillation.weight=1.1"], "distillation.weight: 1.1 is not allowed"),
        (["teacher=teacher", "+distillation.alpha=1"], "distillation.alpha: unknown key"),
        (["teacher="], "teacher: is empty"),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line(train, folder, arguments, problem):
    status, _, err = train(*tiny(*arguments, "hydra.run.dir=student"))
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {problem}")
    assert not (folder / "student").exists()


def test_a_teacher_names_no_code_of_its_own_choice(train, folder):
    (folder / "evil.py").write_text("open('ran', 'w')\nimport torch\nclass Net(torch.nn.Linear): pass\n")

    def change(content):
        content["config"]["model"] = {"_target_": "evil.Net"}

    altered(folder / "teacher/checkpoints/best.pt", change)
    status, _, err = train(*tiny("teacher=teacher", "hydra.run.dir=student"))
    assert status == 2
    assert err.startswith("error: teacher=teacher: its config names evil.Net, which is not part of resnet-cli")
    assert not (folder / "ran").exists()


def test_a_teacher_of_a_damaged_checkpoint_is_refused(train, folder):
    file = folder / "teacher/checkpoints/best.pt"
    file.write_bytes(file.read_bytes()[:-100])
    status, _, err = train(*tiny("teacher=teacher", "hydra.run.dir=student"))
    assert status == 2
    assert err.startswith("error: teacher=teacher: teacher/checkpoints/best.pt: damaged")
    assert not (folder / "student").exists()


def test_a_teacher_that_has_changed_is_noticed(train, folder):
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=student"))[0] == 0
    file = folder / "teacher/checkpoints/best.pt"
    shutil.copy(folder / "teacher/checkpoints/last.pt", file)
    status, _, err = train("resume=student", "trainer.epochs=3")
    assert status == 2
    assert [line.split(":")[:2] for line in err.splitlines()] == [["error", " teacher"], ["error", " resume"]]
    assert train("resume=student", "trainer.epochs=3", "resume_force=true")[0] == 0
    change, epochs = record_of(folder / "student")["resumed_from"][0]["changes"]
    assert change.startswith("teacher: sha256 ")
    assert epochs == "trainer.epochs: 2 -> 3"


def test_a_teacher_that_has_moved_is_named_anew_and_is_the_same(train, folder):
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=student"))[0] == 0
    (folder / "teacher").rename(folder / "moved")
    status, _, err = train("resume=student", "trainer.epochs=3")
    assert status == 2
    assert "give the new path with teacher=PATH" in err
    assert train("resume=student", "trainer.epochs=3", "teacher=moved")[0] == 0
    assert record_of(folder / "student")["resumed_from"][0]["changes"] == ["trainer.epochs: 2 -> 3"]


@pytest.mark.parametrize("arguments", [[[], ["teacher=teacher"]], [["teacher=teacher"], ["teacher=null"]]])
def test_a_run_does_not_get_or_lose_its_teacher_when_it_is_resumed(train, folder, arguments):
    first, second = arguments
    assert train(*tiny(*CNN, *first, "hydra.run.dir=student"))[0] == 0
    status, _, err = train("resume=student", "trainer.epochs=3", *second)
    assert status == 2
    assert err.splitlines()[0].startswith("error: teacher: ")
    assert len(err.splitlines()) == 2


@pytest.mark.slow
def test_a_taught_run_resumes_exactly_anywhere(train_command, folder):
    options = tiny(
        "model.stochastic_depth=0.3", "data.augment.mixup=0.4", "teacher=teacher", "trainer.averaging=ema",
        "trainer.accumulate=2", "verify_resume=true",
    )  # fmt: skip
    done = train_command(*options)
    assert done.returncode == 0, done.stderr
    assert "identical: " in done.stdout + done.stderr


def test_reproducing_a_taught_run_is_identical_and_names_another_teacher(train, folder):
    assert train(*tiny(*CNN, "teacher=teacher", "hydra.run.dir=student"))[0] == 0
    status, out, _ = train("reproduce=student", "hydra.run.dir=again")
    assert status == 0
    assert "identical to student" in out
    shutil.copy(folder / "teacher/checkpoints/last.pt", folder / "teacher/checkpoints/best.pt")
    train("reproduce=student", "hydra.run.dir=other")
    differences = json.loads((folder / "other/run.json").read_text())["reproduces"]["differences"]
    assert any(text.startswith("teacher ") for text in differences)


@pytest.fixture
def jobs(train, folder):
    """Train a sweep whose teacher moves afterwards, and return the names of its jobs."""
    sweep = ["-m", *tiny(*CNN, "teacher=teacher", "trainer.epochs=1", "hydra.sweep.dir=sweep"), "seed=0,1"]
    assert train(*sweep)[0] == 0
    (folder / "teacher").rename(folder / "moved")
    return sorted(path.name for path in (folder / "sweep").iterdir())


@pytest.mark.slow
def test_a_sweep_goes_on_with_a_teacher_that_has_moved(train, folder, jobs):
    shutil.copytree(folder / "moved", folder / "other")
    shutil.copy(folder / "other/checkpoints/last.pt", folder / "other/checkpoints/best.pt")
    longer = ["-m", "resume=sweep", "trainer.epochs=2"]
    status, _, err = train(*longer)
    assert (status, "give the new path with teacher=PATH" in err) == (2, True)
    status, _, err = train(*longer, "teacher=other")
    assert (status, f"teacher={folder / 'other'}: other weights than those of the job" in err) == (2, True)
    status, _, err = train(*longer, "teacher=moved")
    assert (status, err) == (0, "")
    assert sorted(path.name for path in (folder / "sweep").iterdir()) == jobs
    assert all(len(rows_of(run.parent)) == 2 for run in folder.glob("sweep/*/run.json"))


@pytest.mark.slow
def test_finished_jobs_stay_finished_whatever_becomes_of_a_teacher_that_has_moved(train, folder, jobs):
    assert train("-m", "resume=sweep", "teacher=moved")[0] == 0
    shutil.copy(folder / "moved/checkpoints/last.pt", folder / "moved/checkpoints/best.pt")
    for _ in range(2):
        status, out, err = train("-m", "resume=sweep")
        assert (status, err, out.count("already finished")) == (0, "", 2)
        assert sorted(path.name for path in (folder / "sweep").iterdir()) == jobs
        shutil.rmtree(folder / "moved", ignore_errors=True)


@pytest.mark.slow
def test_a_sweep_over_teachers_is_found_again(train, folder):
    sweep = ["-m", *tiny(*CNN, "teacher=null,teacher", "distillation.temperature=2,4", "hydra.sweep.dir=sweep")]
    assert train(*sweep)[0] == 0
    names = sorted(path.name for path in (folder / "sweep").iterdir())
    status, out, _ = train(*sweep)
    assert status == 0
    assert "epoch 1/" not in out
    assert sorted(path.name for path in (folder / "sweep").iterdir()) == names
