"""Hints: the typed command without its mistakes, on a terminal alone."""

import sys

import pytest

from resnet_cli.errors import DivergedError, InputError
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.hydra_app.hints import command_name, hint_after_divergence, hint_for

WORDS = "; it takes one of auto, fp16; did you mean fp16?"


@pytest.mark.parametrize(
    ("problems", "arguments", "hint"),
    [
        (["epochs: unknown key; did you mean trainer.epochs?"], ["+epochs=3"], "resnet-train trainer.epochs=3"),
        (
            ["model.depht: unknown key; did you mean model.depth?", f"trainer.precision: fp17 is not allowed{WORDS}"],
            ["model.depht=8", "trainer.precision=fp17", "seed=1"],
            "resnet-train model.depth=8 trainer.precision=fp16 seed=1",
        ),
        (["model=resnet21: no such option; did you mean resnet20? (cnn)"], ["model=resnet21"],
         "resnet-train model=resnet20"),
        (["model=q: no such option (cnn)"], ["model=q"], "resnet-info --list model"),
        (["data.root: a value must be given (data.root=...)"], ["data=image_folder"],
         "resnet-train data=image_folder data.root=..."),
        (["seed: -1 is not allowed; it takes a whole number from 0"], ["seed=-1"], ""),
        (["a.b: unknown key; did you mean model.depth?"], ["experiment=mine"], ""),
        (["name: unknown key; did you mean names?"], ["name=two words"], "resnet-train 'names=two words'"),
    ],
)  # fmt: skip
def test_the_command_without_its_mistakes(problems, arguments, hint):
    assert hint_for(problems, "resnet-train", arguments) == hint


def test_a_run_that_diverged_is_told_how_to_find_a_rate():
    assert hint_after_divergence("resnet-train", ["optimizer.lr=9"]) == "resnet-train optimizer.lr=9 find=lr"
    assert hint_after_divergence("resnet-train", ["resume=run"]) == ""
    assert hint_after_divergence("resnet-train", ["-m", "seed=1,2"]) == ""


@pytest.mark.parametrize(
    ("path", "name"),
    [("/bin/resnet-eval", "resnet-eval"), ("x/resnet_cli/__main__.py", "resnet-train"),
     ("x/commands/info.py", "resnet-info"), ("x/commands/train/__main__.py", "resnet-train")],
)  # fmt: skip
def test_names_of_commands(path, name):
    assert command_name([path]) == name


def test_hints_are_for_terminals(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["resnet-train", "epochs=3"])
    monkeypatch.setenv("NO_COLOR", "1")
    error = InputError("epochs: unknown key; did you mean trainer.epochs?")
    lines = "error: epochs: unknown key; did you mean trainer.epochs?\n"
    assert (print_error(error), capsys.readouterr().err) == (2, lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert (print_error(error), capsys.readouterr().err) == (2, f"{lines}hint: resnet-train trainer.epochs=3\n")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert print_error(DivergedError("loss")) == 3
    assert capsys.readouterr().err.endswith("\x1b[36mhint:\x1b[0m resnet-train epochs=3 find=lr\n")
