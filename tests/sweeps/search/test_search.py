"""Searches by the command: repeatable and resumed ones, pruning, failures, invalid input."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from resnet_cli.config.selection import select_by_of
from resnet_cli.config.stored import dump
from resnet_cli.errors import DivergedError, PrunedError, StoppedError
from resnet_cli.report import build_tables, read_runs
from resnet_cli.runs.folder import RunDir
from resnet_cli.sweeps import job
from resnet_cli.sweeps.folder import SweepDir
from tests.support.runs import HEAVY, rows_of, tiny

optuna = pytest.importorskip("optuna")

SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=s")
SPACE = ("optimizer.lr=interval(0.001,1)", "model.depth=choice(8,14,20)", "data.batch_size=range(32,129,32)")
N = "hydra.sweeper.n_trials"


def job_records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/run.json"))]


def trials(folder):
    """Return the trials in the storage: state, value, reported epochs and parameters of each."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'search.db'}")
    try:
        return optuna.load_study(study_name="search", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def shown(folder):
    return [(trial.state.name, trial.value, trial.params) for trial in trials(folder)]


@pytest.fixture
def stub(monkeypatch):
    """Return a function that replaces training by given accuracies, and returns the settings of each call."""
    calls = []

    def replace(accuracy, epochs=3):
        def train(config, folder, context):
            settings = dict(vars(config))
            calls.append(settings)
            run = RunDir(folder)
            before = run.read_record()
            rows = [json.loads(line) for line in run.metrics.read_text().splitlines()] if before else []
            own = {key: value for key, value in settings.items() if key not in ("resume", "sweep")}
            run.create(dump(own), status="running", best=before.get("best"))
            status = "finished"
            try:
                while not (pruned := context.control.prune(rows)) and len(rows) < epochs:
                    rows.append({"epoch": len(rows) + 1, "val_accuracy": accuracy(settings, len(rows) + 1)})
                    run.write_metrics(rows)
                    best = max(rows, key=lambda row: row["val_accuracy"])
                    run.update_record(
                        best={
                            "epoch": best["epoch"], "val_accuracy": best["val_accuracy"], "val_loss": 1.0,
                            "select_by": select_by_of(settings),
                        }
                    )  # fmt: skip
                if pruned and len(rows) < epochs:
                    raise PrunedError("pruned")
            except PrunedError:
                status = "pruned"
            except StoppedError:
                run.update_record(status="interrupted")
                raise
            run.update_record(status=status)
            return run.read_record()

        monkeypatch.setattr(job, "train", train)
        return calls

    return replace


def by_lr(settings, epoch):
    return 100 - 50 * abs(settings["optimizer"]["lr"] - 0.3) + epoch / 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((f"{N}=0",), "hydra.sweeper.n_trials: 0 is not allowed; it takes a whole number 1 or more"),
        (("hydra.sweeper.sampler=rnadom",), "hydra.sweeper.sampler: rnadom is not allowed; it takes one of"),
        (("hydra.sweeper.pruner=medain",), "did you mean median?"),
        (("hydra.sweeper.n_jobs=2",), "hydra.sweeper.n_jobs=2: needs a launcher that runs several jobs at once"),
        (("hydra.sweeper.storage=nowhere",), "hydra.sweeper.storage: nowhere: "),
        (("verify_resume=true",), "verify_resume: "),
        (("hydra.sweeper.direction=minimize",), "higher is better for trainer.select_by=val_accuracy; "),
        (("trainer.select_by=val_loss",), "lower is better for trainer.select_by=val_loss; "),
        (("trainer.select_by=val_loss,val_accuracy",), "trainer.select_by: a search compares all its jobs by one"),
        (("model.residual=true,8",), "model.residual: 8 is not allowed"),
        (("trainer.epochs=range(0,4)",), "trainer.epochs: 0 is not allowed"),
        (("model.depht=8,14",), "model.depht: unknown key; did you mean model.depth?"),
    ],
)
def test_an_invalid_search_is_refused_before_anything_is_created(train, tmp_path, stub, arguments, expected):
    calls = stub(by_lr)
    status, _, err = train(*SEARCH, "model=cifar_resnet", "optimizer.lr=interval(0.001,1)", *arguments)
    assert status == 2, err
    assert expected in err
    assert all(line.startswith("error: ") for line in err.splitlines()), err
    assert calls == []
    assert not (tmp_path / "s").exists()


