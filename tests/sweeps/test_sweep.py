"""Resumed sweeps: finished jobs stay as they are, interrupted ones resume exactly, failed ones are tried again."""

import json
import subprocess
import sys

import pytest

from resnet_cli.config import signatures
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import StopSignals
from resnet_cli.sweeps.folder import FAILURE, SweepCommand, SweepDir
from resnet_cli.sweeps.grid import SerialLauncher
from resnet_cli.sweeps.job import run as run_job
from resnet_cli.sweeps.launch import SweepLaunch
from resnet_cli.sweeps.placement import config_hash
from resnet_cli.sweeps.resume import ResolvedCommand, resolve_commands
from tests.support.runs import job, records, tiny, weights

NETS = """
import torch
from pathlib import Path

class Net(torch.nn.Module):
    '''Fails in training, once 8 batches were seen, while there is a file `broken`.'''
    def __init__(self, *, num_classes: int, fails: bool = False):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(192, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2),
            torch.nn.Linear(8, num_classes))
        self.fails = fails
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.seen += 1
            if self.fails and Path("broken").exists() and self.seen > 8:
                if Path("broken").read_text():
                    raise SystemExit(0)
                raise RuntimeError("as asked")
        return self.layers(x)
"""
NET = tiny("model._target_=own_nets.Net", "hydra.sweep.dir=s", "trainer.epochs=4")


@pytest.fixture
def own_nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_nets", None)


