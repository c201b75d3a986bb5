"""resnet-train as a user runs it: runs, folders, resuming, sweeps, wrong input, signals."""

import json
import math
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from resnet_cli.runs.names import resume_command
from tests.support import processes, tiers
from tests.support.runs import assert_equal, assert_same_end, record_of, rows_of, tiny

FILES = {
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "train.log",
    "card.md",
    "curves.png",
    "samples.png",
    "splits.json",
    "code",
    "checkpoints",
}


class Killed(BaseException):
    """Ends a run at once, wherever it is raised."""


def only_run(folder):
    (record,) = folder.rglob("run.json")
    return record.parent


@pytest.mark.draws
def test_a_run_leaves_what_the_interface_says(train, tmp_path):
    status, out, err = train(*tiny())
    assert (status, err) == (0, "")
    run = only_run(tmp_path)
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-resnet8-[a-z]{4}", str(run.relative_to(tmp_path)))
    assert {path.name for path in run.iterdir()} == FILES
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    record = record_of(run)
    assert record["status"] == "finished"
    assert record["command"].startswith("resnet-train data=synthetic")
    assert {"git_commit", "git_dirty", "versions", "device", "seed", "parameters", "started", "ended"} <= set(record)
    assert {"epoch", "val_accuracy", "val_loss", "val_balanced_accuracy", "select_by"} == set(record["best"])
    assert 0 <= record["test"]["accuracy"] <= 100
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    expected = ["epoch", "step", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    expected.append("val_balanced_accuracy")
    assert list(rows[0]) == [*expected, "samples_per_second", "seconds"]
    for words in ("parameters", "training", "validation", "cpu", str(run.relative_to(tmp_path)), "epoch 1/2", "test"):
        assert words in out
    assert "next:" in out
    assert (run / "train.log").read_text() in out
    assert "\r" not in (run / "train.log").read_text()
    for name in ("curves.png", "samples.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


def test_a_run_is_opened_with_the_weights_that_were_tested(train, tmp_path):
    from resnet_cli.data import make_loaders, synthetic
    from resnet_cli.session.trained import open_trained
    from resnet_cli.training.evaluation import evaluate

    train(*tiny("trainer.averaging=ema"))
    run = only_run(tmp_path)
    for path in (run, run / "checkpoints" / "best.pt"):
        opened = open_trained(str(path))
        assert opened.class_names == ("class 0", "class 1", "class 2")
        assert opened.in_size == (3, 8, 8)
        dataset = synthetic(count=96, test_count=32, classes=3, image_size=8)
        loader = make_loaders(dataset, device="cpu", seed=0).test
        scores = evaluate(opened.model, loader, device=torch.device("cpu"))
        assert not opened.model.training
        assert scores.accuracy == record_of(run)["test"]["accuracy"]
        assert scores.loss == pytest.approx(record_of(run)["test"]["loss"], rel=1e-6)


def test_the_test_set_is_read_once_at_the_end(train, tmp_path, monkeypatch):
    from resnet_cli.data.loading.device_loader import DeviceLoader

    reads = []
    original = DeviceLoader.epoch

    def epoch(self, *arguments):
        reads.append(self.samples)
        return original(self, *arguments)

    monkeypatch.setattr(DeviceLoader, "epoch", epoch)
    train(*tiny())
    assert reads.count(32) == 1
    assert reads[-1] == 32


def test_a_trainer_file_of_ones_own_may_leave_things_out(train, tmp_path):
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    target = "_target_: resnet_cli.ClassifierTrainer\n"
    (tmp_path / "conf" / "trainer" / "short.yaml").write_text(target)
    options = [option for option in tiny("trainer=short", "data.count=64") if not option.startswith("trainer.epochs")]
    assert train(*options)[0] == 0
    rows = rows_of(only_run(tmp_path))
    assert len(rows) == 20  # the constructor's default
    assert rows[4]["lr"] > rows[10]["lr"] > rows[19]["lr"]  # and the schedule is of that length


def test_debugging_reads_two_batches_of_everything(train, tmp_path):
    status, _, _ = train(*tiny("trainer=debug", "trainer.epochs=1", "data.eval_batch_size=4"))
    run = only_run(tmp_path)
    assert status == 0
    assert rows_of(run)[0]["step"] == 2
    assert record_of(run)["test"]["samples"] == 8


def test_without_validation_the_last_epoch_is_kept(train, tmp_path):
    status, _, _ = train(*tiny("data.val_fraction=0"))
    run = only_run(tmp_path)
    assert status == 0
    assert record_of(run)["selection"] == {"weights": "last epoch", "by": None, "val_samples": 0}
    assert record_of(run)["best"] is None
    assert record_of(run)["test"]["samples"] == 32
    last, best = (
        torch.load(run / "checkpoints" / n, weights_only=True)["state"]["model"] for n in ("last.pt", "best.pt")
    )
    assert_equal(dict(last), dict(best))


@pytest.mark.parametrize(
    "options",
    tiers.mostly_slow([
        [],
        ["trainer.averaging=ema", "data.augment.mixup=0.4", "model.dropout=0.2", "schedule=cosine",
         "schedule.warmup=3 steps"],
        ["data.backend=stream", "data.workers=1", "data.augment.flip=alternating", "trainer.accumulate=2"],
        ["optimizer=adamw", "schedule=cosine", "trainer.precision=bf16", "trainer.clip_norm=0.5"],
        ["optimizer=muon", "trainer.early_stopping=2", "data.augment.cutmix=1.0"],
    ], every=4),
)  # fmt: skip
def test_an_interrupted_run_ends_as_if_it_had_not_been(train, tmp_path, monkeypatch, options):
    from resnet_cli.session.saver import RunSaver

    arguments = tiny(*options, "trainer.epochs=3", "name=x")
    assert train(*arguments, "hydra.run.dir=whole")[0] == 0
    original = RunSaver.write_metrics

    def write_metrics(self, rows):
        original(self, rows)
        if len(rows) == 2:
            raise Killed  # behind the second epoch's save

    monkeypatch.setattr(RunSaver, "write_metrics", write_metrics)
    with pytest.raises(Killed):
        train(*arguments, "hydra.run.dir=parts")
    monkeypatch.setattr(RunSaver, "write_metrics", original)
    status, out, err = train("resume=parts")
    assert (status, err) == (0, "")
    assert "epoch 3/3" in out
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert record_of(tmp_path / "parts")["resumed_from"][0]["epoch"] == 2


def test_resume_auto_starts_then_goes_on_then_has_nothing_to_do(train, tmp_path):
    line = tiny("hydra.run.dir=d", "resume=auto")
    assert train(*line)[0] == 0
    first = rows_of(tmp_path / "d")
    status, out, _ = train(*line)
    assert status == 0
    assert "nothing to do" in out
    assert rows_of(tmp_path / "d") == first


@pytest.mark.parametrize("resume", tiers.mostly_slow(["auto", "d"], every=2))
def test_a_run_killed_before_its_first_save_starts_over(train, tmp_path, monkeypatch, resume):
    from resnet_cli.session.saver import RunSaver

    def save_last(self, state):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunSaver, "save_last", save_last)
        with pytest.raises(Killed):
            train(*tiny("hydra.run.dir=d"))
    arguments = tiny("hydra.run.dir=d", "resume=auto") if resume == "auto" else [f"resume={resume}"]
    assert train(*arguments)[0] == 0
    assert [row["epoch"] for row in rows_of(tmp_path / "d")] == [1, 2]
    files = ["d/checkpoints/last.pt", "d/checkpoints/previous.pt"]
    for file in files:
        (tmp_path / file).unlink()
    status, _, err = train(*arguments)
    assert (status, err) == (2, "".join(f"error: {file}: no such checkpoint\n" for file in files))


def test_a_finished_run_can_be_extended(train, tmp_path):
    train(*tiny("hydra.run.dir=d"))
    status, _, _ = train("resume=d/checkpoints/last.pt", "trainer.epochs=4")
    assert status == 0
    assert [row["epoch"] for row in rows_of(tmp_path / "d")] == [1, 2, 3, 4]
    assert record_of(tmp_path / "d")["status"] == "finished"
    assert "epochs: 4" in (tmp_path / "d" / "config.yaml").read_text()
    assert record_of(tmp_path / "d")["resumed_from"][0]["changes"] == ["trainer.epochs: 2 -> 4"]


def test_a_changed_config_is_refused_unless_forced(train, tmp_path):
    train(*tiny("hydra.run.dir=d"))
    before = (tmp_path / "d" / "config.yaml").read_text()
    status, _, err = train("resume=d", "optimizer.lr=0.5", "model.width=2")
    assert status == 2
    assert "error: optimizer.lr: 0.1 -> 0.5" in err
    assert "error: model.width: 1 -> 2" in err
    assert (tmp_path / "d" / "config.yaml").read_text() == before
    status, _, _ = train("resume=d", "optimizer.lr=0.5", "trainer.epochs=3", "resume_force=true")
    assert status == 0
    resumed = record_of(tmp_path / "d")["resumed_from"][-1]
    assert {"optimizer.lr: 0.1 -> 0.5", "trainer.epochs: 2 -> 3"} <= set(resumed["changes"])
    group = torch.load(tmp_path / "d/checkpoints/last.pt", weights_only=True)["state"]["optimizer"]["param_groups"][0]
    assert group["initial_lr"] == 0.5


def test_a_run_folder_is_not_written_over(train, tmp_path):
    train(*tiny("hydra.run.dir=d"))
    status, _, err = train(*tiny("hydra.run.dir=d"))
    assert status == 2
    assert "error: d: already holds a run; resume=auto continues it" in err


def test_a_damaged_checkpoint_is_named(train, tmp_path):
    train(*tiny("hydra.run.dir=d"))
    for file in ("last", "previous"):
        (tmp_path / f"d/checkpoints/{file}.pt").write_bytes(b"nonsense")
    status, _, err = train("resume=d", "trainer.epochs=4")
    assert status == 2
    assert err.startswith("error: d/checkpoints/last.pt: damaged")
    assert "\nerror: d/checkpoints/previous.pt: damaged" in err


def test_weights_of_another_run_are_a_start(train, tmp_path):
    train(*tiny("hydra.run.dir=a"))
    status, out, _ = train(*tiny("data.classes=4", "init_from=a", "hydra.run.dir=b", "optimizer.lr=1e-9"))
    assert status == 0
    assert "new: head.linear.weight|bias (3 classes in the file)" in out
    a, b = (torch.load(tmp_path / n / "checkpoints/best.pt", weights_only=True)["state"]["model"] for n in "ab")
    shared = [name for name in a if a[name].shape == b[name].shape and name.endswith("weight") and a[name].ndim == 4]
    assert shared
    for name in shared:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5)
    assert record_of(tmp_path / "b")["start"] == "a"
    status, _, err = train(*tiny("model=cnn", "init_from=a"))
    assert status == 2
    assert "holds weights of another model" in err


