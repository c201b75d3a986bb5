"""The insides of Hydra that sweeps rely on. A failure here after an update of Hydra names what has changed."""

import hydra
import pytest
from hydra import compose, initialize, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import compat, plugins
from resnet_cli.hydra_app.run_name import register_resolvers
from resnet_cli.session.signals import RunFailedError
from resnet_cli.sweeps import grid, hydra_internals
from resnet_cli.sweeps.search.sweeper import OptunaSearch


def failed(error):
    result = JobReturn()
    result.status, result.return_value = JobStatus.FAILED, error
    return result


def test_this_version_of_hydra_was_tried():
    series = {version.rpartition(".")[0] for version in hydra_internals.TRIED_VERSIONS}
    assert hydra.__version__.rpartition(".")[0] in series


def test_expand_grid_varies_the_last_override_first():
    jobs = hydra_internals.expand_grid(["++a=1,2", "model=x", "++b=range(3)", "++c='d,e'"])
    assert jobs == [[f"++a={a}", "model=x", f"++b={b}", "++c='d,e'"] for a in (1, 2) for b in range(3)]


def test_our_sweeper_and_launcher_replace_those_of_hydra(train, monkeypatch):
    launched = []

    def stop(self, job_overrides, initial_job_idx):
        launched.extend(list(job) for job in job_overrides)
        raise InputError("seen")

    monkeypatch.setattr(grid.SerialLauncher, "launch", stop)
    typed = ["data=digits", "schedule=glob(multi*)", "seed=0,1", "model=resnet8,resnet20"]
    status, _, err = train("-m", *typed, "hydra.sweep.dir=s")
    assert (status, err.splitlines()[0]) == (2, "error: seen")
    overrides = ["data=digits", "schedule=multistep", "++seed=0,1", "model=resnet8,resnet20"]
    assert launched == hydra_internals.expand_grid(overrides)


def test_job_error_is_the_exception_that_a_job_raised():
    error = ValueError("as asked")
    assert hydra_internals.job_error(failed(error)) is error
    result = JobReturn()
    result.status, result.return_value = JobStatus.COMPLETED, 3.0
    assert hydra_internals.job_error(result) is None


def test_a_failed_job_that_is_marked_completed_raises_nothing(capfd):
    result = failed(ValueError("as asked"))
    hydra_internals.mark_completed(result)
    assert result.return_value is None
    assert capfd.readouterr().err == ""


def test_compose_job_applies_overrides_to_the_sweep_with_its_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with initialize(config_path=None, **compat.compose_options()):
        sweep = compose(overrides=["+a=1", "hydra.mode=MULTIRUN"], return_hydra_config=True)
        job = hydra_internals.compose_job(sweep, ["+a=2"], 7)
        assert (job.a, job.hydra.job.num, list(job.hydra.overrides.task)) == (2, 7, ["+a=2"])
        assert OmegaConf.is_missing(sweep.hydra.job, "num")
    assert not GlobalHydra.instance().is_initialized()


def test_a_sweeper_registered_under_hydra_plugins_is_instantiated(train, monkeypatch):
    sweepers = []
    monkeypatch.setattr(plugins, "_is_installed", lambda package, module: True)
    monkeypatch.setattr(OptunaSearch, "sweep", lambda self, arguments: sweepers.append((self.n_trials, arguments)))
    status, _, err = train("-m", "hydra/sweeper=optuna", "seed=1,2", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=s")
    assert (status, err) == (0, "")
    assert sweepers == [(3, ["++seed=1,2"])]


class Raising(Callback):
    def __init__(self, error):
        self.error = error

    def on_multirun_start(self, config, **kwargs):
        raise self.error


def test_an_exception_in_a_callback_is_a_warning_and_a_base_exception_ends_hydra():
    callbacks = Callbacks()
    callbacks.callbacks = [Raising(ValueError("as asked"))]
    with pytest.warns(UserWarning, match="as asked"):
        callbacks.on_multirun_start(config=OmegaConf.create())
    callbacks.callbacks = [Raising(RunFailedError(ValueError("as asked")))]
    with pytest.raises(RunFailedError):
        callbacks.on_multirun_start(config=OmegaConf.create())


def test_a_composer_composes_what_hydra_does(tmp_path, monkeypatch):
    jobs = [
        ["model=resnet8", "++optimizer.lr=0.1", "++seed=0"],
        ["model=resnet8", "++optimizer.lr=0.2", "++seed=1"],  # the same keys: values are replaced
        ["model=resnet20", "++optimizer.lr=0.2", "++seed=1"],  # another option
        ["model=resnet8", "++optimizer.lr=0.3"],  # fewer keys
        ["model=resnet8", "++optimizer.lr=0.4", "++model.mine=[1,2]"],
        ["model=resnet8", "++optimizer.lr=0.4", "++model.mine=[3]"],
        ["++optimizer.groups={a: {lr: 1.0}}", "data=digits"],
        ["++optimizer.groups={b: {lr: 1.0}}", "data=digits"],
        ["++name='${seed}'", "model=resnet8"],
    ]
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(CONFIG_FOLDER), **compat.compose_options()):
        sweep = compose("train", [], return_hydra_config=True)
        HydraConfig.instance().set_config(sweep)
        composer = hydra_internals.JobComposer(sweep)
        for number, overrides in enumerate(jobs):
            found = OmegaConf.to_yaml(composer.compose(overrides, number))
            assert found == OmegaConf.to_yaml(hydra_internals.compose_job(sweep, overrides, number))
