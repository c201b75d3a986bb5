"""Going on with a run: after kills at any moment, with damaged saves, with a lost best epoch."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.session.best_weights import continues_as_before
from resnet_cli.session.resume import initialise_from_images
from resnet_cli.training.state import BestTracker, TrainState
from tests.support.runs import assert_equal, assert_same_end, record_of, rows_of, tiny

ARGUMENTS = tiny("trainer.checkpoint_every=1", "trainer.epochs=3", "trainer.averaging=ema", "data.augment.mixup=0.4",
                 "model.dropout=0.2", "name=x")  # fmt: skip
KILLS = 6
# Imports once and forks each run; a timer of CPU time kills it, so that a busy machine changes nothing.
SERVER = """
import os, random, signal, sys
from tests.support import quick_hydra
from resnet_cli.commands.train import run
quick_hydra.install()
arguments, kills = sys.argv[1:-1], int(sys.argv[-1])
out = sys.stdout
sys.stdout = open(os.devnull, "w")

def trial(folder, seconds=0.0):
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process as SIGKILL does
        os._exit(run([*arguments, "resume=auto", f"hydra.run.dir={folder}"]))
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime

assert run([*arguments, "hydra.run.dir=whole"]) == 0  # here, so that everything is imported
status, length = trial("other")
assert status == 0
draw, folders = random.Random(0), 0
while kills:
    folders += 1
    while kills:
        status, _ = trial(f"parts{folders}", draw.uniform(0.1, 0.9) * length)
        assert status in (0, -signal.SIGPROF), status
        if status == 0:
            break
        kills -= 1
    else:
        assert trial(f"parts{folders}")[0] == 0
print(folders, file=out, flush=True)
"""


@pytest.mark.slow
def test_runs_killed_anywhere_end_as_if_they_had_not_been(tmp_path):
    arguments = [argument.replace("epochs=3", "epochs=2") for argument in ARGUMENTS]
    done = subprocess.run(
        [sys.executable, "-c", SERVER, *arguments, str(KILLS)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for number in range(1, int(done.stdout) + 1):
        run = tmp_path / f"parts{number}"
        assert_same_end(tmp_path / "whole", run)
        assert_same_best(tmp_path / "whole", run)
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.pt", "last.pt", "previous.pt"]
        assert not list(run.rglob(".*"))


def assert_same_best(run, other):
    a, b = (torch.load(r / "checkpoints" / "best.pt", weights_only=True) for r in (run, other))
    assert_equal(a["state"], b["state"])


class Killed(BaseException):
    """Ends a run at once, wherever it is raised."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was killed in its third epoch, and the same run whole."""
    from resnet_cli.commands.train.main import run
    from resnet_cli.session.saver import RunSaver

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["resnet-train"])
        assert run([*ARGUMENTS, "hydra.run.dir=whole"]) == 0
        original = RunSaver.save_last

        def save_last(self, state):
            original(self, state)
            if state.epoch == 2 and state.batches == 1:
                raise Killed

        patch.setattr(RunSaver, "save_last", save_last)
        with pytest.raises(Killed):
            run([*ARGUMENTS, "hydra.run.dir=d"])
    return folder


@pytest.fixture
def d(stopped, tmp_path):
    """A copy of the stopped run, to damage."""
    shutil.copytree(stopped / "d", tmp_path / "d")
    return tmp_path / "d"


def changed(change):
    """A save, read, changed and saved with a right checksum."""

    def damage(path):
        content = checkpoints.load(path)
        change(content)
        del content["format"]
        checkpoints.save(path, content)

    return damage


def misshape(content):
    name = next(iter(content["state"]["model"]))
    content["state"]["model"][name] = content["state"]["model"][name][:1]


def misshape_momentum(content):
    values = content["state"]["optimizer"]["state"][0]
    values["momentum_buffer"] = values["momentum_buffer"][:1]


def flip(path):
    data = bytearray(path.read_bytes())
    for place in random.Random(0).sample(range(len(data)), 20):
        data[place] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "foreign": lambda path: torch.save({"weights": torch.ones(3)}, path),
    "shape": changed(misshape),
    "momentum": changed(misshape_momentum),
    "no rows": changed(lambda content: content["state"].pop("rows")),
    "no state": changed(lambda content: content.update(state={})),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "resume"), [*((damage, "auto") for damage in DAMAGE), ("flipped", "d")])
