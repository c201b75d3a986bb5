"""Errors that Hydra really raises are recognised: these tests fail when their texts or classes change."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import hydra
import pytest
from hydra import compose, initialize_config_dir

from resnet_cli.commands.train.main import run
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import DivergedError, InputError, InUseError, JobFailedError, MachineError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.errors import NULL_GROUP, SEVERAL_VALUES, as_user_error, print_error


def error_of(*overrides):
    with pytest.raises(Exception) as raised, initialize_config_dir(str(CONFIG_FOLDER), **compat.compose_options()):  # noqa: PT011
        compose("train", list(overrides), return_hydra_config=True)
    return raised.value


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=resnet21", "model=resnet21: no such option; did you mean resnet20? ("),
        ("model=null", "a group was given no name; it takes the name of one of its options"),
        ("++name=a b{", "name=a b{: not key=value as Hydra reads it; put the whole argument in single quotes: "),
    ],
)
def test_an_error_of_hydra_is_a_line(override, line):
    known = as_user_error(error_of(override, *([] if "name" in override else ["name=x"])))
    assert isinstance(known, InputError)
    assert known.problems[0].startswith(line)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a"), 2), (InUseError("a"), 2), (DivergedError("a"), 3), (MachineError(28, "a"), 4),
        (JobFailedError("a"), 1),
    ],
)  # fmt: skip
def test_exit_statuses_are_those_of_the_kind_of_error(error, status, capsys):
    assert print_error(error) == status
    assert capsys.readouterr().err == "error: a\n"


def test_images_given_in_another_way_are_answered_by_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").touch()
    for override, line in [
        ("data=photos", "data=photos: no such option; images there are data=image_folder data.root=photos"),
        ("data=labels.csv", "data=labels.csv: no such option; images there are data=csv data.file=labels.csv"),
        ("photos", "photos: not key=value; images there are data=image_folder data.root=photos"),
        ("help", "help: not key=value; --help shows how settings are typed"),
    ]:
        assert as_user_error(error_of(override, "name=x")).problems == (line,)
    (line,) = as_user_error(error_of(f"data={tmp_path}/photos", "name=x")).problems
    assert line.endswith(f"data=image_folder data.root={tmp_path}/photos")


def test_several_values_without_a_sweep_are_recognised_by_hydras_text():
    error = error_of("++seed=0,1", "name=x")
    assert str(error).startswith(SEVERAL_VALUES)
    (line,) = as_user_error(error).problems
    assert line == "seed=0,1: several values: add -m for a sweep, or quote them: 'seed=\"0,1\"'"


def test_a_group_of_null_is_recognised_by_hydras_text():
    assert str(error_of("model=null", "name=x")).startswith(NULL_GROUP)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CUDA error: out of memory\nCUDA kernel errors", "out of memory: CUDA error: out of memory: try a smaller"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out of memory: cuDNN error: .* trainer.on_oom=halve"),
        (
            "max_pool3d_backward_cuda does not have a deterministic implementation, but you set",
            "trainer.deterministic=true: max_pool3d_backward_cuda has no .* or trainer.deterministic=false$",
        ),
        ("Deterministic behavior was enabled with either ... you must set CUBLAS_WORKSPACE_CONFIG", "trainer.determin"),
    ],
)
def test_what_the_device_cannot_compute_is_a_line_that_says_what_to_change(text, line, capsys):
    assert print_error(RuntimeError(text)) == 1
    assert re.search(f"^error: {line}", capsys.readouterr().err)


def test_an_error_of_the_compiler_is_a_line(capsys):
    error = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})(
        "backend='inductor'\nmore"
    )
    assert print_error(error) == 1
    assert capsys.readouterr().err == (
        "error: trainer.compile: BackendCompilerFailed: backend='inductor'; use trainer.compile=off\n"
    )


def test_a_defect_is_not_translated():
    assert as_user_error(KeyError("x")) is None
    assert hydra.__version__.startswith(("1.3", "1.4"))


def test_commands_of_the_shells_completion_are_lines(train_command):
    for argument, words in [
        ("query=bash", "error: -sc query: is called by the shell"),
        ("foo", "error: -sc: takes install=SHELL, uninstall=SHELL or query=SHELL"),
    ]:
        done = train_command("-sc", argument)
        assert done.returncode == 2
        assert done.stderr.startswith(words)
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_reader_of_the_completion_may_go_away(tmp_path):
    command = f"{shlex.quote(sys.executable)} -m resnet_cli -sc install=bash | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-m", "model=resnet8", "optimizer.lr=interval(0.1,0.2)"],
         "optimizer.lr=interval(0.1,0.2): an interval needs hydra/sweeper=optuna; or give values, as in a,b,c"),
        (["model=my/optimizer/o"], "model=my/optimizer/o: no such option ("),
        (["model=my/o.yaml"], "model=my/o.yaml: options are names, not files; model=o with --config-dir FOLDER reads"),
        (["+optimizer@opt2=adamw"], "opt2: unknown key (allowed: "),
        (["optimizer@foo=adamw"], "optimizer@foo: nothing of this group has this place; optimizer=NAME chooses"),
        (["optimiser/x=adamw"], "optimiser/x: is in no defaults list"),
        (["--config-path", "my/own"],
         "--config-path my/own: replaces the configs of this program; --config-dir my/own adds your own to them"),
        (["--config-path", "/"],
         "--config-path, --config-name: replace the configs of this program; --config-dir FOLDER adds your own"),
        (["hydra.run.dri=x"], "hydra.run.dri: unknown key; did you mean hydra.run.dir?"),
        (["hydra.mode=x"], "hydra.mode: Invalid value 'x', expected one of [RUN, MULTIRUN]"),
        (["hydra=x"], "hydra: set one of its keys, such as hydra.run.dir"),
        (["hydra.launcher.n_jobs=2"],
         "hydra.launcher.n_jobs: the chosen option of hydra/launcher has no such key; hydra/launcher=NAME chooses"),
        (["hydra.job.env_set={A:1}"],
         "hydra.job.env_set: has not all of these keys; +hydra.job.env_set.NAME=VALUE adds one"),
        (["~model.foo"], "~model.foo: the config has no such key, or its value is null already; leave it out"),
        (["~trainer.early_stopping"],
         "~trainer.early_stopping: the config has no such key, or its value is null already; leave it out"),
        (["resume=d", "~trainer.early_stopping"], "~trainer.early_stopping: the config has no such key, or its value "
         "is null already; trainer.early_stopping=null changes the value of the run"),
        (["~hydra"], "~hydra: no option of this group is chosen"),
        (["~seed=3"], "~seed=3: the value is 0; ~seed deletes any"),
        ([""], "an argument is empty, as of an unset variable in the shell"),
        (["model..depth=14"], "model..depth=14: model..depth is not the name of a key, such as model.depth;"),
        (["trainer.epochs = 5"], "trainer.epochs = 5: has spaces around =; trainer.epochs=5 has none"),
        (["trainer.epochs", "=", "5"], "trainer.epochs: not key=value; a setting has no spaces around ="),
        (["optimizer.lr=${oc.env:RATE}"], 'optimizer.lr: the text "0.01" is not allowed; it takes a number above 0: '),
        (["optimizer.lr=${oc.env:NO_RATE}"], "optimizer.lr: the environment variable NO_RATE is not set; "
         "${oc.env:NO_RATE,VALUE} has a value without it: text, or a number with ${oc.decode:${oc.env:NO_RATE,VALUE}}"),
    ],
)  # fmt: skip
def test_lines_of_hydra_are_replaced_by_what_to_type(arguments, line, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATE", "0.01")
    monkeypatch.setattr(sys, "argv", ["resnet-train", *arguments])
    (tmp_path / "d").mkdir()
    (tmp_path / "d/config.yaml").touch()
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.parametrize(
    "override", ["optimizer.lr=${oc.decode:${oc.env:RATE}}", "optimizer.lr=${oc.decode:${oc.env:NO_RATE,0.01}}"]
)
def test_the_advised_reference_is_read_as_a_number(override, monkeypatch, capsys):
    monkeypatch.setenv("RATE", "0.01")
    assert run([override, "--cfg", "job", "-p", "optimizer.lr"]) == 0
    assert capsys.readouterr().out == "0.01\n"


def test_a_plus_before_a_key_that_exists_is_named(capsys):
    assert run(["+model.depth=14", "model=resnet8"]) == 2
    said = "the config has this key already; without +, model.depth=VALUE changes it"
    assert capsys.readouterr().err == f"error: +model.depth: {said}\n"


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("experiment/mine", "defaults: [override /model: resnet20]",
         "experiment/mine: override /model: needs the line `# @package _global_` at the start of the file"),
        ("experiment/mine", "# @package _global_\ndefaults: [override model: resnet20]",
         "experiment/mine: defaults: override model: other groups begin with a slash: override /model"),
        ("experiment/mine", "# @package _global_\ndefaults: [override /modle: resnet20]",
         "experiment/mine: defaults: override /modle: there is no such choice to replace; did you mean model?"),
        ("experiment/mine", "# @package _global_\ndefaults: [/model: resnet20]",
         "model: two files choose an option; a file that replaces the choice of another has the line "
         "`- override /model: NAME` in its defaults list"),
        ("experiment/mine", "# @package _global_\nhydra: {run: {dri: x}}",
         "experiment/mine: hydra.run.dri: unknown key; did you mean hydra.run.dir?"),
        ("experiment/mine", "# @package _global_\nmodel.depth: 20",
         "model.depth: unknown key; a file writes it in nested lines, model: {depth: ...}"),
        ("model/mine", "defaults: [resnet8]\nnorm_params.eps: 1",
         "model.norm_params.eps: unknown key; a file writes it in nested lines, model: {norm_params: {eps: ...}}"),
        ("model/mine", "defaults: [override /optimizer: adam, resnet8]",
         "model/mine: defaults: override /optimizer: only an experiment's file can choose options of other groups"),
    ],
)  # fmt: skip
def test_a_wrong_choice_in_a_file_is_named_with_the_file(file, content, line, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf" / f"{file}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert run([file.replace("/", "=")]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("arguments", [["--help", "model"], ["--hydra-help", "data=digits"]])
def test_overrides_beside_help_change_nothing(arguments, capsys):
    assert run(arguments) == 0
    assert capsys.readouterr().err == ""
