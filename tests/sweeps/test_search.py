"""Searching with Optuna: the space, repeatable and continued searches, pruning, failures, wrong input."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hypothesis import given, settings, strategies
from omegaconf import OmegaConf

from resnet_cli.config.stored import dump
from resnet_cli.errors import DivergedError, InputError, PrunedError, StoppedError
from resnet_cli.report import build_tables, read_runs
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps import job
from resnet_cli.sweeps.folder import SweepCommand, SweepDir
from resnet_cli.sweeps.planning import PlannedJob
from resnet_cli.sweeps.search import space as spaces
from resnet_cli.sweeps.search import sweeper
from resnet_cli.sweeps.search.sweeper import OptunaSearch
from tests.support.runs import HEAVY, rows_of, tiny

optuna = pytest.importorskip("optuna")

SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=s")
SPACE = ("optimizer.lr=interval(0.001,1)", "model.depth=choice(8,14,20)", "data.batch_size=range(32,129,32)")
N = "hydra.sweeper.n_trials"


class NoGroups:
    """The only method of Hydra's config loader that `parse_space` calls."""

    def get_group_options(self, group, results_filter=None):
        return ["resnet8", "resnet20", "cnn"] if group == "model" else []


def parse(*overrides):
    return spaces.parse_space(overrides, NoGroups())


def job_records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/run.json"))]


def trials(folder):
    """What the storage says: state, value, reported epochs and values of each trial."""
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
    """Training that takes no time: the accuracy of an epoch is what `accuracy(settings, epoch)` gives."""
    calls = []

    def replace(accuracy, epochs=3):
        def train(config, folder, context):
            settings = vars(config)
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
                        best={"epoch": best["epoch"], "val_accuracy": best["val_accuracy"], "val_loss": 1.0}
                    )
                if pruned and len(rows) < epochs:
                    raise PrunedError("given up")
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


@settings(max_examples=20)
@given(strategies.floats(1e-12, 1e6), strategies.floats(1e-12, 1e6), strategies.booleans())
def test_a_number_in_an_override_is_the_sampled_one_bit_for_bit(a, b, log):
    low, high = sorted((a, b))
    if low == high:
        return
    inside = f"interval({low!r},{high!r})"
    space = parse(f"++optimizer.lr=tag(log,{inside})" if log else f"++optimizer.lr={inside}")
    (override,) = space.overrides(optuna.trial.FixedTrial({"optimizer.lr": a}))
    parsed = OverridesParser.create().parse_override(override)
    assert parsed.key_or_group == "optimizer.lr"
    assert parsed.value() == a
    assert type(parsed.value()) is float


def test_the_space_is_the_grid_of_the_same_words():
    space = parse("++a=range(32,129,32)", "++b=range(0.1,0.9,0.1)", "model=glob(resnet*)", "++c=8,x,'a b'", "++d=7",
                  "++e=int(interval(1,5))", "++f=tag(log,range(1,9))")  # fmt: skip
    assert space.fixed == ["++d=7"]
    assert space.dimensions["++a"] == spaces.IntRange(32, 128, 32)
    by_hydra = OverridesParser.create().parse_override("b=range(0.1,0.9,0.1)").value()  # 1.3 and 1.4 round differently
    assert space.dimensions["++b"].grid == list(by_hydra.range()) == pytest.approx([n / 10 for n in range(1, 9)])
    assert (space.dimensions["++b"].low, space.dimensions["++b"].high) == (0.1, 0.8)
    assert space.dimensions["model"].values == ["resnet8", "resnet20"]
    assert space.dimensions["++c"].values == ["8", "x", "'a b'"]
    assert space.dimensions["++e"] == spaces.IntRange(1, 5)
    assert space.dimensions["++f"] == spaces.IntRange(1, 8, log=True)
    seen = {override for job in space.examples() for override in job}
    assert {"++a=32", "++a=128", "++b=0.1", "++b=0.8", "++c=8", "++c='a b'", "++d=7", "++e=5", "model=resnet20"} <= seen


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=interval(0,1)", "model=interval(0,1): a group takes a choice(a,b) of its options, not numbers"),
        ("model=glob(vgg*)", "no option of this name"),
        ("++a=interval(1,0.1)", "a=interval(1,0.1): an interval takes two finite numbers, the smaller one first"),
        ("++a=interval(0,inf)", "the smaller one first"),
        ("++a=tag(log,interval(0,1))", "a logarithmic interval starts above 0"),
        ("++a=tag(log,range(2,9,2))", "has the step 1"),
        ("++a=tag(large,interval(0,1))", "tag large: only interval and range take a tag, which is log"),
        ("++a=tag(log,choice(1,2))", "tag log"),
        ("++a=shuffle(range(4))", "leave out shuffle"),
        ("++a=range(4,4)", "an empty range"),
        ("++a=1", "nothing to search"),
    ],
)
def test_a_space_that_is_none_is_refused(override, said):
    with pytest.raises(InputError, match=re.escape(said)):
        parse(override)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((f"{N}=0",), "hydra.sweeper.n_trials: 0 is not allowed; it takes a whole number 1 or more"),
        (("hydra.sweeper.sampler=rnadom",), "hydra.sweeper.sampler: rnadom is not allowed; it takes one of"),
        (("hydra.sweeper.pruner=medain",), "did you mean median?"),
        (("hydra.sweeper.n_jobs=2",), "hydra.sweeper.n_jobs=2: needs a launcher that runs several jobs at once"),
        (("hydra.sweeper.storage=nowhere",), "hydra.sweeper.storage: nowhere: "),
        (("verify_resume=true",), "verify_resume: "),
        (("model.residual=true,8",), "model.residual: 8 is not allowed"),
        (("trainer.epochs=range(0,4)",), "trainer.epochs: 0 is not allowed"),
        (("model.depht=8,14",), "model.depht: unknown key; did you mean model.depth?"),
    ],
)
def test_a_wrong_search_is_refused_in_a_line_before_anything_is_made(train, tmp_path, stub, arguments, said):
    calls = stub(by_lr)
    status, _, err = train(*SEARCH, "model=cifar_resnet", "optimizer.lr=interval(0.001,1)", *arguments)
    assert status == 2, err
    assert said in err
    assert all(line.startswith("error: ") for line in err.splitlines()), err
    assert calls == []
    assert not (tmp_path / "s").exists()


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
    assert all(job.run.path.name.startswith("model=cifar_resnet,optimizer.lr=") for job in jobs)


