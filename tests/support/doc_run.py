"""Running a command of the documentation in this process, cut to what takes a second."""

import contextlib
import importlib
import io
import re
import signal
import subprocess
import sys
import tomllib

from tests.support.doc_blocks import ROOT, parsed

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHORT = {
    "trainer.max_batches": "1", "trainer.epochs": "1", "data.batch_size": "8", "data.eval_batch_size": "8",
}  # fmt: skip
SHORTER = {  # where an argument begins so
    "model=torchvision": {"data.batch_size": "2", "data.eval_batch_size": "2"},
    "model=timm": {"data.batch_size": "2", "data.eval_batch_size": "2"},
    "data=cifar10": {"data.verify": "false"},
    "trainer.averaging=lookahead": {"trainer.epochs": "5"},  # as many steps as move the slow weights
    "trainer.freeze=[{match": {"trainer.epochs": "4"},  # what is frozen changes in the fourth epoch
    "experiment=": {"trainer.max_batches": "4", "data.batch_size": "16"},  # statistics of 56 layers settle
}
TINY = ["data=synthetic", "data.image_size=8", "data.count=64", "data.test_count=16", "data.classes=2"]
AS_TYPED = ("--cfg", "-sc", "--help", "--version", "find=", "reproduce=")
WAITING = ("--watch", "--serve")  # end with Ctrl-C


def shrunk(arguments):
    """Return the arguments of resnet-train with which it takes a second: one batch, and few values of a sweep."""
    if any(argument.startswith(AS_TYPED) for argument in arguments):
        return list(arguments)
    if "verify_resume=true" in arguments:
        return [*arguments, *TINY]
    is_resumed = any(re.match("resume=(?!auto)", argument) for argument in arguments)
    kept, swept = [], 0
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "trainer.epochs":
            value = "2" if is_resumed else "1"
        elif key == "trainer.time_budget":
            value = '"3 s"' if any(each.startswith("plan=") for each in arguments) else '"0.5 s"'
        elif key == "hydra.sweeper.n_trials":
            value = "3" if is_resumed else "2"
        elif key == "data.train_size" and int(value) > 1000:
            value = "30"
        elif "-m" in arguments and re.fullmatch(r"[\w./*-]+(,[\w./*-]+)+", value):
            value = ",".join(value.split(",")[: 1 if swept else 2])
            swept += 1
        kept.append(f"{key}={value}" if "=" in argument else argument)
    given = {argument.partition("=")[0].lstrip("+") for argument in kept}
    if "trainer.time_budget" in given or is_resumed:
        given.add("trainer.epochs")
    if "hydra/sweeper=optuna" in arguments:
        given.add("data.batch_size")
    if is_resumed:
        return kept
    short = dict(SHORT)
    for argument in arguments:
        short.update(next((keys for start, keys in SHORTER.items() if argument.startswith(start)), {}))
    return kept + [f"{key}={value}" for key, value in short.items() if key not in given]


def run(command):
    """Run a command, and return its exit status, what it printed, and what it printed as errors."""
    if command.program == "eval":
        (inner,) = parsed(re.fullmatch(r"\$\((.*)\)", command.arguments[0])[1])
        status, out, err = run(inner)
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)
        return status, out, err
    if command.program == "source":  # fish reads what is printed
        (inner,) = parsed(command.reads)
        return run(inner)
    given = subprocess.run(command.reads, shell=True, capture_output=True, text=True, check=True).stdout
    module = importlib.import_module(PROJECT["scripts"][command.program].partition(":")[0])
    arguments = list(command.arguments)
    if command.program == "resnet-train":
        module, arguments = importlib.import_module("resnet_cli.commands.train.main"), shrunk(arguments)
    out, err = io.StringIO(), io.StringIO()
    before, stdin = sys.argv, sys.stdin
    sys.argv, sys.stdin = [command.program, *arguments], io.TextIOWrapper(io.BytesIO(given.encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if any(argument in WAITING for argument in arguments):
                signal.signal(signal.SIGALRM, signal.default_int_handler)
                signal.setitimer(signal.ITIMER_REAL, 1)
            try:
                status = module.run(arguments)
            except SystemExit as ended:
                status = ended.code or 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.argv, sys.stdin = before, stdin
    return status, out.getvalue(), err.getvalue()