def test_a_damaged_save_is_named_and_the_one_before_it_taken(train, stopped, d, damage, resume):
    DAMAGE[damage](d / "checkpoints/last.pt")
    status, out, err = train(*([*ARGUMENTS, "hydra.run.dir=d", "resume=auto"] if resume == "auto" else ["resume=d"]))
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "resuming from previous.pt" in line]
    assert line.startswith("d/checkpoints/last.pt: ")
    assert line in (d / "train.log").read_text().splitlines()
    assert_same_end(stopped / "whole", d)
    assert_same_best(stopped / "whole", d)
    assert sorted(path.name for path in (d / "checkpoints").iterdir()) == ["best.pt", "last.pt", "previous.pt"]


def test_the_damaged_save_never_takes_the_place_of_the_good_one(train, d, monkeypatch):
    from resnet_cli.session.saver import RunSaver

    (d / "checkpoints/last.pt").write_bytes(b"nonsense")
    good = (d / "checkpoints/previous.pt").read_bytes()
    monkeypatch.setattr(RunSaver, "save_last", lambda *arguments: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train("resume=d")
    assert (d / "checkpoints/last.pt").read_bytes() == good


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_usable_save_nothing_is_started_over(train, d, damage):
    for name in ("last", "previous"):
        DAMAGE[damage](d / f"checkpoints/{name}.pt")
    before = {path: path.read_bytes() for path in d.rglob("*") if path.is_file()}
    for arguments in ([*ARGUMENTS, "hydra.run.dir=d", "resume=auto"], ["resume=d"]):
        status, _, err = train(*arguments)
        first, second = err.splitlines()
        assert status == 2
        assert first.startswith("error: d/checkpoints/last.pt: ")
        assert second.startswith("error: d/checkpoints/previous.pt: ")
    assert {path: path.read_bytes() for path in d.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "shape", "foreign"])
def test_a_lost_best_epoch_is_refused_unless_a_save_has_it(train, stopped, d, damage):
    """Best is epoch 1 or 2 of the two that are done; `previous.pt` is at the end of epoch 2, `last.pt` behind it."""
    best = record_of(d)["best"]["epoch"]
    DAMAGE[damage](d / "checkpoints/best.pt")
    status, out, err = train("resume=d")
    if best == 2:
        assert status == 0
        assert "saved again from the state at the end of epoch 2" in out
        assert_same_end(stopped / "whole", d)
        assert_same_best(stopped / "whole", d)
    else:
        assert status == 2
        assert err.startswith("error: d/checkpoints/best.pt: ")
        assert "no other checkpoint has the weights of that epoch" in err


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["data.val_fraction=0"]])
def test_best_is_saved_anew_from_the_state_at_its_end(train, tmp_path, options):
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1", "trainer.averaging=ema", *options))[0] == 0
    best = tmp_path / "d/checkpoints/best.pt"
    before = checkpoints.load(best)
    best.write_bytes(b"")
    status, out, _ = train("resume=d")
    assert status == 0
    assert "saved again" in out
    assert_equal(checkpoints.load(best), before)


@pytest.fixture(params=[[], ["trainer.checkpoint_every=1"]], ids=["epochs", "steps"])
def killed_between(request, train, tmp_path, monkeypatch):
    """A run with `best.pt` of its second epoch and without `last.pt` of it, as former versions left it after a kill."""
    from resnet_cli.session.saver import RunSaver

    with monkeypatch.context() as patch:
        options = ["trainer.epochs=3", "name=x", *request.param]
        original, consider = RunSaver.save_best, BestTracker.update

        def better(self, row, *rest):
            return consider(self, {**row, "val_accuracy": 10.0 * row["epoch"]}, *rest)

        def save_best(self, state):
            original(self, state)
            if state.epoch == 2 and self.run.path.name == "d":
                raise Killed

        monkeypatch.setattr(BestTracker, "update", better)
        patch.setattr(RunSaver, "save_best", save_best)
        assert train(*tiny(*options, "hydra.run.dir=whole"))[0] == 0
        with pytest.raises(Killed):
            train(*tiny(*options, "hydra.run.dir=d"))
    shutil.copy(tmp_path / "d/checkpoints/previous.pt", tmp_path / "d/checkpoints/last.pt")
    return tmp_path / "d"