@pytest.mark.slow
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
    for other, said in (
        (("optimizer.lr=interval(0.1,1)",), "optimizer.lr=interval(0.1,1): the existing search has"),
        ((*SPACE[:1], "trainer.epochs=7"), "trainer.epochs=7: the existing search has no such override"),
        ((*SPACE[:1], "hydra.sweeper.direction=minimize"), "hydra.sweeper.direction=minimize: "),
    ):
        status, _, err = train(*SEARCH, *other, f"{N}=4")
        assert (status, said in err) == (2, True), err
        assert len(SweepDir(tmp_path / "s").commands()) == 1
    assert len(calls) == 2
    assert train(*SEARCH, *SPACE[:1], f"{N}=3", "data.workers=1")[0] == 0  # changes nothing of what is searched
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
def test_what_was_given_up_stays_so_when_its_values_come_again(train, tmp_path, stub, monkeypatch):
    calls = stub(lambda settings, epoch: 50.0 + epoch)
    prunes = iter([True])
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: next(prunes, False))
    assert train(*SEARCH, "model=resnet8,resnet8", f"{N}=3", "hydra.sweeper.pruner=median")[0] == 0
    assert len(calls) == 1
    assert [state for state, *_ in shown(tmp_path / "s")] == ["PRUNED"] * 3
    (record,) = job_records(tmp_path / "s")
    assert record["status"] == "pruned"


@pytest.mark.slow
def test_a_failing_trial_is_told_and_counted(train, tmp_path, stub):
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


@pytest.mark.parametrize(
    ("record", "error", "signum", "told"),
    [
        ({"status": "finished", "best": {"val_accuracy": 7.0}}, None, None, ("COMPLETE", 7.0)),
        ({"status": "pruned", "best": {"val_accuracy": 7.0}}, None, None, ("PRUNED", 7.0)),
        ({"status": "running"}, RuntimeError("killed"), None, ("FAIL", None)),
        ({"status": "interrupted"}, JobStoppedError(15), None, None),
        ({"status": "running"}, RuntimeError("killed"), 15, None),
        ({"status": "failed"}, RuntimeError("as asked"), 15, ("FAIL", None)),
    ],
)
def test_trials_of_a_batch_in_one_folder_end_like_its_job(tmp_path, monkeypatch, record, error, signum, told):
    """As with a launcher that starts processes: a job stopped by a signal goes on later, and its trials stay open."""
    one = object.__new__(OptunaSearch)
    one.config = OmegaConf.create({"sweep": {"stop_on_failure": False}})
    one.folder = SweepDir(tmp_path)
    one.folder.add_command(SweepCommand(("-m",)), {})
    RunDir(tmp_path / "job").create(dump({}), **record)
    result = SimpleNamespace(status=JobStatus.FAILED if error else JobStatus.COMPLETED, _return_value=error)
    batches = []

    def launch(batch, initial_job_idx):
        batches.append(batch)
        if signum:
            one.folder.request_stop(signum)
        return [result]

    one.launcher = SimpleNamespace(launch=launch)
    monkeypatch.setattr(sweeper, "plan_job", lambda config, own: PlannedJob({}, own, "job", is_finished=False))
    ended = []
    study = SimpleNamespace(set_folder=lambda number, name: None, finish_trial=lambda *how: ended.append(how))
    one._run_batch(study, {3: ["seed=1"], 4: ["seed=1"]})
    assert [len(batch) for batch in batches] == [1]
    assert ended == ([(3, *told), (4, *told)] if told else [])


@pytest.mark.slow
def test_a_path_that_no_url_can_say_holds_a_search(train, tmp_path, stub):
    stub(by_lr)
    place = tmp_path / "what? {x} 100%"
    place.mkdir()
    assert train(*SEARCH, *SPACE[:1], f"{N}=1", cwd=place)[0] == 0
    assert (place / "s" / "search.db").is_file()


@pytest.mark.slow
def test_a_pruned_run_has_its_best_and_no_test_result(train, tmp_path, monkeypatch):
    """With real training: the second trial is given up after its first epoch."""
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
    assert "pruned: given up after epoch 1 of 2" in (folder / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the net asks Linux for the resident memory")
def test_failed_jobs_of_a_search_leave_no_nets(train, tmp_path, monkeypatch):
    """A launcher keeps what a job raised, whose traceback holds all that there was."""
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