def test_a_sweep_runs_every_combination_in_a_folder_of_its_own(train, tmp_path):
    status, out, _ = train("-m", *tiny("model=resnet8,cnn", "seed=0,1"))
    assert status == 0
    (sweep,) = (tmp_path / "multirun").glob("*/*")
    assert re.fullmatch(r"\d\d-\d\d-\d\d-resnet8,cnn", sweep.name)
    assert out.count("\njob ") == 4
    runs = sorted(path.parent.name for path in sweep.rglob("run.json"))
    assert len(runs) == 4
    assert all(record_of(sweep / name)["status"] == "finished" for name in runs)
    _, resume = shlex.split(resume_command(sweep / runs[0]))
    assert train(resume, "trainer.epochs=3")[0] == 0
    assert len(rows_of(sweep / runs[0])) == 3


@pytest.mark.slow
def test_sweeps_of_one_second_have_folders_of_their_own(train, tmp_path, monkeypatch):
    from resnet_cli.commands.train import app
    from resnet_cli.config import paths
    from resnet_cli.hydra_app import file_source

    taken = tmp_path / "multirun" / "x"
    copied = _with_fixed_sweeps(tmp_path, app.CONFIG_FOLDER)
    for module in (app, file_source, paths):
        monkeypatch.setattr(module, "CONFIG_FOLDER", copied)
    for count in (1, 2, 3):
        assert train("-m", *tiny("trainer.epochs=1"))[0] == 0
        found = [path for path in taken.parent.iterdir() if path.name.startswith("x")]
        assert len(found) == count
        assert all(len(list(path.glob("*/run.json"))) == 1 for path in found)