def score(patch, accuracies):
    """Give epochs these validation accuracies when the best one is selected."""
    update = BestTracker.update
    patch.setattr(
        BestTracker,
        "update",
        lambda self, row, *rest: update(self, {**row, "val_accuracy": accuracies[row["epoch"]]}, *rest),
    )


def test_a_newer_best_is_kept_if_its_epoch_may_not_come_out_again(train, tmp_path, monkeypatch):
    """The last save was damaged, and the run goes on with another number of threads, which round differently."""
    options = tiny("model=plain_mlp", "hydra.run.dir=d", "trainer.epochs=3", "trainer.max_batches=1")
    with monkeypatch.context() as patch:
        score(patch, {1: 20.0, 2: 10.0, 3: 30.0})
        patch.setattr(torch, "get_num_threads", lambda: 1)
        assert train(*options)[0] == 0
    (tmp_path / "d/checkpoints/last.pt").write_bytes(b"")
    best = (tmp_path / "d/checkpoints/best.pt").read_bytes()
    score(monkeypatch, {3: 15.0})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    status, out, err = train("resume=d")
    assert (status, err) == (0, "")
    assert "best.pt: holds epoch 3, not the best epoch 1; it is kept" in out
    assert (tmp_path / "d/checkpoints/best.pt").read_bytes() == best
    record = record_of(tmp_path / "d")
    assert (record["best"]["epoch"], record["best"]["val_accuracy"]) == (3, 30.0)
    assert record["test"] is not None
    assert "nothing to do" in train("resume=d")[1]


@pytest.mark.parametrize("change", [[], ["data.eval_batch_size=100"]], ids=["unchanged", "changed"])
def test_a_run_that_a_former_version_left_with_a_later_best_is_evaluated(train, tmp_path, monkeypatch, change):
    """Its epochs had not come out again, so that the best epoch of its state has no weights any more."""
    score(monkeypatch, {1: 20.0, 2: 10.0})
    assert train(*tiny("model=plain_mlp", "hydra.run.dir=d", "trainer.max_batches=1"))[0] == 0
    changed(lambda content: content["state"].update(epoch=2))(tmp_path / "d/checkpoints/best.pt")
    record = {**record_of(tmp_path / "d"), "status": "failed", "test": None}
    (tmp_path / "d/run.json").write_text(json.dumps(record))
    assert train("resume=d", *change)[0] == 0
    record = record_of(tmp_path / "d")
    assert (record["best"]["epoch"], record["status"]) == (2, "finished")
    assert record["test"] is not None


@pytest.mark.parametrize(("processes", "is_same"), [(1, True), (2, False)])
def test_keys_that_were_added_since_a_run_was_saved_have_their_defaults_in_it(processes, is_same):
    trainer = {"epochs": 3, "device": "cpu"}
    before = {"trainer": {"_target_": "resnet_cli.trainer.ClassifierTrainer", **trainer}}  # as 0.1.0 stored it
    now = {"trainer": {"_target_": "resnet_cli.ClassifierTrainer", **trainer, "processes": processes}}
    assert continues_as_before(before, SimpleNamespace(stored=lambda: now), []) is is_same


def test_weights_of_another_epoch_are_evaluated_if_those_of_the_best_are_lost(train, tmp_path, monkeypatch):
    from resnet_cli.session.saver import RunSaver

    original = RunSaver.save_best
    monkeypatch.setattr(RunSaver, "save_best", lambda self, state: original(self, state) if state.epoch == 1 else None)
    score(monkeypatch, {1: 10.0, 2: 20.0})
    status, out, err = train(*tiny("model=plain_mlp", "hydra.run.dir=d", "trainer.max_batches=1"))
    assert (status, err) == (0, "")
    assert "best.pt: holds epoch 1, not the best epoch 2, whose weights are lost" in out
    record = record_of(tmp_path / "d")
    assert record["best"]["epoch"] == 1
    assert record["test"] is not None