def test_a_search_for_the_lowest_loss_takes_the_metric_as_the_user_types_it(train, tmp_path, stub):
    stub(by_lr)
    lowest = ("trainer.select_by=val_loss", "hydra.sweeper.direction=minimize", "verify_resume=false")
    status, out, err = train(*SEARCH, *SPACE[:1], *lowest, f"{N}=1")
    assert (status, err) == (0, "")
    assert [value for _, value, _ in shown(tmp_path / "s")] == [1.0]
    assert "best: loss 1.0000, optimizer.lr=" in out


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "count"), [("random", 3), ("tpe", 4)])
def test_a_search_with_a_seed_is_repeatable_also_when_continued(train, tmp_path, stub, sampler, count):
    calls = stub(by_lr)
    options = (*SPACE[:1], f"hydra.sweeper.sampler={sampler}")
    assert train(*SEARCH, *options, f"{N}={count}")[0] == 0
    whole = shown(tmp_path / "s")
    assert len({params["optimizer.lr"] for _, _, params in whole}) == count
    assert train("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=t", *options, f"{N}={count - 2}")[0] == 0
    before = len(calls)
    status, out, _ = train("-m", "resume=t", f"{N}={count}")
    assert status == 0
    assert shown(tmp_path / "t") == whole
    assert len(calls) - before == 2  # finished jobs do not run again
    assert f"{count} trials: {count} complete" in out
    best = max(value for _, value, _ in whole)
    found = re.search(r"^best: (\S+) %, (.*) \((.*)\)$", out, re.MULTILINE)
    assert RunDir(tmp_path / found[3]).read_record()["best"]["val_accuracy"] == best
    assert f"{best:.2f}" == found[1]
    other = ("hydra.sweep.dir=v", "hydra.sweeper.seed=1")
    assert train("-m", "hydra/sweeper=optuna", *options, *other, f"{N}=1")[0] == 0
    assert shown(tmp_path / "v")[0] != whole[0]


@pytest.mark.slow
def test_values_of_a_search_have_the_types_of_the_grid(train, tmp_path, stub):
    calls = stub(by_lr)
    assert train(*SEARCH, "model=cifar_resnet", *SPACE, f"{N}=6")[0] == 0
    for used, trial in zip(calls, trials(tmp_path / "s"), strict=True):
        assert type(used["model"]["depth"]) is int
        assert used["data"]["batch_size"] in (32, 64, 96, 128)
        assert used["optimizer"]["lr"] == trial.params["optimizer.lr"]
    jobs = SweepDir(tmp_path / "s").jobs()
    assert len(jobs) == 6
    assert all(job.run.path.name.startswith("optimizer.lr=") for job in jobs)


def test_a_search_that_was_stopped_goes_on_in_the_same_folder(train, tmp_path, stub):
    stopped = []

    def accuracy(settings, epoch):
        if len(calls) == 3 and epoch == 2 and not stopped:
            stopped.append(15)
            raise StoppedError(15)
        return by_lr(settings, epoch)

    calls = stub(accuracy)
    with suppress(StoppedError):
        train(*SEARCH, *SPACE[:1], f"{N}=4")
    assert [state for state, *_ in shown(tmp_path / "s")] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert list(trials(tmp_path / "s")[2].intermediate_values) == [1]
    status, out, _ = train("-m", "resume=s")
    assert status == 0, out
    assert [state for state, *_ in shown(tmp_path / "s")] == ["COMPLETE"] * 4
    assert calls[3]["optimizer"] == calls[2]["optimizer"]
    assert len(calls) == 5
    assert list(trials(tmp_path / "s")[2].intermediate_values) == [1, 2, 3]
    assert len(SweepDir(tmp_path / "s").jobs()) == 4


@pytest.mark.slow
def test_another_search_is_not_mixed_into_one(train, tmp_path, stub):
    calls = stub(by_lr)
    assert train(*SEARCH, *SPACE[:1], f"{N}=2")[0] == 0
    for other, expected in (
        (("optimizer.lr=interval(0.1,1)",), "optimizer.lr=interval(0.1,1): the existing search has"),
        ((*SPACE[:1], "trainer.epochs=7"), "trainer.epochs=7: the existing search has no such override"),
        ((*SPACE[:1], "hydra.sweeper.direction=minimize"), "hydra.sweeper.direction=minimize: "),
    ):
        status, _, err = train(*SEARCH, *other, f"{N}=4")
        assert (status, expected in err) == (2, True), err
        assert len(SweepDir(tmp_path / "s").commands()) == 1
    assert len(calls) == 2
    assert train(*SEARCH, *SPACE[:1], f"{N}=3", "data.workers=1")[0] == 0  # changes nothing of what is searched
    assert len(calls) == 3


