"""Each example runs as its header says, uses public names only, and refuses a misspelt key of its own."""

import ast
import csv
import importlib
import re
import shlex
import shutil
import sys

import pytest
import torch

from resnet_cli.models import ArgMaxClassifier
from tests.support import tiers
from tests.support.public_names import PUBLIC
from tests.support.runs import record_of, rows_of

OWN = ["own_model", "own_data", "own_augmentation", "own_optimizer", "own_logger"]
QUICK = ["trainer.epochs=2", "data.count=120", "data.test_count=60"]  # of a run on the example's own data
SMALL = ["data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
         "data.batch_size=32", "trainer.epochs=1"]  # fmt: skip
MISSPELT = {
    "own_model": ["model=multiscale", "model.widht=8"],
    "own_data": ["data=shapes", "data.nois=0.3"],
    "own_augmentation": ["data=turned_shapes", "data.augment.shar=1"],
    "own_optimizer": ["optimizer=lion", "optimizer.beta=[0.9,0.9]"],
    "own_logger": ["logger=csv", "logger.csv.fil=x.csv"],
}


def files(repository):
    return sorted((repository / "examples").glob("*.py"))


def commands_of(path):
    """Arguments of every resnet-train line in a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return [shlex.split(line, comments=True) for line in re.findall(r"^ +resnet-train (.*)$", text, re.MULTILINE)]


@pytest.fixture
def examples(repository, tmp_path, monkeypatch):
    """A copy of the folder, in which the commands run."""
    folder = shutil.copytree(repository / "examples", tmp_path / "examples", ignore=lambda *_: ["__pycache__"])
    monkeypatch.syspath_prepend(folder)
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


@pytest.mark.parametrize("name", tiers.mostly_slow(OWN, every=5))
def test_example_runs_by_every_command_of_its_header(name, examples, train):
    commands = commands_of(examples / f"{name}.py")
    assert commands
    for number, arguments in enumerate(commands):
        if any("tensorboard" in argument for argument in arguments):
            pytest.importorskip("tensorboard")
        chosen = [argument for argument in arguments if argument.startswith("data")]
        quick = QUICK if any("shapes" in argument for argument in chosen) else SMALL
        status, _, err = train(*arguments, *quick, f"hydra.run.dir=run{number}", cwd=examples)
        assert (status, err) == (0, "")
        assert record_of(examples / f"run{number}")["status"] == "finished"


@pytest.mark.parametrize("name", OWN)
def test_example_refuses_a_misspelt_key_with_the_right_one(name, examples, train):
    status, out, err = train(*MISSPELT[name], cwd=examples)
    key, _, misspelt = MISSPELT[name][1].partition("=")[0].rpartition(".")
    assert (status, out) == (2, "")
    assert f"error: {key}.{misspelt}: " in err
    assert "did you mean" in err
    assert not (examples / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=multiscale", "model.kernel_sizes=[2]"], "model: kernel_sizes=[2]: each must be odd"),
        (["data=shapes", "data.image_size=4"], "image_size=4: shapes need at least 8 pixels"),
        (["data=turned_shapes", "data.augment.share=2"], "share=2.0: must be from 0 to 1"),
        (["optimizer=lion", "optimizer.betas=[0.9,1.5]"], "betas=[0.9, 1.5]: each must be from 0 to below 1"),
    ],
)
def test_value_error_of_an_example_is_one_line_for_the_user(arguments, message, examples, train):
    status, _, err = train(*arguments, cwd=examples)
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_plan_leaves_out_what_an_own_augmentation_does_not_take(examples, train, tmp_path, monkeypatch):
    monkeypatch.setenv("RESNET_CLI_CACHE", str(tmp_path / "cache"))
    status, _, err = train("plan=quick", "data=turned_shapes", "--cfg", "job", cwd=examples)
    assert status == 0
    assert "plan    model=" in err
    assert "data.augment." not in err


@pytest.mark.slow
def test_resumed_run_with_every_own_part_ends_like_one_that_was_not_stopped(examples, train):
    parts = ["model=multiscale", "model.width=4", "data=turned_shapes", "optimizer=lion", "logger=csv",
             "schedule=constant", *QUICK[1:]]  # fmt: skip
    targets = ["model._target_=own_model.MultiScale", "data._target_=own_data.shapes",
               "data.augment._target_=own_augmentation.QuarterTurns", "optimizer._target_=own_optimizer.Lion",
               "logger.csv._target_=own_logger.CSVLogger"]  # fmt: skip
    assert train(*parts, "hydra.run.dir=a", "trainer.epochs=2", cwd=examples)[0] == 0
    assert train(*parts, "hydra.run.dir=b", "trainer.epochs=1", cwd=examples)[0] == 0
    assert train("resume=b", "trainer.epochs=2", *targets, cwd=examples)[::2] == (0, "")
    assert rows_of(examples / "a") == rows_of(examples / "b")
    with (examples / "b" / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert [float(line["train_loss"]) for line in lines] == [row["train_loss"] for row in rows_of(examples / "a")]


def test_quarter_turns_are_turns_of_the_same_images(examples):
    augment = importlib.import_module("own_augmentation").QuarterTurns(share=0.5)
    images = torch.arange(64 * 9, dtype=torch.float32).view(64, 1, 3, 3)
    turned = augment.transform_pixels(
        images, torch.arange(64), epoch=0, seed=0, generator=torch.Generator().manual_seed(0)
    )
    matches = torch.stack([(turned == images.rot90(k, dims=(2, 3))).flatten(1).all(1) for k in range(4)])
    assert matches.sum(0).tolist() == [1] * 64
    assert matches[0].sum() > 32  # those that were not turned, and those turned by 0 degrees
    assert matches[1:].any(1).all()


@pytest.mark.parametrize(
    ("module", "arguments", "least"),
    tiers.mostly_slow([("train_in_python", [["--epochs", "2"]], 40), ("train_with_dataloader", [], 95)], every=2),
)
def test_program_trains(module, arguments, least, examples, capsys, monkeypatch):
    classify, modes = ArgMaxClassifier.classify, []

    def recorded(net, images):
        modes.append((net.training, torch.is_grad_enabled()))
        return classify(net, images)

    monkeypatch.setattr(ArgMaxClassifier, "classify", recorded)
    accuracy = importlib.import_module(module).main(*arguments)
    assert accuracy >= least
    assert "test accuracy" in capsys.readouterr().out
    assert modes == [(False, False)] * (module == "train_in_python"), "in evaluation mode, without gradients"


def test_examples_import_public_names_only(repository):
    found = 0
    for path in files(repository):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.startswith("resnet_cli")], path.name
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resnet_cli"):
                found += 1
                for alias in node.names:
                    assert alias.name in PUBLIC.get(node.module, ()), f"{path.name}: {node.module}.{alias.name}"
    assert found >= 6


def test_list_of_examples_names_each_file(repository):
    text = (repository / "examples" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`?([\w/.]+\.py)`?\]\(([\w/.]+)\)", text, re.MULTILINE)
    assert [name for name, _ in listed] == [link for _, link in listed]
    assert sorted(name for name, _ in listed) == [path.name for path in files(repository)]