def contents(folder):
    """Return the content and the time of writing of every file of a sweep's jobs."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*/*") if path.is_file()}


@pytest.mark.slow
def test_a_failed_sweep_is_run_again_to_what_it_would_have_been(train, own_nets):
    (own_nets / "broken").touch()
    command = ["-m", "+model.fails=true,false", "seed=0,1", *NET]
    status, out, err = train(*command)
    assert status == 1
    assert err.count("error: job ") == 2
    assert "error: 2 of 4 jobs did not finish; resume with: resnet-train -m resume=s" in err
    failed = [path for path in (own_nets / "s").iterdir() if path.is_dir() and "fails=True" in path.name]
    assert len(failed) == 2
    for path in failed:
        assert f"as asked; see {path.relative_to(own_nets)}/train.log" in err
        assert "Traceback" in (path / "train.log").read_text()
        record = RunDir(path).read_record()
        assert (record["status"], record["reason"]) == ("failed", "RuntimeError: as asked")
    finished = contents(job(own_nets / "s", "fails=False,seed=0"))

    (own_nets / "broken").unlink()
    status, out, err = train("-m", "resume=s")
    assert (status, err) == (0, "")
    assert out.count("already finished, best ") == 2
    assert out.count("\nfrom    epoch 2") == 2
    assert contents(job(own_nets / "s", "fails=False,seed=0")) == finished
    assert "4 runs: 4 finished" in out

    status, out, _ = train(*[word.replace("=s", "=other") if word.endswith("dir=s") else word for word in command])
    assert status == 0
    for seed in (0, 1):
        name = f"fails=True,seed={seed}"
        assert weights(job(own_nets / "s", name)) == weights(job(own_nets / "other", name))


@pytest.mark.slow
def test_a_job_is_the_run_that_it_would_be_alone(train, own_nets):
    """After a job that fails, and one that is deterministic; with dropout, averaging and augmentation."""
    common = [*tiny(), "trainer.averaging=ema", "data.augment.flip=random"]
    (own_nets / "broken").touch()
    status, _, _ = train("-m", "+model.fails=true", "seed=0", *NET)
    assert status == 1
    status, _, _ = train("-m", "trainer=deterministic,default", "seed=3,4", *common, "hydra.sweep.dir=many")
    assert status == 0
    train(*common, "seed=4", "hydra.run.dir=alone")
    assert weights(job(own_nets / "many", "trainer=default,seed=4")) == weights(own_nets / "alone")
    rows = [(path / "metrics.jsonl") for path in (job(own_nets / "many", "trainer=default,seed=4"), own_nets / "alone")]
    clocks = ("seconds", "samples_per_second")
    first, second = (
        [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in path.read_text().splitlines()]
        for path in rows
    )
    assert first == second


@pytest.mark.slow
def test_a_second_sweep_adds_jobs_and_both_go_on(train, tmp_path):
    assert train("-m", *tiny("seed=0,1", "hydra.sweep.dir=s"))[0] == 0
    before = contents(tmp_path / "s")
    assert train("-m", *tiny("seed=1,2", "hydra.sweep.dir=s"))[0] == 0
    assert set(records(tmp_path / "s")) == {0, 1, 2}
    assert {path: contents(tmp_path / "s")[path] for path in before} == before
    status, out, _ = train("-m", "resume=s", "trainer.epochs=3", "sweep.stop_on_failure=true")
    assert status == 0
    assert out.count("\nfrom    epoch 2") == 3
    assert "3 runs: 3 finished" in out
    status, out, _ = train("-m", "resume=s")
    assert out.count("already finished") == 4  # seed=1 is in both
    assert {record["epochs"] for record in records(tmp_path / "s").values()} == {3}
    assert len(SweepDir(tmp_path / "s").commands()) == 2
    before = contents(tmp_path / "s")
    status, _, err = train("-m", "resume=s", "trainer.epochs=2")
    line = "trainer.epochs=2: fewer epochs than the job has already; hydra.sweep.dir=s adds further jobs"
    assert (status, err.splitlines()[0]) == (2, f"error: job 0 (seed=0) and 1 more: {line}")
    assert contents(tmp_path / "s") == before


@pytest.mark.slow
def test_another_config_under_the_same_overrides_is_a_new_job(train, tmp_path):
    (tmp_path / "conf/model").mkdir(parents=True)
    own = tmp_path / "conf/model/mine.yaml"
    own.write_text("_target_: resnet_cli.models.CNN\nchannels: [4]\npool_every: 1\nhidden_dims: [8]\n")
    command = ["-m", *tiny("model=mine", "seed=0", "hydra.sweep.dir=s")]
    assert train(*command)[0] == 0
    before = contents(tmp_path / "s")
    (first,) = (path for path in (tmp_path / "s").iterdir() if path.is_dir())
    RunDir(first).update_record(status="failed")
    before = contents(tmp_path / "s")
    own.write_text(own.read_text().replace("[8]", "[9]"))
    status, out, err = train(*command)
    assert (status, err) == (0, "")  # the former job is not expected to finish any more
    (second,) = (path for path in (tmp_path / "s").iterdir() if path.is_dir() and path != first)
    assert f"config differs from that of {first.relative_to(tmp_path)}; starting a new job in s/{second.name}" in out
    assert {path: contents(tmp_path / "s")[path] for path in before} == before
    assert "9" in (second / "config.yaml").read_text()
    status, out, _ = train(*command)
    assert (status, out.count("already finished")) == (0, 1)
    assert "2 runs: 1 finished, 1 failed" in out


@pytest.mark.slow
def test_stop_on_failure_starts_no_further_job(train, own_nets):
    (own_nets / "broken").touch()
    command = ["-m", "+model.fails=true,false", *NET, "seed=0", "sweep.stop_on_failure=true"]
    status, out, err = train(*command)
    assert status == 1
    assert "1 of 2 jobs has not started" in out
    assert "error: 2 of 2 jobs did not finish" in err
    assert not any("fails=False" in path.name for path in (own_nets / "s").iterdir())
    (own_nets / "broken").unlink()
    assert train("-m", "resume=s")[0] == 0


def stored_sweep(folder, *commands):
    """Store commands in a sweep's folder as if they had run there."""
    folder.mkdir()
    for arguments in commands:
        SweepDir(folder).add_command(SweepCommand(("-m", *arguments)), {})