def test_a_kill_before_best_is_saved_loses_nothing_if_the_epoch_does_not_come_out_again(train, tmp_path, monkeypatch):
    """As on CUDA, where a repeated epoch need not have the same accuracy."""
    from resnet_cli.session.saver import RunSaver

    def save_best(self, state):
        if state.epoch == 2:
            raise Killed
        original(self, state)

    original = RunSaver.save_best
    options = tiny("hydra.run.dir=d", "trainer.epochs=3", "schedule=constant", "trainer.max_batches=1")
    with monkeypatch.context() as patch:
        patch.setattr(RunSaver, "save_best", save_best)
        score(patch, {1: 10.0, 2: 20.0})
        with pytest.raises(Killed):
            train(*options)
    score(monkeypatch, {2: 5.0, 3: 5.0})
    status, out, _ = train("resume=d")
    assert status == 0
    assert "saved again from the state at the end of epoch 2" in out
    assert checkpoints.load(tmp_path / "d/checkpoints/best.pt")["state"]["epoch"] == 2
    assert record_of(tmp_path / "d")["best"]["epoch"] == 2


@pytest.mark.slow
def test_a_best_that_is_newer_than_the_state_comes_out_again(train, tmp_path, killed_between):
    saved = checkpoints.load(killed_between / "checkpoints/best.pt")["state"]
    assert (saved["epoch"], checkpoints.load(killed_between / "checkpoints/last.pt")["state"]["epoch"]) == (2, 1)
    assert train("resume=d")[0] == 0
    assert_same_end(tmp_path / "whole", killed_between)
    assert_same_best(tmp_path / "whole", killed_between)


@pytest.mark.slow
def test_a_best_that_might_not_come_out_again_is_not_kept(train, killed_between):
    """Another number of epochs has another schedule, and epoch 2 need not be the best again."""
    steps = checkpoints.load(killed_between / "checkpoints/last.pt")["state"]["batches"] > 0
    status, out, err = train("resume=d", "trainer.epochs=4")
    if steps:
        assert (status, err.count("\n")) == (2, 1)
        assert err.endswith("resume once with the former config, then change it\n")
    else:
        assert status == 0
        assert "best.pt: holds epoch 2, not the best epoch 1; saved again" in out


def test_times_of_files_choose_nothing(train, stopped, d):
    for name, seconds in [("last", 0), ("previous", 2**32), ("best", 1)]:
        os.utime(d / f"checkpoints/{name}.pt", (seconds, seconds))
    status, out, _ = train("resume=d")
    assert status == 0
    assert "from    epoch 2 and 1 batches" in out
    assert_same_end(stopped / "whole", d)


def test_a_clock_that_is_put_back_makes_no_negative_times(train, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert train(*tiny("hydra.run.dir=d"))[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "d/metrics.jsonl").read_text().splitlines()]
    assert all(row["seconds"] > 0 and row["samples_per_second"] > 0 for row in rows)


def test_a_second_run_in_the_folder_is_refused_and_harms_nothing(train, d):
    """The lock is held in this process, which counts like another."""
    before = {path: path.read_bytes() for path in d.rglob("*") if path.is_file()}
    with exclusive(d):
        status, _, err = train("resume=d")
    assert status == 2
    assert "writes this run" in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in d.rglob("*") if path.is_file()} == before


@pytest.mark.draws
@pytest.mark.parametrize(
    "name", ["train.log", "metrics.jsonl", "run.json", "config.yaml", ".lock", "curves.png", "samples.png", "card.md"]
)
def test_planted_links_never_reach_their_victim(train, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).symlink_to(victim)
    status, _, err = train(*tiny("hydra.run.dir=d", "resume=auto"))
    assert victim.read_text() == "theirs"
    assert err if name in ("train.log", ".lock", "run.json", "metrics.jsonl") else rows_of(tmp_path / "d")
    assert (status == 0) == (err == "")
    assert all(line.startswith("error: ") for line in err.splitlines())


def test_a_run_folder_that_is_a_link_to_a_file_is_refused(train, tmp_path):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "d").symlink_to("victim")
    status, _, err = train(*tiny("hydra.run.dir=d"))
    assert (status, err) == (4, f"error: {tmp_path}/d: is not a folder\n")
    assert (tmp_path / "victim").read_text() == "theirs"


