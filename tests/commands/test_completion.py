"""Completion of command lines: what is offered, the time that it takes, and bash, zsh and fish themselves."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from hydra._internal.utils import get_args_parser

from resnet_cli.commands import data, export, info, predict, report
from resnet_cli.commands import eval as eval_command
from resnet_cli.commands.completion import COMMANDS, TRAIN_FLAGS, answer, complete_line
from resnet_cli.commands.flag_names import COMPANIONS, companion_flags
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.hydra_app.argument_parser import build_parser

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")


def texts(line):
    return [item.text for item in complete_line(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("resnet-train trainer.precision=", [f"trainer.precision={name}" for name in PRECISIONS]),
        ("resnet-train trainer.precision=b", ["trainer.precision=bf16"]),
        ("resnet-train trainer.channels_last=", ["trainer.channels_last=true", "trainer.channels_last=false"]),
        ("resnet-train trainer.pre", ["trainer.precision="]),
        ("resnet-train model=resnet2", ["model=resnet20"]),
        ("resnet-train -m model=resnet20,resnet2", []),
        ("resnet-train -m model=resnet20,plain2", ["model=resnet20,plain20"]),
        ("resnet-train optimizer=adamw optimizer.bet", ["optimizer.betas="]),
        ("resnet-train optimizer.bet", []),
        ("resnet-train optimizer.lr=", ["optimizer.lr=0.1"]),
        ("resnet-train optimizer._target_=torch.optim.RMSprop optimizer.alph", ["optimizer.alpha="]),
        ("resnet-train data.augment.fl", ["data.augment.flip="]),
        ("resnet-train data.aug", ["data.augment."]),
        ("resnet-train experiment=airbench94 model.wid", ["model.widths="]),
        ("resnet-train experiment=airbench94_mu", ["experiment=airbench94_muon"]),
        ("resnet-train find=", ["find=lr", "find=batch_size", "find=null"]),
        ("resnet-train distillation.t", ["distillation.temperature="]),
        ("resnet-train seed.o", ["seed.order="]),
        ("resnet-train ~data.augm", ["~data.augment."]),
        ("resnet-train hydra/laun", ["hydra/launcher="]),
        ("resnet-train logger=wan", ["logger=wandb"]),
        ("resnet-train --cfg ", ["job", "hydra", "all"]),
        ("resnet-train --hyd", ["--hydra-help"]),
        ("resnet-eval run --split ", ["test", "val", "train"]),
        ("resnet-eval run --check", ["--checkpoint"]),
        ("resnet-predict run --reject-by p", ["probability"]),
        ("resnet-info --list mo", ["model"]),
        ("resnet-info --show model=resnet2", ["model=resnet20"]),
        ("resnet-info model=resnet20 data=cifar1", ["data=cifar10", "data=cifar100"]),
        ("resnet-train nothing.of.the.kind", []),
        ("resnet-train sorcery=", []),
    ],
)  # fmt: skip
def test_candidates(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert texts(line) == expected


def test_an_empty_word_offers_groups_and_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = texts("resnet-train ")
    assert {"model=", "model.", "trainer.", "seed=", "init_from=", "seed.init=", "experiment="} <= set(found)
    assert not any(text.startswith("seed_") for text in found)


def test_files_and_the_users_own_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("# Mine.\ndefaults: [cifar_resnet, _self_]\n")
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    assert texts("resnet-train model=mi") == ["model=mine"]
    assert "model.shortcut=" in texts("resnet-train model=mine model.")
    assert texts("resnet-train resume=r") == ["resume=runs/"]
    assert texts("resnet-report runs/") == ["runs/one/"]
    (tmp_path / "conf/model/broken.yaml").write_text("a: [")
    assert texts("resnet-train model=broken model.dep") == []


@pytest.mark.parametrize("name", COMPANIONS)
def test_flags_are_those_of_the_commands(name):
    module = {"info": info, "data": data, "eval": eval_command, "predict": predict, "export": export, "report": report}[
        name
    ]
    actions = {option: action for action in module._parser()._actions for option in action.option_strings}
    found = companion_flags(name)
    assert {flag for flag in found if flag.startswith("--")} == {o for o in actions if o.startswith("--")}
    for flag in found.values():
        if flag.name not in ("--help", "--version"):
            assert flag.takes_value == (actions[flag.name].nargs != 0), flag
            assert list(flag.choices) == list(actions[flag.name].choices or []), flag


def test_the_options_of_hydra_exist():
    known = {option for action in build_parser(get_args_parser)._actions for option in action.option_strings}
    assert set(TRAIN_FLAGS) <= known


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("resnet-train model=preact2", "preact20\n"),
        ("resnet-train resum", "resume=\nresume_force=\n"),
        ("resnet-eval s/opt", "s/optimizer.lr=0.05/\ns/optimizer.lr=0.1/\n"),
        ("resnet-eval s/optimizer.lr=0.0", "0.05/\n"),
        ("resnet-eval s/see", "s/seed=0/\n"),
        ("resnet-train resume=s/optimizer.lr=0.0", "0.05/\n"),
        ("resnet-train resume=s/see", "s/seed=0/\n"),
    ],
)
def test_bash_gets_what_follows_the_last_break_of_the_word(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("optimizer.lr=0.05", "optimizer.lr=0.1", "seed=0"):
        (tmp_path / "s" / name).mkdir(parents=True)
    monkeypatch.setenv("COMP_LINE", line)
    assert answer(["-sc", "query=bash"]) == expected


def test_what_is_left_to_hydra():
    assert answer(["-sc", "foo"]) is None
    assert answer(["-sc", "install=tcsh"]) is None
    assert answer(["-sc", "query=bash", "x"]) is None
    assert all(command in answer(["-sc", "uninstall=bash"]) for command in COMMANDS)


def test_neither_hydra_nor_torch_is_imported(tmp_path):
    code = (
        "import sys\nfrom resnet_cli.commands.train import run\nstatus = run(['-sc', 'query=fish'])\n"
        "assert status == 0 and not {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    best = 9.0
    for _ in range(3):  # the least of three, since other programs run too
        before = os.times()
        env = {**os.environ, "COMP_LINE": "resnet-train optimizer=muon trainer.precision="}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        after = os.times()
        assert (done.returncode, done.stderr) == (0, "")
        assert "trainer.precision=bf16\t" in done.stdout
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    assert best < 0.3  # seconds of the processor


@pytest.fixture
def commands(tmp_path):
    """A folder with all commands as scripts that start this Python; returns the environment with it in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COMMANDS:
        module = "resnet_cli" if name == "resnet-train" else f"resnet_cli.commands.{name.removeprefix('resnet-')}"
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (folder / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(CONFIG_FOLDER.parent),
        "TERM": "dumb",
    }


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish(commands, tmp_path):
    script = (
        "resnet-train -sc install=fish | source; complete -C 'resnet-train trainer.precision='; "
        "complete -C 'resnet-eval run --split t'; complete -C 'resnet-train model=resnet2'"
    )
    env = {**commands, "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert sorted(offered) == sorted(
        [
            *(f"trainer.precision={name}" for name in PRECISIONS),
            "test",
            "train",
            "model=resnet20",
        ]
    )


