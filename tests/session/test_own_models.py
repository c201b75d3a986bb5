"""Runs with a model of the user's own that keeps data besides tensors: opened, continued, taken as a start."""

import hashlib
import json
import shutil
import sys

import pytest
import torch

from resnet_cli.commands import info
from resnet_cli.config import signatures
from resnet_cli.errors import InputError
from resnet_cli.evaluation.combined import average_weights
from resnet_cli.evaluation.members import Member
from resnet_cli.session import stored_code
from resnet_cli.session.trained import open_trained
from tests.support.runs import SLOW, tiny

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_size, num_classes):
        super().__init__()
        self.steps, self.head = 0, nn.Linear(in_size[0], num_classes)

    def forward(self, images):
        self.steps += self.training
        return self.head(images.mean(dim=(2, 3))) * (1 + 1 / (1 + self.steps))

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]
"""


@pytest.fixture
def run(train, tmp_path, monkeypatch):
    """A run `there/a`, and a process that has not imported its model yet and works in another folder."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there/ownextranets.py").write_text(NET)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(stored_code, "_folder_of", {})
    arguments = tiny("model._target_=ownextranets.Net", "hydra.run.dir=a")
    assert train(*arguments, cwd=tmp_path / "there")[0] == 0
    forget()
    sys.path[:] = [path for path in sys.path if path != str(tmp_path / "there")]
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "there/a"
    forget()


@pytest.fixture
def warnings(monkeypatch):
    """The warnings about code; not by `caplog`, since Hydra configures logging for each job."""
    lines = []
    monkeypatch.setattr(stored_code.logger, "warning", lambda text, *values: lines.append(text % values))
    return lines


def forget():
    sys.modules.pop("ownextranets", None)
    signatures.forget_signatures()


def steps_of(run, name):
    found = torch.load(run / f"checkpoints/{name}.pt", weights_only=True)["state"]
    return found["model"]["_extra_state"]["steps"]


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_its_run_is_opened_with_its_own_code_if_it_is_trusted(run, checkpoint):
    with pytest.raises(InputError, match=r"^model\._target_: ownextranets\.Net is named only in a stored config"):
        open_trained(str(run), checkpoint=checkpoint)
    opened = open_trained(str(run), checkpoint=checkpoint, trust=True)
    assert opened.model.steps == steps_of(run, checkpoint) > 0
    assert sys.modules["ownextranets"].__file__ == str(run / "code/modules/ownextranets.py")


def test_a_module_in_the_working_folder_is_preferred(run, tmp_path):
    shutil.move(tmp_path / "there/ownextranets.py", tmp_path)
    open_trained(str(run), trust=True)
    assert sys.modules["ownextranets"].__file__ == str(tmp_path / "ownextranets.py")


def test_its_run_is_resumed_and_taken_as_a_start(run, train, tmp_path):
    shutil.move(tmp_path / "there/ownextranets.py", tmp_path)
    status, out, err = train(f"resume={run}", "trainer.epochs=3", "trust=true")
    assert (status, err) == (0, "")
    assert "holds no weights" not in out
    assert steps_of(run, "last") == open_trained(str(run), checkpoint="last", trust=True).model.steps
    arguments = tiny("model._target_=ownextranets.Net", "hydra.run.dir=b", f"init_from={run}")
    assert train(*arguments)[::2] == (0, "")


def test_its_weights_are_averaged(run):
    opened = open_trained(str(run), trust=True)
    members = [Member(str(run), opened), Member(str(run), opened)]
    averaged = average_weights(members, opened.loaders())
    assert averaged.model.steps == opened.model.steps
    assert torch.equal(averaged.model.head.weight, opened.model.head.weight)


def test_a_changed_module_in_the_working_folder_is_reported(run, tmp_path, warnings):
    changed = tmp_path / "ownextranets.py"
    changed.write_text(NET.replace("1 + 1 /", "2 + 1 /"))
    open_trained(str(run), trust=True)
    assert warnings == [f"{run}: {changed}: not the code that the run was trained with, which is in {run / 'code'}"]


def test_a_run_that_was_resumed_with_other_code_is_opened_with_that_code(run, train, tmp_path):
    changed = tmp_path / "ownextranets.py"
    changed.write_text(NET.replace("1 + 1 /", "2 + 1 /"))
    assert train(f"resume={run}", "trainer.epochs=3", "trust=true")[0] == 0
    changed.unlink()
    forget()
    opened = open_trained(str(run), trust=True)
    assert sys.modules["ownextranets"].__file__ == str(run / "code/resume-1/modules/ownextranets.py")
    loader = opened.loaders().test
    right = [opened.model(images).argmax(1) == labels for images, labels in loader]
    recorded = json.loads((run / "run.json").read_text())["test"]["accuracy"]
    assert 100 * torch.cat(right).double().mean().item() == pytest.approx(recorded)


def test_runs_with_the_same_code_are_opened_together(run, tmp_path):
    shutil.copytree(run, tmp_path / "b")
    open_trained(str(run), trust=True)
    open_trained(str(tmp_path / "b"), trust=True)
    shutil.copytree(run, tmp_path / "c")
    module = tmp_path / "c/code/modules/ownextranets.py"
    module.write_text(module.read_text() + "# changed\n")
    with pytest.raises(InputError, match=r"already imported ownextranets from .*there/a/code/modules; open .*/c in a"):
        open_trained(str(tmp_path / "c"), trust=True)


def test_modules_that_lie_in_several_folders_are_those_of_the_start(run, warnings):
    """Versions up to 0.2.0 kept only the modules that had changed."""
    index = json.loads((run / "code/code.json").read_text())
    (run / "code/resume-1/modules").mkdir(parents=True)
    (run / "code/resume-1/modules/other.py").write_text("")
    index["files"]["modules/other.py"] = hashlib.sha256(b"").hexdigest()
    (run / "code/resume-1/code.json").write_text(json.dumps(index))
    open_trained(str(run), trust=True)
    assert sys.modules["ownextranets"].__file__ == str(run / "code/modules/ownextranets.py")
    line = f"{run / 'code'}: no folder has all of the code that the run was resumed with; using that of its start"
    assert warnings == [line]


def test_the_working_folder_is_searched_for_named_classes_alone(train, tmp_path, monkeypatch):
    """Packages that others import if they are there could lie in it, in the folder of somebody else's run."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    assert train("resume=a", "trainer.epochs=2")[0] == 0
    assert info.run(["a"]) == 0
    assert str(tmp_path) not in sys.path
    (tmp_path / "net_beside.py").write_text(SLOW)
    assert train(*tiny("model._target_=net_beside.Net", "model.slow=false", "trainer.epochs=1"))[0] == 0
    assert str(tmp_path) in sys.path
