"""Problems are data; their lines come from one place."""

import pytest

from resnet_cli.config import validation
from resnet_cli.config.messages import TEMPLATES, Problem, naming
from resnet_cli.errors import InputError
from tests.support.settings import settings_of

# Every kind of problem and the line that the user sees.
LINES = [
    (Problem("model.depht", "unknown key", 20, allowed="depth, width", suggestion="model.depth"),
     "model.depht: unknown key; did you mean model.depth?"),
    (Problem("model.x", "unknown key", 20, allowed="depth, width"), "model.x: unknown key (allowed: depth, width)"),
    (Problem("data.augment.vflip", "unknown key with advice", reason="data.augment.transforms=[] does that"),
     "data.augment.vflip: unknown key; data.augment.transforms=[] does that"),
    (Problem("model.depth", "argument missing", allowed="a whole number"),
     "model.depth: missing; set model.depth=a whole number"),
    (Problem("trainer.precision", "not allowed", "fp17", allowed="one of fp32, fp16", suggestion="fp16"),
     "trainer.precision: fp17 is not allowed; it takes one of fp32, fp16; did you mean fp16?"),
    (Problem("optimizer.lr", "quoted value", "0.01", allowed="a number above 0"),
     'optimizer.lr: the text "0.01" is not allowed; it takes a number above 0: leave out the quotes, or read an '
     "environment variable NAME with 'optimizer.lr=${oc.decode:${oc.env:NAME}}'"),
    (Problem("data.root", "empty", "", allowed="text such as a path"),
     "data.root: is empty; it takes text such as a path"),
    (Problem("seed", "not allowed", True, allowed="a whole number"),
     "seed: true is not allowed; it takes a whole number"),
    (Problem("seed_order", "empty", allowed="a whole number"), "seed.order: is empty; it takes a whole number"),
    (Problem("data.root", "value missing"), "data.root: a value must be given (data.root=...)"),
    (Problem("model", "not a node", None),
     "model: null is not a node with _target_; choose an option of the group, model=..., or in the defaults list of a "
     "file, override /model: ..."),
    (Problem("model._target_", "not a dotted name", 3),
     "model._target_: 3 is not the dotted name of a class or function"),
    (Problem("model._target_", "not found", "a.Ne", suggestion="Net", reason="a has no 'Ne'"),
     "model._target_: a has no 'Ne'; did you mean Net?"),
    (Problem("model._target_", "size arguments missing", "os.system", allowed="in_size", reason="model"),
     "model._target_: os.system accepts none of in_size, unlike a model"),
    (Problem("optimizer", "no target"),
     "optimizer: has no _target_; a file of this group names the class or function to build"),
    (Problem("experiment", "experiment without package"),
     "experiment: sets top-level keys; start the experiment's file with the line `# @package _global_`"),
    (Problem("optimizer._target_", "wrong kind of class", "os.system", allowed="an optimizer: it takes no params"),
     "optimizer._target_: os.system is not an optimizer: it takes no params"),
    (Problem("model._target_", "import failed", "a.Net", reason="ValueError: x"),
     "model._target_: importing a.Net failed: ValueError: x"),
    (Problem("logger", "logger without name"),
     "logger: needs a name for each logger; start the group file with the line `# @package logger.<name>`"),
    (Problem("optimizer.lr", "changed since the run was saved", 0.2, stored=0.1),
     "optimizer.lr: 0.1 -> 0.2: changed since the run was saved"),
    (Problem("trainer.epochs", "conflicting keys", 3, allowed="trainer.time_budget", stored="1 h"),
     "trainer.epochs: 3 cannot be combined with trainer.time_budget=1 h, which determines it; give only one of them"),
    (Problem("model._target_", "untrusted", "a.Net"),
     "model._target_: a.Net is named only in a stored config and is not among the parts of resnet-cli, torch.nn, "
     "torch.optim, torchvision.models and torchvision.transforms that this key allows; if you trust it, pass "
     "model._target_=a.Net or trust=true (--trust of resnet-eval, resnet-predict and resnet-export)"),
    (Problem("teacher=run", "untrusted teacher", "a.Net"),
     "teacher=run: its config names a.Net, which is not part of resnet-cli, torch.nn or torchvision.models; if you "
     "trust it, pass trust=true"),
    (Problem("logger.wandb", "logger not selected", "wandb"),
     "logger.wandb: is not selected; choose it with logger=wandb"),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "line"), LINES, ids=[line for _, line in LINES])
def test_the_line_of_each_kind(problem, line):
    assert str(problem) == line


def test_every_kind_has_a_line_here():
    assert {problem.kind for problem, _ in LINES} == set(TEMPLATES)


def test_a_check_raises_the_problems_as_data_and_as_lines():
    settings = settings_of()
    settings["model"]["depht"] = 20
    settings["trainer"]["precision"] = "fp17"
    with pytest.raises(InputError) as raised:
        validation.check(settings)
    first, second = raised.value.details
    assert (first.key, first.kind, first.given, first.suggestion) == ("model.depht", "unknown key", 20, "model.depth")
    assert (second.key, second.kind, second.suggestion) == ("trainer.precision", "not allowed", "fp16")
    assert raised.value.problems == (str(first), str(second))
    assert str(raised.value) == f"{first}\n{second}"


@pytest.mark.parametrize(
    ("value", "problem", "line"),
    [
        ("run", "run: no such run folder", "teacher=run: no such run folder"),
        ("teacher", "teacher: no such run folder", "teacher=teacher: no such run folder"),
        ("run", "teacher=run: has other classes", "teacher=run: has other classes"),
        ("run", "its weights are missing", "teacher=run: its weights are missing"),
    ],
)
def test_problems_begin_with_the_key_and_the_value_that_the_user_named(value, problem, line):
    with pytest.raises(InputError) as caught, naming("teacher", value):
        raise InputError(problem)
    assert list(caught.value.problems) == [line]
