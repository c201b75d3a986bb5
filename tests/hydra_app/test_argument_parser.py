"""Hydra parses the given arguments; `sys.argv` and `argparse` stay as they are for the code that a run executes."""

import argparse
import sys
from pathlib import Path

import hydra
import pytest

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import argument_parser, compat
from resnet_cli.hydra_app.argument_parser import PARSE_METHODS, hydra_arguments_replaced
from tests.support.runs import tiny

NET = """
import argparse, sys
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--blur", type=int, default=3)
known, unknown = parser.parse_known_args()

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, arguments="--blur=4"):
        super().__init__()
        self.blur = parser.parse_args(arguments.split()).blur
        self.head = torch.nn.Linear(in_size[0] * in_size[1] * in_size[2], num_classes)
        with open("seen.txt", "w") as file:
            print(self.blur, *sys.argv[1:], file=file)

    def forward(self, x):
        return self.head(x.flatten(1))
"""


@pytest.fixture
def user_model(tmp_path, monkeypatch):
    """The overrides of a run whose model parses options of its own."""
    monkeypatch.delitem(sys.modules, "parsing_net", raising=False)
    (tmp_path / "parsing_net.py").write_text(NET)
    run = [argument for argument in tiny("trainer.epochs=1", "hydra.run.dir=d") if not argument.startswith("model")]
    return [*run, "model._target_=parsing_net.Net"]


def test_user_model_sees_the_arguments_as_typed(train, user_model, tmp_path):
    status, _, err = train(*user_model)
    assert (status, err) == (0, "")
    assert (tmp_path / "seen.txt").read_text().split() == ["4", *user_model]
    assert not any(argument.startswith("++") for argument in sys.argv)


def test_user_model_gets_its_own_argparse_errors(train, user_model, tmp_path):
    status, _, err = train(*user_model, 'model.arguments="--blur=x"')
    assert status == 2
    assert "usage: " in err
    assert "argument --blur: invalid int value: 'x'" in err
    assert "--hydra-help" not in err


def run_hydra(*arguments):
    """Parse with Hydra's parser and return the task's config."""
    found = []
    with hydra_arguments_replaced(arguments):
        hydra.main(config_path=str(CONFIG_FOLDER), config_name="train", **compat.main_options())(found.append)()
    return found


def test_hydra_parses_the_given_arguments_and_not_sys_argv(monkeypatch, capsys):
    argv = ["resnet-train", "--nonsense"]
    monkeypatch.setattr(sys, "argv", argv)
    before = {name: getattr(argparse.ArgumentParser, name) for name in (*PARSE_METHODS, "error", "add_argument")}
    run_hydra("--cfg", "job", "--package", "optimizer")
    assert "torch.optim.SGD" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"unrecognized arguments: --wrong \(--hydra-help lists the options\)"):
        run_hydra("--wrong")
    assert sys.argv == ["resnet-train", "--nonsense"]
    assert before == {name: getattr(argparse.ArgumentParser, name) for name in before}


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        ("--epochs", "; settings have no dashes: trainer.epochs=VALUE"),
        ("--epoch=5", "; settings have no dashes: trainer.epochs=5"),
        ("--learning-rate=0.1", "; settings have no dashes: optimizer.lr=0.1"),
        ("--model", "; settings have no dashes: model=VALUE"),
        ("--gpus", ""),
        ("-x", ""),
    ],
)
def test_a_flag_that_is_named_like_a_key_is_answered_by_the_key(flag, advice):
    with pytest.raises(InputError) as raised:
        run_hydra(flag)
    assert str(raised.value) == f"unrecognized arguments: {flag}{advice} (--hydra-help lists the options)"


@pytest.mark.parametrize(
    ("flags", "option"),
    [(["--multi"], "--multirun"), (["--config-d", "folder"], "--config-dir"), (["--info=all", "--cf=job"], "--cfg")],
)
def test_an_abbreviated_option_is_refused(flags, option):
    """`hydra_arguments` would read `--multi data.root=a,b` as one path, and `folder` as an override."""
    with pytest.raises(InputError, match=rf"unrecognized arguments: .*; did you mean {option}\?"):
        run_hydra(*flags)


def test_hydra_has_the_function_that_is_replaced_and_parses_with_one_of_the_methods():
    module = sys.modules["hydra.main"]
    original = module.get_args_parser
    with hydra_arguments_replaced([]):
        assert module.get_args_parser is not original
    assert module.get_args_parser is original
    assert isinstance(argument_parser.build_parser(original), argparse.ArgumentParser)
    assert any(f".{name}()" in Path(module.__file__).read_text(encoding="utf-8") for name in PARSE_METHODS)


def test_help_that_is_no_text_is_replaced_while_the_parser_is_built(monkeypatch):
    """Python 3.14 formats each help text when an option is added, and Hydra 1.3 passes an object."""

    class Lazy:
        def __repr__(self):
            return "help"

    def get_args_parser():
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--lazy", help=Lazy())
        return parser

    before = argparse.ArgumentParser.add_argument
    monkeypatch.setattr(argument_parser.sys, "version_info", (3, 14))
    parser = argument_parser.build_parser(get_args_parser)
    assert "shell completion" in parser.format_help()
    assert argparse.ArgumentParser.add_argument is before