@pytest.mark.slow
def test_a_search_of_another_sweep_in_the_same_storage_is_named(train, tmp_path, stub):
    calls = stub(by_lr)
    shared = f"hydra.sweeper.storage=sqlite:///{tmp_path / 'all.db'}"
    assert train(*SEARCH, *SPACE[:1], f"{N}=1", shared)[0] == 0
    other = [word.replace("dir=s", "dir=t") for word in SEARCH]
    status, _, err = train(*other, *SPACE[:1], f"{N}=2", shared)
    assert (status, "error: hydra.sweeper.study_name=search: another sweep has a search" in err) == (2, True)
    assert not (tmp_path / "t").exists()
    assert train(*other, *SPACE[:1], f"{N}=1", shared, "hydra.sweeper.study_name=second")[0] == 0
    assert train("-m", "resume=s", f"{N}=2")[0] == 0
    assert len(calls) == 3


@pytest.mark.slow
def test_a_trial_is_pruned_and_counts_as_done(train, tmp_path, stub):
    calls = stub(lambda settings, epoch: 90.0 + epoch if len(calls) <= 5 else 10.0 - epoch)
    status, out, err = train(*SEARCH, *SPACE[:1], f"{N}=7", "hydra.sweeper.pruner=median")
    assert status == 0, err
    states = [state for state, *_ in shown(tmp_path / "s")]
    assert states == ["COMPLETE"] * 5 + ["PRUNED"] * 2
    assert list(trials(tmp_path / "s")[6].intermediate_values.values()) == [9.0]
    pruned = [record for record in job_records(tmp_path / "s") if record["status"] == "pruned"]
    assert [record["best"]["val_accuracy"] for record in pruned] == [9.0, 9.0]
    assert "7 trials: 5 complete, 2 pruned" in out
    assert "7 runs: 5 finished, 2 pruned" in out
    assert train("-m", "resume=s")[0] == 0
    assert len(calls) == 7
    groups = [group for table in build_tables(read_runs([tmp_path / "s"]).runs) for group in table.groups]
    assert sum(group.excluded.get("pruned", 0) for group in groups) == 2
    assert all(group.statistics("val_accuracy") is None for group in groups if group.excluded)


@pytest.mark.slow
def test_a_pruned_job_stays_pruned_when_its_values_are_sampled_again(train, tmp_path, stub, monkeypatch):
    calls = stub(lambda settings, epoch: 50.0 + epoch)
    prunes = iter([True])
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: next(prunes, False))
    assert train(*SEARCH, "model=resnet8,resnet8", f"{N}=3", "hydra.sweeper.pruner=median")[0] == 0
    assert len(calls) == 1
    assert [state for state, *_ in shown(tmp_path / "s")] == ["PRUNED"] * 3
    (record,) = job_records(tmp_path / "s")
    assert record["status"] == "pruned"


@pytest.mark.slow
def test_a_search_of_an_earlier_version_for_the_lowest_accuracy_goes_on(train, tmp_path, stub, monkeypatch):
    calls = stub(by_lr)
    with monkeypatch.context() as as_before:
        as_before.setattr("resnet_cli.sweeps.search.validation.LOWER_IS_BETTER", ("val_loss", "val_accuracy"))
        assert train(*SEARCH, *SPACE[:1], f"{N}=1", "hydra.sweeper.direction=minimize")[0] == 0
    assert train("-m", "resume=s", f"{N}=2")[0] == 0
    assert len(calls) == 2


@pytest.mark.slow
def test_a_failing_trial_is_reported_and_counted(train, tmp_path, stub):
    def accuracy(settings, epoch):
        if len(calls) == 2:
            raise DivergedError("the loss is nan")
        return by_lr(settings, epoch)

    calls = stub(accuracy)
    status, out, err = train(*SEARCH, *SPACE[:1], f"{N}=3")
    assert status == 1
    assert "error: job 1 (optimizer.lr=" in err
    assert "the loss is nan" in err
    assert "3 trials: 2 complete, 1 failed" in out
    assert err.splitlines()[-1] == "error: 1 of 3 jobs did not finish"  # a search does not repeat it
    assert train("-m", "resume=s")[0] == 1
    assert len(calls) == 3