@pytest.mark.slow
def test_other_data_under_the_same_config_are_refused(train, tmp_path):
    """A folder of images from which a class was taken away, or an image changed."""
    from PIL import Image

    for part in ("train", "test"):
        for number, name in enumerate(("a", "b", "c")):
            (tmp_path / f"d/{part}/{name}").mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (60 * number, 9 * i, 7)).save(tmp_path / f"d/{part}/{name}/{i}.png")
    command = [
        "data=image_folder",
        "data.root=d",
        "data.batch_size=4",
        "data.val_fraction=0",
        "model=resnet8",
        "hydra.run.dir=r",
        "resume=auto",
    ]
    assert train(*command, "trainer.epochs=1")[0] == 0
    Image.new("RGB", (8, 8), (250, 250, 250)).save(tmp_path / "d/train/a/0.png")
    status, _, err = train(*command, "trainer.epochs=2")
    assert status == 2
    assert "error: data: mean [" in err
    for part in ("train", "test"):
        (tmp_path / f"d/{part}/c").rename(tmp_path / f"c-{part}")
    status, _, err = train(*command, "trainer.epochs=2")
    assert status == 2
    assert "error: data: 3 classes ([a, b, c]) -> 2 classes ([a, b]): changed since the run was saved" in err
    assert "resume: these are not the data of the run; accept them with resume_force=true" in err


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "is_said"), [("cosine", True), ("constant", False)])
def test_a_learning_rate_that_rises_again_is_said_with_both_values(train, schedule, is_said):
    assert train(*tiny(f"schedule={schedule}", "hydra.run.dir=d", "trainer.epochs=2"))[0] == 0
    status, out, err = train("resume=d", "trainer.epochs=4")
    assert (status, err) == (0, "")
    said = [line for line in out.splitlines() if line.startswith("warning: the learning rate ended at ")]
    assert bool(said) == is_said
    if is_said:
        last, following = (
            float(said[0].split(words)[1].split(",")[0].split()[0]) for words in ("at ", "continues at ")
        )
        assert last < following
        assert said[0].endswith("the schedule for 4 epochs")


@pytest.mark.parametrize("epochs", ["3", "2.9"])
def test_a_run_that_ended_within_an_epoch_is_not_silently_shorter(train, tmp_path, epochs):
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1.5"))[0] == 0
    status, out, err = train("resume=d", f"trainer.epochs={epochs}")
    assert (status, err) == (0, "")
    warning = f"warning: epoch 2 ended early and is not completed: 0.5 epochs less than trainer.epochs={epochs} are "
    assert warning in out
    status, out, _ = train("resume=d", "trainer.epochs=4")
    assert (status, warning in out) == (0, False)
    assert ("epoch 3 ended early" in out) == (epochs == "2.9")


def test_a_run_that_stopped_early_says_so_and_how_it_goes_on(train, tmp_path):
    options = ("model=plain_mlp", "optimizer.lr=1e-30", "trainer.epochs=6", "trainer.early_stopping=1")
    status, out, _ = train(*tiny(*options, "hydra.run.dir=d"))
    assert status == 0
    assert "  resnet-eval d  " in out
    assert "train this one for longer" not in out
    assert len(rows_of(tmp_path / "d")) == 2
    for changes in ([], ["trainer.epochs=9"]):
        status, out, _ = train("resume=d", *changes)
        assert status == 0
        assert "train this one for longer" not in out
        assert "warning" not in out
        assert (
            f"nothing to do: stopped early after epoch 2 of {9 if changes else 6}, 1 epoch after the best one "
            "(trainer.early_stopping=1); to continue, set trainer.early_stopping=2 resume_force=true\n"
        ) in out
    assert train("resume=d", "trainer.early_stopping=2", "resume_force=true")[0] == 0
    assert len(rows_of(tmp_path / "d")) == 3
    assert "nothing to do: stopped early after epoch 3 of 9, 2 epochs after the best one" in train("resume=d")[1]


def test_weights_set_from_images_are_those_of_the_first_rank(monkeypatch):
    model, calls = torch.nn.Linear(2, 2), []
    initialise = "resnet_cli.session.resume.initialise_model_from_images"
    monkeypatch.setattr(initialise, lambda *_: calls.append("set") or ["x"])
    ranks = SimpleNamespace(broadcast_=lambda tensors: calls.append([tensor.data_ptr() for tensor in tensors]))
    state = SimpleNamespace(restart_average=lambda: calls.append("average"))
    loaders = SimpleNamespace(train=SimpleNamespace(sample=None))
    assert initialise_from_images(SimpleNamespace(model=model, ranks=ranks, state=state), loaders) == ["x"]
    assert calls == ["set", [tensor.data_ptr() for tensor in model.parameters()], "average"]


