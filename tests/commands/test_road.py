"""The road from the command to the training step: how many of the package's frames are on the stack."""

import sys
from pathlib import Path

import torch

import resnet_cli
from resnet_cli.commands.train import main
from tests.support.runs import tiny

PACKAGE = Path(resnet_cli.__file__).parent
MOST_TO_FIT = 7  # main, run, job.run, app.run, task, train, fit
MOST_TO_STEP = 10  # and those of the step, up to `train_step`


def own_frames():
    """Names of the package's functions on the stack, outermost first."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[::-1]


def test_the_road_from_main_to_the_training_step_is_short(tmp_path, monkeypatch):
    roads = []
    original = torch.nn.functional.cross_entropy

    def cross_entropy(*arguments, **options):
        roads.append(own_frames())
        return original(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", cross_entropy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["resnet-train", *tiny("trainer.epochs=1", "hydra.run.dir=d")])
    monkeypatch.setattr(sys.modules["resnet_cli.commands.train.main"], "exit_quickly", lambda status: None)
    main()
    road = next(road for road in roads if "train_step" in road)
    assert road[0] == "main"
    assert road.index("fit") + 1 <= MOST_TO_FIT, road
    assert road.index("train_step") + 1 <= MOST_TO_STEP, road