@pytest.mark.slow
def test_stop_on_failure_stops_a_search_that_can_go_on(train, tmp_path, stub):
    def accuracy(settings, epoch):
        if len(calls) == 2:
            raise DivergedError("the loss is nan")
        return by_lr(settings, epoch)

    calls = stub(accuracy)
    assert train(*SEARCH, *SPACE[:1], f"{N}=4", "sweep.stop_on_failure=true")[0] == 1
    assert len(calls) == 2
    train("-m", "resume=s")
    assert [state for state, *_ in shown(tmp_path / "s")] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_trials_of_the_same_values_share_their_job(train, tmp_path, stub):
    calls = stub(lambda settings, epoch: 50.0 + settings["model"]["depth"])
    assert train(*SEARCH, "model=cifar_resnet", "model.depth=8,14", f"{N}=5")[0] == 0
    assert len(trials(tmp_path / "s")) == 5
    assert len(calls) <= 2
    for _, value, params in shown(tmp_path / "s"):
        assert value == 50 + int(params["model.depth"])


@pytest.mark.slow
def test_a_path_that_no_url_can_express_holds_a_search(train, tmp_path, stub):
    stub(by_lr)
    place = tmp_path / "what? {x} 100%"
    place.mkdir()
    assert train(*SEARCH, *SPACE[:1], f"{N}=1", cwd=place)[0] == 0
    assert (place / "s" / "search.db").is_file()


@pytest.mark.slow
def test_a_pruned_run_has_its_best_and_no_test_result(train, tmp_path, monkeypatch):
    """With real training: the second trial is pruned after its first epoch."""
    prunes = iter([False, False, True])
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: next(prunes))
    status, _, err = train(*SEARCH, *tiny("optimizer.lr=interval(0.01,0.1)"), f"{N}=2", "hydra.sweeper.pruner=median")
    assert status == 0, err
    for trial in trials(tmp_path / "s"):
        folder = tmp_path / "s" / trial.user_attrs["folder"]
        record, rows = RunDir(folder).read_record(), rows_of(folder)
        assert trial.intermediate_values == {row["epoch"]: row["val_accuracy"] for row in rows}
        if trial.number == 0:
            assert (record["status"], len(rows)) == ("finished", 2)
            assert trial.value == record["best"]["val_accuracy"]
    assert (record["status"], len(rows), record["test"]) == ("pruned", 1, None)
    assert record["best"]["epoch"] == 1
    assert "pruned after epoch 1 of 2" in (folder / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the net asks Linux for the resident memory")
def test_failed_jobs_of_a_search_leave_no_nets(train, tmp_path, monkeypatch):
    """Launchers keep the exceptions of jobs, whose tracebacks would keep models alive."""
    (tmp_path / "counted_nets.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        net = tiny("model._target_=counted_nets.Net", "+model.fails=true", "trainer.epochs=1")
        assert train(*SEARCH, *net, "seed=0,1,2,3", f"{N}=3")[0] == 1
    finally:
        sys.modules.pop("counted_nets", None)
    alive = [line.split()[1] for line in (tmp_path / "resident.txt").read_text().splitlines()]
    assert alive
    assert set(alive) == {"0"}


@pytest.mark.slow
def test_jobs_in_their_own_folders_report_to_the_search(train, tmp_path, stub, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it is afterwards, since Hydra changes it
    stub(by_lr)
    status, _, err = train(*SEARCH, *SPACE[:1], f"{N}=1", "hydra.job.chdir=true")
    assert (status, err) == (0, "")
    assert [state for state, *_ in shown(tmp_path / "s")] == ["COMPLETE"]
    assert len([*tmp_path.rglob("search.db")]) == 1


@pytest.mark.slow
def test_trials_in_folders_that_hydra_numbers_have_their_results(train, tmp_path, stub):
    stub(by_lr)
    status, _, err = train(*SEARCH, "hydra.sweep.subdir=${hydra:job.num}", *SPACE[:1], f"{N}=3")
    assert (status, err) == (0, "")
    assert [trial.state.name for trial in trials(tmp_path / "s")] == ["COMPLETE"] * 3
    assert sorted(path.parent.name for path in tmp_path.glob("s/*/run.json")) == ["0", "1", "2"]