def test_all_commands_of_a_sweep_are_checked_before_the_first_trains(train, tmp_path):
    stored_sweep(tmp_path / "s", tiny("trainer.epochs=1"), tiny("trainer.epochs=1,2"))
    status, out, err = train("-m", "resume=s", "trainer.epochs=4")
    assert (status, out) == (2, "")
    assert err.startswith("error: trainer.epochs=4: the sweep has trainer.epochs=1,2, which cannot be changed")


def own_experiment(folder, text):
    (folder / "conf/experiment").mkdir(parents=True, exist_ok=True)
    (folder / "conf/experiment/own.yaml").write_text(f"# @package _global_\n{text}\n")


def test_a_key_that_an_experiment_sweeps_is_not_changed_for_all_jobs(train, tmp_path, monkeypatch):
    """The typed value would replace those of the experiment, so that one job is left."""
    monkeypatch.chdir(tmp_path)
    own_experiment(tmp_path, "hydra: {sweeper: {params: {trainer.epochs: '1,2'}}}")
    stored_sweep(tmp_path / "s", ["experiment=own", *(word for word in tiny() if "epochs" not in word)])
    before = (tmp_path / "s/sweep.json").read_bytes()
    status, out, err = train("-m", "resume=s", "trainer.epochs=4")
    assert (status, out) == (2, "")
    assert err == (
        "error: trainer.epochs=4: the sweep has trainer.epochs=1,2, which cannot be changed for all its jobs\n"
    )
    assert (tmp_path / "s/sweep.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("has_processes", [False, True])
@pytest.mark.parametrize(("stops", "count"), [("true", 1), ("false", 2)])
def test_stop_on_failure_holds_for_the_other_commands_of_the_sweep(
    stops, count, has_processes, train, tmp_path, monkeypatch
):
    calls = []
    if has_processes:  # as far as the launch knows, whose control files these need
        monkeypatch.setattr("resnet_cli.sweeps.preparation.can_fork", lambda: False)
        monkeypatch.setattr("resnet_cli.commands.train.job.job_runner", lambda *_: run_job)

    def fail(*arguments):
        calls.append(arguments)
        raise RuntimeError("as asked")

    monkeypatch.setattr("resnet_cli.sweeps.job.train", fail)
    stored_sweep(tmp_path / "s", tiny("seed=0"), tiny("seed=1"))
    isolated = str(has_processes).lower()
    status, _, err = train("-m", "resume=s", f"sweep.stop_on_failure={stops}", f"sweep.isolate={isolated}")
    assert (status, len(calls)) == (1, count)
    jobs = "1 of 1 job" if count == 1 else "2 of 2 jobs"
    assert f"error: {jobs} did not finish; resume with: resnet-train -m resume=s" in err


def test_a_stopped_sweep_launches_no_further_batch(train, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("as asked")

    batches = []
    launch = SerialLauncher.launch
    monkeypatch.setattr("resnet_cli.sweeps.job.train", fail)
    monkeypatch.setattr(SerialLauncher, "launch", lambda *given, **named: batches.append(1) or launch(*given, **named))
    options = ["hydra.sweeper.max_batch_size=1", "sweep.stop_on_failure=true", "hydra.sweep.dir=s"]
    status, out, err = train("-m", "seed=0,1,2", *tiny(*options))
    assert (status, len(batches)) == (1, 1)
    assert "2 of 3 jobs have not started" in out
    assert "error: 3 of 3 jobs did not finish" in err


@pytest.mark.slow
def test_a_job_that_calls_exit_ends_itself_alone(train, own_nets):
    (own_nets / "broken").write_text("exit")
    status, out, err = train(
        "-m", "+model.fails=true,false", *[w for w in NET if "epochs" not in w], "trainer.epochs=3"
    )
    assert status == 1
    assert "SystemExit: 0; see s/" in err
    assert "2 runs: 1 finished, 1 failed" in out


@pytest.mark.slow
def test_a_proof_in_a_sweep_leaves_no_jobs(train, tmp_path, monkeypatch):
    from resnet_cli.errors import NotIdenticalError
    from resnet_cli.sweeps import job as sweep_job

    def verify(config, folder, context):
        assert config.verify_resume
        if config.seed:
            raise NotIdenticalError("not identical: here")
        return {"epochs": 1}

    monkeypatch.setattr(sweep_job, "train", verify)
    assert train("-m", "seed=0", "verify_resume=true", *tiny("hydra.sweep.dir=s"))[0] == 0
    status, _, err = train("-m", "seed=0,1", "verify_resume=true", *tiny("hydra.sweep.dir=s"))
    assert status == 1
    assert "): not identical: here\n" in err
    assert not list((tmp_path / "s").rglob("*.json"))


@pytest.mark.slow
def test_a_job_that_fails_before_it_has_a_folder_leaves_its_reason(train, tmp_path):
    arguments = tiny("data=image_folder", "data.root=nowhere", "hydra.sweep.dir=s")
    arguments = [
        word for word in arguments if not word.startswith(("data.image", "data.count", "data.test", "data.cl"))
    ]
    status, _, err = train("-m", *arguments, "seed=0,1")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "job 0 (seed=0) and 1 more: data.root=nowhere: not found at" in err
    assert not (tmp_path / "s").exists()
    (tmp_path / "nowhere").mkdir()
    status, _, err = train("-m", *arguments, "seed=0,1")
    assert status == 1
    assert err.count("has no class folders") == 2
    for record in records(tmp_path / "s").values():
        assert record["status"] == "failed"
        assert "nowhere" in record["reason"]
    log = next((tmp_path / "s").rglob("train.log")).read_text()
    assert "Traceback" in log


WRONG = {
    "no such folder": (["-m", "resume=nowhere"], "error: resume=nowhere: no such sweep folder"),
    "a foreign folder": (["-m", "resume=foreign"], "error: foreign: not a sweep folder (it has no sweep.json)"),
    "half a record": (["-m", "resume=half"], "error: half/sweep.json: not a sweep record: JSONDecodeError"),
    "another record": (["-m", "resume=wrong"], "error: wrong/sweep.json: not a sweep record: TypeError"),
    "a run": (["-m", "resume=run"], "error: resume=run: a run, not a sweep; resume it without -m"),
    "a sweep without -m": (["resume=sweep"], "error: resume=sweep: a sweep; resume it with resnet-train -m resume="),
    "several": (["-m", "resume=sweep,run"], "error: resume=sweep,run: with -m it takes the folder of one sweep"),
    "other jobs": (
        ["-m", "resume=sweep", "seed=4"],
        "error: seed=4: would change the jobs; hydra.sweep.dir=sweep adds",
    ),
    "a varied key": (
        ["-m", "resume=sweep", "trainer.epochs=4"],
        "error: trainer.epochs=4: the sweep has trainer.epochs=1,2, which cannot be changed for all its jobs",
    ),
    "several values of a key": (
        ["-m", "resume=sweep", "trainer.device=cpu,auto"],
        "error: trainer.device=cpu,auto: all jobs of a resumed sweep get the same value; give one",
    ),
    "an unknown key": (
        ["-m", "sed=0,1", "hydra.sweep.dir=new"],
        "error: job 0 (sed=0) and 1 more: sed: unknown key; did you mean",
    ),
    "several loggers, one after the other": (
        ["-m", "logger=null,tensorboard", "hydra.sweep.dir=new"],
        "error: logger=null,tensorboard: all jobs of a sweep have the same value; logger=[tensorboard,",
    ),
    "a key that only controls jobs": (
        ["-m", "sweep.isolate=true,false", "hydra.sweep.dir=new"],
        "error: sweep.isolate=true,false: all jobs of a sweep have the same value",
    ),
    "a sweep into a run": (
        ["-m", "seed=0", "hydra.sweep.dir=run"],
        "error: run: contains a run; a sweep needs a folder",
    ),
    "a launcher that is not here": (
        ["-m", "seed=0", "hydra/launcher=ray", "hydra.sweep.dir=new"],
        "error: hydra/launcher=ray: needs hydra-ray-launcher; pip install 'resnet-cli[ray]'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_a_line(case, train, tmp_path, monkeypatch):
    from resnet_cli.hydra_app import plugins

    monkeypatch.setattr(plugins, "_is_installed", lambda package, module: False)
    for name, text in {
        "half": '{"commands": [',
        "wrong": '{"commands": [{"arguments": 1, "named": []}], "jobs": {}}',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").write_text(text)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 0\n")
    (tmp_path / "sweep").mkdir()
    SweepDir(tmp_path / "sweep").add_command(SweepCommand(("-m", "trainer.epochs=1,2")), {})
    before = sorted(path for path in tmp_path.rglob("*"))
    arguments, expected = WRONG[case]
    status, out, err = train(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(expected)
    assert err.count("\n") == 1
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["hydra.launcher.n_jobs=2", "hydra/launcher=joblib"], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        (["hydra/launcher=submitit_slurm"], ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]),
        (["hydra/launcher=submitit_local"], ["hydra/launcher=submitit_local"]),
    ],
)
def test_a_launcher_has_its_own_options_in_any_order(typed, kept, tmp_path):
    command = SweepCommand(("-m", "seed=0,1", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"))
    SweepDir(tmp_path).add_command(command, {})
    [resumed] = resolve_commands(["-m", f"resume={tmp_path}", *typed])
    assert [word for word in resumed.arguments if word.startswith(("hydra/launcher", "hydra.launcher"))] == kept


def resumed(folder, *typed, stored):
    """Return the command that `-m resume=FOLDER` stands for in a sweep with a stored command."""
    folder.mkdir(exist_ok=True)
    SweepDir(folder).add_command(SweepCommand(("-m", *stored)), {})
    [command] = resolve_commands(["-m", f"resume={folder}", *typed])
    return command


def test_weights_that_have_moved_are_named_anew(tmp_path):
    stored = ("seed=0,1", "teacher=old", "init_from=a,b")
    command = resumed(tmp_path / "s", "teacher=new", "init_from=/c,/d", stored=stored)
    assert {"seed=0,1", "teacher=new", "init_from=a,b"} < {*command.arguments}
    assert command.stored.original_overrides == ("teacher=old",)
    assert command.origin.swept == {"init_from": {"a": "/c", "b": "/d"}}
    for typed, problem in (("teacher=null", "teacher=null: would change"), ("init_from=c", "a path for each")):
        with pytest.raises(InputError, match=problem):
            resumed(tmp_path / "s", typed, stored=stored)
    with pytest.raises(InputError, match="teacher=new: would change the jobs"):
        resumed(tmp_path / "t", "teacher=new", stored=["seed=0,1"])
    command = resumed(tmp_path / "u", "teacher=null,/c", stored=["teacher=null,a"])
    assert command.origin.swept == {"teacher": {"null": "null", "a": "/c"}}


def test_what_accepts_a_change_holds_this_time_only(tmp_path):
    stored = ("seed=0,1", "trust=false")
    command = resumed(tmp_path / "s", "resume_force=true", "trust=true", stored=stored)
    assert [word for word in command.arguments if word.startswith(("resume_force", "trust"))] == [
        "resume_force=true", "trust=true",
    ]  # fmt: skip
    assert command.stored == SweepCommand(("-m", *stored))
    assert {"resume_force", "trust"} <= command.changed_keys
    with pytest.raises(InputError, match="all jobs of a resumed sweep get the same value"):
        resumed(tmp_path / "s", "trust=true,false", stored=stored)


@pytest.mark.parametrize("budget", [[], ["trainer.time_budget=null"]])
def test_a_number_of_epochs_replaces_a_budget_that_a_file_may_have(tmp_path, budget):
    command = resumed(tmp_path / "s", "trainer.epochs=3", *budget, stored=["seed=0,1"])
    assert {"trainer.epochs=3", "trainer.time_budget=null"} < {*command.arguments}
    assert command.stored.original_overrides == ("trainer.epochs", "trainer.time_budget")
    assert command.typed_keys == {"trainer.epochs", "trainer.time_budget"}
    with pytest.raises(InputError, match="would change the jobs"):
        resumed(tmp_path / "t", "trainer.time_budget=null", stored=["seed=0,1"])


@pytest.mark.parametrize(("option", "name"), [("--config-dir=own", "own"), ("seed=0", "conf")])
def test_configs_of_the_sweep_come_before_those_of_another_project(tmp_path, monkeypatch, option, name):
    for project in ("one", "two"):
        (tmp_path / project / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    SweepDir(tmp_path / "one/s").path.mkdir()
    SweepDir(tmp_path / "one/s").add_command(SweepCommand(("-m", option)), {})

    def folders(sweep):
        [command] = resolve_commands(["-m", f"resume={sweep}"])
        return [word for word in command.arguments if word.startswith("--config-dir")]

    here = [option] if name == "own" else []
    assert folders("s") == here
    monkeypatch.chdir(tmp_path / "two")
    assert folders("../one/s") == [f"--config-dir={tmp_path / 'one' / name}"]
    (tmp_path / "one").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert folders("s") == here


def test_a_second_sweep_in_the_same_place_is_refused_while_the_first_runs(train, tmp_path):
    code = "from resnet_cli.runs.lock import exclusive\nfrom pathlib import Path\n"
    code += "with exclusive(Path('s'), 'sweep'): print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes)
    assert other.stdout.readline() == "1\n"
    status, _, err = train("-m", *tiny("hydra.sweep.dir=s"))
    other.communicate("\n")
    assert status == 2, err
    assert f"error: s: pid {other.pid} on " in err
    assert "writes this sweep; wait until it ends, or stop it" in err


def test_sweeps_of_one_second_have_folders_of_their_own(tmp_path):
    command, stop = ResolvedCommand([], SweepCommand(("-m",))), StopSignals()
    with (
        SweepLaunch(command, stop) as first,
        SweepLaunch(command, stop) as second,
    ):
        one = first.open_folder(tmp_path / "10-00-00-net", {}, may_rename=True)
        two = second.open_folder(tmp_path / "10-00-00-net", {}, may_rename=True)
        assert one != two
        assert two.name.startswith("10-00-00-net-")
        with SweepLaunch(command, stop) as third, pytest.raises(InputError):
            third.open_folder(tmp_path / "10-00-00-net", {}, may_rename=False)


def test_a_stop_reaches_jobs_and_is_taken_back(tmp_path):
    sweep = SweepDir(tmp_path)
    sweep.add_command(SweepCommand(("-m",)), {})
    assert sweep.read_stop_request() is None
    sweep.request_stop(15)
    assert sweep.read_stop_request() == 15
    sweep.request_stop()
    assert sweep.read_stop_request() == FAILURE
    sweep.add_command(SweepCommand(("-m",)), {})
    assert sweep.read_stop_request() is None
    assert [command.arguments for command in sweep.commands()] == [("-m",)]


def test_the_hash_is_of_what_makes_a_run_another_run():
    settings = {"seed": 0, "name": "a", "resume": None, "trainer": {"epochs": 3, "device": "cpu"}, "logger": None}
    same = {**settings, "name": "b", "resume": "auto", "logger": {"wandb": {"project": "x"}}}
    assert config_hash(settings) == config_hash(same)
    assert config_hash(settings) == config_hash({**settings, "trainer": {"epochs": 3, "device": "cuda"}})
    for other in ({"seed": 1}, {"trainer": {"epochs": 4, "device": "cpu"}}):
        assert config_hash(settings) != config_hash({**settings, **other})


def test_an_unreadable_job_is_reported_and_the_others_run(train, tmp_path):
    assert train("-m", "seed=0,1", *tiny("hydra.sweep.dir=s"))[0] == 0
    job(tmp_path / "s", "seed=0").joinpath("run.json").write_text("{")
    status, out, err = train("-m", "resume=s")
    assert status == 1
    assert "run.json: not a run record" in err
    assert out.count("already finished") == 1


@pytest.mark.slow
def test_jobs_may_have_the_folders_that_hydra_numbers(train, tmp_path):
    folders = ["hydra.sweep.dir=s", "hydra.sweep.subdir=${hydra:job.num}"]
    status, _, err = train("-m", *tiny("seed=0,1", "trainer.epochs=1", *folders))
    assert (status, err) == (0, "")
    assert {path.parent.name for path in (tmp_path / "s").rglob("run.json")} == {"0", "1"}


@pytest.mark.slow
def test_jobs_in_folders_that_hydra_numbers_are_resumed_with_more_epochs(train, tmp_path):
    folders = ["hydra.sweep.dir=s", "hydra.sweep.subdir=${hydra:job.num}"]
    assert train("-m", *tiny("seed=0,1", "trainer.epochs=1"), *folders)[0] == 0
    status, _, err = train("-m", "resume=s", "trainer.epochs=2")
    assert (status, err) == (0, "")
    rows = {path.parent.name: len(path.read_text().splitlines()) for path in tmp_path.glob("s/*/metrics.jsonl")}
    assert rows == {"0": 2, "1": 2}


@pytest.mark.slow
@pytest.mark.parametrize("typed", [["--config-dir", "own"], ["-cd", "own"], ["--config-dir=own"], []])
def test_a_sweep_finds_the_users_configs_from_elsewhere(train, tmp_path, typed):
    folder = tmp_path / ("own" if typed else "conf") / "trainer"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text("defaults: [default, _self_]\nepochs: 1\n")
    arguments = [*(text for text in tiny("trainer=short") if not text.startswith("trainer.epochs")), "seed=0,1"]
    assert train("-m", *typed, *arguments, "hydra.sweep.dir=s")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    sweep = f"resume={tmp_path / 's'}"
    status, out, err = train("-m", sweep, cwd=tmp_path / "elsewhere")
    assert (status, err, out.count("already finished")) == (0, "", 2)
    if typed:
        (tmp_path / "own").rename(tmp_path / "moved")
        option = ["--config-dir", str(tmp_path / "moved")]
        status, out, err = train("-m", sweep, *option, cwd=tmp_path / "elsewhere")
        assert (status, err, out.count("already finished")) == (0, "", 2)


@pytest.mark.slow
def test_a_sweep_finds_the_users_classes_from_elsewhere_if_it_is_trusted(train, tmp_path, monkeypatch):
    def forget():
        sys.modules.pop("swept_nets", None)
        signatures.forget_signatures()
        sys.path[:] = [path for path in sys.path if path != str(there)]

    monkeypatch.setattr(sys, "path", [*sys.path])
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
    (there / "swept_nets.py").write_text(NETS)
    sweep = tiny("model._target_=swept_nets.Net", "trainer.epochs=1", "hydra.sweep.dir=s")
    try:
        assert train("-m", "seed=0,1", *sweep, cwd=there)[0] == 0
        forget()
        status, _, err = train("-m", f"resume={there / 's'}", cwd=elsewhere)
        assert status == 2
        remedy = f"trust=true imports it from {there.resolve()}"
        assert f"model._target_: there is no module named 'swept_nets'; {remedy}" in err
        status, out, err = train("-m", f"resume={there / 's'}", "trust=true", cwd=elsewhere)
        assert (status, err, out.count("already finished")) == (0, "", 2)
        assert str(there.resolve()) not in sys.path
    finally:
        forget()