def type_into(shell, setup, lines, env, cwd):
    """What an interactive shell prints after it has been typed to."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execvpe(shell[0], shell, env)
    seen = b""

    def read_until(mark, seconds=20):
        nonlocal seen
        end = time.monotonic() + seconds
        while mark not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    seen += os.read(terminal, 65536)
                except OSError:
                    return

    os.write(terminal, f"{setup}; echo REA''DY\n".encode())
    read_until(b"READY")
    for number, line in enumerate(lines):
        os.write(terminal, line.encode() + b"\t")
        time.sleep(2)  # the shell asks
        os.write(terminal, f"\x01echo GOT{number}:\x05:\n".encode())
        read_until(f"\nGOT{number}:".encode())
        time.sleep(0.2)
    os.write(terminal, b"exit\n")
    read_until(b"never", seconds=1)
    os.close(terminal)
    os.waitpid(process, 0)
    return seen.decode(errors="replace").replace("\r", "")


@pytest.mark.slow
@pytest.mark.parametrize("shell", [["bash", "--norc", "--noprofile", "-i"], ["zsh", "-f", "-i"]], ids=["bash", "zsh"])
def test_bash_and_zsh(commands, tmp_path, shell):
    if not shutil.which(shell[0]):
        pytest.skip(f"needs {shell[0]}")
    setup = f'eval "$(resnet-train -sc install={shell[0]})"'
    lines = ["resnet-train trainer.precision=b", "resnet-train model=resnet20 trainer.prec", "resnet-eval --spl"]
    seen = type_into(shell, setup, lines, {**commands, "HOME": str(tmp_path)}, tmp_path)
    assert re.search(r"\nGOT0:resnet-train trainer.precision=bf16 ?:\n", seen)
    assert "\nGOT1:resnet-train model=resnet20 trainer.precision=:\n" in seen
    assert re.search(r"\nGOT2:resnet-eval --split ?:\n", seen)