def _with_fixed_sweeps(folder, source):
    """A copy of the config whose sweeps are all in one folder, as sweeps of one second are."""
    copied = shutil.copytree(source, folder / "copied")
    text = (copied / "train.yaml").read_text()
    (copied / "train.yaml").write_text(text.replace("${now:%Y-%m-%d}/${now:%H-%M-%S}-${sweep_name:}", "${now:x}"))
    return copied


def test_a_failing_job_of_a_sweep_is_told_and_the_others_go_on(train, tmp_path):
    status, _, err = train("-m", *tiny("optimizer.lr=0.1,1e30,0.05", "hydra.sweep.dir=s"))
    assert status == 1
    assert "error: job 1" in err
    assert "not finite" in err or "the loss is" in err
    statuses = sorted(record_of(path.parent)["status"] for path in (tmp_path / "s").rglob("run.json"))
    assert statuses == ["failed", "finished", "finished"]


def test_divergence_keeps_the_last_good_checkpoint(train, tmp_path):
    train(*tiny("hydra.run.dir=d"))
    good = (tmp_path / "d/checkpoints/last.pt").read_bytes()
    status, _, err = train("resume=d", "trainer.epochs=5", "optimizer.lr=1e30", "resume_force=true")
    assert status == 3
    assert re.match(r"error: .* at step \d+ \(epoch 3, batch \d+\); try a smaller optimizer.lr", err)
    assert (tmp_path / "d/checkpoints/last.pt").read_bytes() == good
    assert record_of(tmp_path / "d")["status"] == "failed"
    assert math.isfinite(rows_of(tmp_path / "d")[-1]["train_loss"])


