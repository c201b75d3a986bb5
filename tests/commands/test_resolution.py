"""`trainer.resolution` as a user gives it: what the log says, what is refused, and a time budget."""

import re

import pytest

from resnet_cli.commands.train.main import run as train
from tests.support.runs import record_of, rows_of, tiny

GROWING = ['trainer.resolution=[[0, 0.5], ["2 steps", 0.5], ["4 steps", 1]]', "trainer.resolution_multiple=2"]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def trained(folder, *arguments):
        options = [
            option for option in tiny(*arguments) if "time_budget" not in str(arguments) or "epochs" not in option
        ]
        return train([*options, f"hydra.run.dir={folder}"]), tmp_path / folder

    return trained


def test_the_log_says_from_which_step_on_images_have_which_size(trained):
    status, folder = trained("run", *GROWING)
    assert status == 0
    assert "sizes   4x4 from step 0, 6x6 from step 3, 8x8 from step 4\n" in (folder / "train.log").read_text()
    _, whole = trained("whole")
    assert rows_of(folder)[0]["train_loss"] != rows_of(whole)[0]["train_loss"]
    assert record_of(folder)["data"]["in_size"] == record_of(whole)["data"]["in_size"], "evaluation has whole images"


@pytest.mark.slow
def test_a_time_budget_lays_the_sizes_over_the_epochs_that_it_chooses(trained):
    status, folder = trained(
        "run", 'trainer.resolution=[[0, 0.5], ["50%", 1]]', GROWING[1], "trainer.time_budget=3 s"
    )  # fmt: skip
    assert status == 0
    record = record_of(folder)
    steps = record["time_budget"]["epochs"] * 3
    (last,) = re.findall(r"8x8 from step (\d+)\n", (folder / "train.log").read_text())
    assert int(last) <= steps / 2 + 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["trainer.resolution=[[0, 0.5], [9, 1]]"],
            r"trainer.resolution: 9 \(step 27\) is beyond the end of the run .*",
        ),
        (["trainer.resolution=[[0, 0.5], [soon, 1]]"], "trainer.resolution='soon': it takes a number of epochs .*"),
        (["trainer.resolution=[]"], r"trainer.resolution=\[\]: it takes at least one pair .*"),
        (["trainer.resolution=[[0, 2]]"], "trainer.resolution: .* is not allowed; it takes .*above 0 and at most 1.*"),
        (
            [*GROWING, "model=residual_mlp"],
            "trainer.resolution: ResidualMLP does not run on images of 3x4x4: .*; such a model needs one size .*",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(trained, capsys, arguments, words):
    status, folder = trained("run", *arguments)
    assert status == 2
    assert re.fullmatch(f"error: {words}", capsys.readouterr().err.strip())
    assert not folder.exists()
