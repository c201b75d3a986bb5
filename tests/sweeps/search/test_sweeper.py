"""How trials end by what their job's folder shows."""

from types import SimpleNamespace

import pytest
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from resnet_cli.config.stored import dump
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.folder import SweepCommand, SweepDir
from resnet_cli.sweeps.job import JobElsewhereError
from resnet_cli.sweeps.job_validation import PlannedJob
from resnet_cli.sweeps.search import sweeper
from resnet_cli.sweeps.search.space import Space
from resnet_cli.sweeps.search.study import Study
from resnet_cli.sweeps.search.sweeper import OptunaSearch


def search(folder, monkeypatch):
    """Return a search in a folder, whose jobs are all in `job`."""
    one = object.__new__(OptunaSearch)
    one.config = OmegaConf.create({"sweep": {"stop_on_failure": False}})
    one.folder = SweepDir(folder)
    one.folder.add_command(SweepCommand(("-m",)), {})
    monkeypatch.setattr(
        sweeper, "plan_job", lambda config, own, number: PlannedJob({}, own, "job", finished_record=None)
    )
    return one


@pytest.mark.parametrize(
    ("record", "error", "signum", "final"),
    [
        ({"status": "finished", "best": {"val_accuracy": 7.0}}, None, None, ("COMPLETE", 7.0)),
        ({"status": "pruned", "best": {"val_accuracy": 7.0}}, None, None, ("PRUNED", 7.0)),
        ({"status": "running"}, RuntimeError("killed"), None, ("FAIL", None)),
        ({"status": "interrupted"}, JobStoppedError(15), None, None),
        ({"status": "running"}, RuntimeError("killed"), 15, None),
        ({"status": "failed"}, RuntimeError("as asked"), 15, ("FAIL", None)),
    ],
)
def test_trials_of_a_batch_in_one_folder_end_like_its_job(tmp_path, monkeypatch, record, error, signum, final):
    """With a launcher that starts processes: a job that a signal stops can be resumed, so its trials stay open."""
    one = search(tmp_path, monkeypatch)
    RunDir(tmp_path / "job").create(dump({}), **record)
    result = SimpleNamespace(status=JobStatus.FAILED if error else JobStatus.COMPLETED, _return_value=error)
    batches = []

    def launch(batch, initial_job_idx):
        batches.append(batch)
        if signum:
            one.folder.request_stop(signum)
        return [result]

    one.launcher = SimpleNamespace(launch=launch)
    ended = []
    study = SimpleNamespace(set_folder=lambda number, name: None, finish_trial=lambda *how: ended.append(how))
    one._run_batch(study, {3: ["seed=1"], 4: ["seed=1"]})
    assert [len(batch) for batch in batches] == [1]
    assert ended == ([(3, *final), (4, *final)] if final else [])


@pytest.mark.parametrize(
    ("left", "launches", "final"),
    [("finished", 1, ("COMPLETE", 7.0)), ("pruned", 2, ("PRUNED", 7.0)), ("interrupted", 2, ("COMPLETE", 8.0))],
)
def test_a_trial_that_another_process_trains_is_waited_for(tmp_path, monkeypatch, left, launches, final):
    one, run, ended, launched = search(tmp_path, monkeypatch), RunDir(tmp_path / "job"), [], []
    run.create(dump({}), status="running")

    def launch(batch, initial_job_idx):
        launched.append(initial_job_idx)
        if len(launched) == 1:
            return [SimpleNamespace(status=JobStatus.FAILED, _return_value=JobElsewhereError(run.path, {}))]
        if run.read_record()["status"] == "interrupted":
            run.update_record(status="finished", best={"val_accuracy": 8.0})
        return [SimpleNamespace(status=JobStatus.COMPLETED, _return_value=None)]

    def wait(error, launch):
        run.update_record(status=left, best={"val_accuracy": 7.0})

    monkeypatch.setattr("resnet_cli.sweeps.remote_jobs._wait", wait)
    one.launcher = SimpleNamespace(launch=launch)
    study = SimpleNamespace(set_folder=lambda number, name: None, finish_trial=lambda *how: ended.append(how))
    one._run_batch(study, {3: ["seed=1"]})
    assert launched == [3] * launches
    assert ended == [(3, *final)]


@pytest.mark.parametrize(
    ("subdir", "parts"),
    [
        ("${hydra:job.num}", [[1], [3, 4, 5]]),
        ("${hydra.job.num}", [[1], [3, 4, 5]]),
        ("trial-${..job.num}", [[1], [3, 4, 5]]),
        ("${job_folder:''}", [[1, 3, 4, 5]]),
    ],
)
def test_trials_whose_folders_are_numbered_are_launched_in_succession(subdir, parts):
    one = object.__new__(OptunaSearch)
    one.config = OmegaConf.create({"hydra": {"sweep": {"subdir": subdir}}})
    assert one._split_by_numbers([1, 3, 4, 5]) == parts


FORMER = ["optimizer.lr=interval(0.1,1)", "init_from=runs/a", "data.workers=2"]
ANOTHER = "use another hydra.sweep.dir for another search"


@pytest.mark.parametrize(
    ("overrides", "changed", "problem"),
    [
        (["init_from=./runs/a/", "data.workers=4"], (), None),
        (["init_from=/project/runs/a"], (), None),
        (["init_from=runs/b"], (),
         f"init_from=runs/b: the existing search has init_from=runs/a; {ANOTHER}, "
         "or -m resume=SWEEP init_from=PATH if it has moved$"),
        (["init_from=runs/b"], ("init_from",), None),
        ([], (), f"init_from: the existing search has init_from=runs/a; {ANOTHER}$"),
        (["init_from=runs/a", "data.root=x"], (), f"data.root=x: the existing search has no such override; {ANOTHER}$"),
        (["init_from=runs/a", "trainer.test_tta=flip"], (), "trainer.test_tta=flip: the existing search has no such"),
        (["init_from=runs/a", "trainer.epochs=9"], ("trainer.epochs",), "trainer.epochs=9: the existing search has no"),
    ],
)  # fmt: skip
def test_a_search_is_continued_with_the_same_weights_and_images(overrides, changed, problem):
    def space(words):
        return Space([], {}, {word.partition("=")[0]: word for word in words})

    attributes = {}
    inner = SimpleNamespace(
        user_attrs=attributes, set_user_attr=attributes.__setitem__, direction=SimpleNamespace(name="MAXIMIZE")
    )
    study, now = Study(inner, None), space([FORMER[0], *overrides])
    study.store_space(space(FORMER))
    if problem is None:
        study.require_same_search(now, "maximize", changed, "/project")
    else:
        with pytest.raises(InputError, match=f"^{problem}"):
            study.require_same_search(now, "maximize", changed, "/project")
    if "trainer.epochs=9" not in overrides:
        del attributes["paths"]  # as in version 0.2.0
        study.require_same_search(now, "maximize", changed, "/project")