OWN_NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, hidden: int = 8):
        super().__init__()
        c, h, w = in_size
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(c * h * w, hidden), torch.nn.Linear(hidden, num_classes))
    def forward(self, x):
        return self.layers(x)
"""


def test_a_users_own_class_and_config_folder(train, tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(OWN_NET)
    monkeypatch.syspath_prepend(tmp_path)
    status, out, err = train(*tiny("model._target_=mynets.Net", "model.hidden=5", "hydra.run.dir=a"))
    assert (status, err) == (0, "")
    assert "model   Net" in out
    [command] = [line.split("  train this")[0] for line in out.splitlines() if "train this one for longer" in line]
    assert train(*command.split()[1:])[0] == 0  # names the class again, as a stored config may not
    status, _, err = train(*tiny("model._target_=mynets.Net", "model.hiden=5"))
    assert status == 2
    assert "error: model.hiden: unknown key; did you mean model.hidden?" in err
    for folder, arguments in [("conf", []), ("other", ["--config-dir", "other"])]:
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / f"{folder}_net.yaml").write_text("_target_: mynets.Net\nhidden: 6\n")
        status, _, err = train(*arguments, *tiny(f"model={folder}_net", f"hydra.run.dir=run-{folder}"))
        assert (status, err) == (0, "")
        assert record_of(tmp_path / f"run-{folder}")["parameters"] == 192 * 6 + 6 + 6 * 3 + 3


WRONG = [
    (["model=resnet21"], "model=resnet21: no such option; did you mean resnet20?"),
    (["modle=resnet20"], "modle: unknown key; did you mean model?"),
    (["model.depht=20"], "model.depht: unknown key; did you mean model.depth?"),
    (["+epochs=3"], "epochs: unknown key; did you mean trainer.epochs?"),
    (["model=resnet20", "model=plain20"], "model: given twice"),
    (["data.batch_size=2.5"], "data.batch_size: 2.5 is not allowed; it takes a whole number 1 or more"),
    (["trainer.epochs=0"], "trainer.epochs: 0 is not allowed"),
    (["optimizer.lr=abc"], "optimizer.lr: abc is not allowed; it takes a number"),
    (["optimizer.lr=nan"], "optimizer.lr: nan"),
    (["optimizer.lr="], "optimizer.lr:"),
    (["trainer.precision=fp17"], "did you mean fp16?"),
    (["trainer.device=gpu0"], "trainer.device: 'gpu0' is not a device"),
    (["data.batch_size=0"], "data.batch_size: 0 is not allowed"),
    (["model=cifar_resnet", "model.depth=21"], "model.depth=21: must be 6n+2"),
    (["schedule.warmup=1000"], "schedule.warmup=1000 is"),
    (["seed=-1"], "seed: -1"),
    (["seed=${nope}"], "nope"),
    (["a=b=c"], "a=b=c: not key=value"),
    (["[1,2"], "[1,2: not key=value"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["resume=nowhere"], "resume=nowhere: no such run folder"),
    (["init_from=nowhere"], "nowhere: no such run folder"),
    (["data=image_folder", "data.root=nowhere"], "nowhere"),
    (["model._target_=nowhere.Net"], "model._target_: there is no module named 'nowhere'"),
    (["--config-dir", "nowhere"], "nowhere"),
    (["--experimental-rerun=x.pickle"], "--experimental-rerun: refused"),
    (["-m", "seed=1,2", "model.width=1,a"], "job 1 (seed=1, model.width=a) and 1 more: model.width: a"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_input_is_a_line_and_leaves_nothing(train, tmp_path, arguments, words):
    whole = arguments if arguments[0].startswith(("data=", "resume=")) else tiny(*arguments)
    status, _, err = train(*whole)
    assert status == 2
    lines = err.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines)
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_all_problems_come_at_once(train):
    _, _, err = train("trainer.epochs=x", "optimizer.lrr=0.1", "model.shortcut=D")
    assert len(err.splitlines()) == 3


def test_a_workers_death_is_the_machines_fault_wherever_it_is_noticed():
    from resnet_cli.errors import MachineError
    from resnet_cli.hydra_app.errors import as_user_error

    told = as_user_error(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert isinstance(told, MachineError)
    assert str(told) == "DataLoader worker (pid 7) is killed by signal: Killed; use data.workers=0"
    assert as_user_error(RuntimeError("another")) is None


def test_outputs_that_cannot_be_made_are_the_machines_fault(train, tmp_path):
    (tmp_path / "outputs").write_text("a file")
    status, _, err = train(*tiny())
    assert status == 4
    assert err.count("\n") == 1
    assert "outputs" in err


def test_ctrl_c_saves_and_the_run_goes_on_from_there(train, tmp_path):
    arguments = tiny("data.count=640", "data.batch_size=16", "trainer.epochs=4", "name=x")
    process = processes.start(*arguments, "hydra.run.dir=parts", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "parts/metrics.jsonl").exists() or not (tmp_path / "parts/metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "resume with: resnet-train resume=parts" in out
    assert record_of(tmp_path / "parts")["status"] == "interrupted"
    assert train("resume=parts")[0] == 0
    assert train(*arguments, "hydra.run.dir=whole")[0] == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_the_installed_command_prints_plain_lines_without_a_terminal(train_command, tmp_path):
    done = train_command(*tiny("trainer.epochs=1"), fresh=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout
    assert Path(tmp_path / "outputs").is_dir()


def test_help_and_config_are_shown(train_command):
    done = train_command("--help", fresh=True)
    assert done.returncode == 0
    assert "resnet-train model=resnet data=cifar10" in done.stdout
    assert "digits" in done.stdout
    done = train_command("model=resnet20", "--cfg", "job", fresh=True)
    assert "depth: 20" in done.stdout


def test_commands_that_are_suggested_name_the_folder_also_with_chdir(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it is afterwards, since Hydra changes it
    status, out, _ = train(*tiny(), "hydra.job.chdir=true", "hydra.run.dir=run")
    assert status == 0
    assert f"resnet-eval {shlex.quote(str(tmp_path / 'run'))} " in out
    assert "resume=." not in out
    status, out, _ = train(*tiny(), "-m", "seed=1", "hydra.job.chdir=true", "hydra.sweep.dir=sweep")
    assert status == 0
    assert (tmp_path / "sweep" / "sweep.json").is_file()
    assert len([*tmp_path.rglob("sweep.json")]) == 1