def test_another_folder_beside_resume_is_refused(train, stopped, tmp_path):
    shutil.copytree(stopped / "d", tmp_path / "d")
    status, out, err = train("resume=d", "hydra.run.dir=e")
    assert (status, out) == (2, "")
    assert err == (
        "error: hydra.run.dir=e: cannot be combined with resume=d, which continues in its own folder; "
        "init_from=d starts a new run from its weights\n"
    )
    assert not (tmp_path / "e").exists()
    assert train("hydra.run.dir=./d/", "resume=d")[0] == 0


@pytest.mark.slow
def test_a_run_that_loses_its_validation_set_has_no_best_epoch_from_before(train, tmp_path):
    assert train(*tiny("model=plain_mlp", "trainer.epochs=2", "hydra.run.dir=d"))[0] == 0
    changes = ("trainer.epochs=3", "data.val_fraction=0", "resume_force=true")
    status, _, err = train("resume=d", *changes)
    assert (status, err) == (0, "")
    record = record_of(tmp_path / "d")
    assert record["best"] is None
    assert record["selection"]["weights"] == "last epoch"


@pytest.mark.slow
def test_a_run_of_a_former_version_keeps_the_sizes_of_its_micro_batches(train, tmp_path, monkeypatch):
    """They split 32 images into five of 6 and one of 2, now two of 6 and four of 5; batch norm depends on it."""

    def run(name, epochs):
        uneven = ["model=residual_mlp", "model.norm=batch", "trainer.accumulate=6", "schedule=constant"]
        assert train(*tiny(*uneven, f"trainer.epochs={epochs}", f"hydra.run.dir={name}"))[0] == 0

    def split_as_before(state):
        state.splits_evenly = False
        post_init(state)

    run("now", 2)
    with monkeypatch.context() as former:
        post_init = TrainState.__post_init__
        former.setattr(TrainState, "__post_init__", split_as_before)
        run("whole", 2)
        run("parts", 1)
    assert train("resume=parts", "trainer.epochs=2")[0] == 0
    now, whole, parts = (checkpoints.load(RunDir(tmp_path / name).last)["state"] for name in ("now", "whole", "parts"))
    assert_equal(whole["model"], parts["model"])
    assert "splits_evenly" not in parts
    assert now["splits_evenly"] is True
    assert not torch.equal(now["model"]["head.weight"], whole["model"]["head.weight"])
    assert train("reproduce=whole", "hydra.run.dir=again")[0] == 0
    assert train("reproduce=now", "hydra.run.dir=again_now")[0] == 0


def test_a_complete_run_keeps_its_config_and_says_so(train, tmp_path):
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1"))[0] == 0
    config = (tmp_path / "d/config.yaml").read_text()
    status, out, _ = train("resume=d", "trainer.test_tta=flip", "name=other", "trainer.device=auto")
    assert status == 0
    assert [line for line in out.splitlines() if "no effect" in line] == [
        "trainer.test_tta=flip: has no effect, the run is complete; use resnet-eval d --tta flip",
        "name=other: has no effect, the run is complete",
    ]
    assert (tmp_path / "d/config.yaml").read_text() == config
    assert train("resume=d", "trainer.test_tta=flip", "trainer.epochs=2")[0] == 0
    assert "test_tta: flip" in (tmp_path / "d/config.yaml").read_text()
    assert record_of(tmp_path / "d")["test"]["tta"] == "flip"


def test_another_batch_size_of_evaluations_is_named(train, tmp_path):
    assert train(*tiny("model=plain_mlp", "hydra.run.dir=d", "trainer.epochs=1"))[0] == 0
    change = "data.eval_batch_size: 256 -> 3"
    status, out, err = train("resume=d", "data.eval_batch_size=3", "trainer.epochs=2")
    assert (status, err) == (0, "")
    assert f"warning: {change}: scores may differ in the last digits" in out
    assert record_of(tmp_path / "d")["resumed_from"][0]["changes"] == ["trainer.epochs: 1 -> 2", change]
    assert "warning: data.eval_batch_size" not in train("resume=d", "trainer.epochs=3")[1]


def test_a_lost_record_is_named(train, tmp_path):
    assert train(*tiny("hydra.run.dir=d", "trainer.epochs=1"))[0] == 0
    line = "warning: run.json was missing: it begins anew, and the count of test reads with it\n"
    status, out, _ = train("resume=d", "trainer.epochs=2")
    assert (status, line in out) == (0, False)
    (tmp_path / "d/run.json").unlink()
    status, out, _ = train("resume=d", "trainer.epochs=3")
    assert (status, line in out) == (0, True)
