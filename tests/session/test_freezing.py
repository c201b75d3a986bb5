"""`trainer.freeze` from the command line: what stays, what is said, and what is refused."""

import re

import pytest
import torch

from resnet_cli.config.former_names import ADDED_SINCE_0_1_0
from resnet_cli.errors import InputError
from resnet_cli.schedules import RunLength
from resnet_cli.session.freezing import frozen_spans
from resnet_cli.training.freezing import FrozenSpan
from tests.support.runs import record_of, tiny
from tests.support.settings import settings_of


def model_in(file):
    return torch.load(file, weights_only=True)["state"]["model"]


def test_a_linear_probe_trains_the_head_alone(train, tmp_path):
    assert train(*tiny("hydra.run.dir=first", "trainer.epochs=1"))[0] == 0
    status, _, _ = train(*tiny("hydra.run.dir=probe", "init_from=first", "trainer.freeze=^(?!head)"))
    assert status == 0
    before, after = (model_in(tmp_path / run / "checkpoints/last.pt") for run in ("first", "probe"))
    start = model_in(tmp_path / "first/checkpoints/best.pt")
    assert {name for name in start if not torch.equal(start[name], after[name])} == {
        "head.linear.weight", "head.linear.bias",
    }  # fmt: skip
    assert before.keys() == after.keys()
    lines = [line for line in (tmp_path / "probe/train.log").read_text().splitlines() if "freeze" in line]
    assert len(lines) == 1
    assert "freeze  from step 0 on: ^(?!head) frozen, 195 of 74,835 parameters train" in lines[0]
    assert record_of(tmp_path / "probe")["parameters"] == 74_835, "frozen ones are the model's too"


def test_a_run_goes_on_with_the_same_key_and_not_with_another(train, tmp_path):
    arguments = tiny("hydra.run.dir=run", "resume=auto", "trainer.epochs=1")
    frozen = "trainer.freeze=[{match: stem, until: 50%}, {match: stages, at: 1 step}]"
    assert train(*arguments, frozen)[0] == 0
    status, _, err = train(*arguments, "trainer.freeze=stem")
    assert status == 2
    assert err.startswith("error: trainer.freeze: ")
    assert train("resume=run", "trainer.epochs=2")[0] == 0
    text = (tmp_path / "run/train.log").read_text()
    assert "freeze  from step 3 on: stages frozen" in text, "half of two epochs of three steps"


def test_a_longer_run_may_train_what_has_been_frozen_so_far(train, tmp_path):
    """Positions move with its length. torch's fused SGD takes a group in which all parameters have momentum or none."""
    freeze = "trainer.freeze=[{match: stem, until: 1 step}, {match: stem, at: 34%}]"
    assert train(*tiny("hydra.run.dir=run", "trainer.epochs=1", freeze))[0] == 0
    status, _, err = train("resume=run", "trainer.epochs=4")
    assert status == 0, err
    text = (tmp_path / "run/train.log").read_text()
    assert "freeze  from step 3 on: nothing frozen" in text, "from step 4 on, the stem is frozen again"
    assert "freeze  from step 4 on: stem frozen" in text


@pytest.mark.slow
def test_a_time_budget_places_the_spans_in_the_epochs_that_it_chooses(train, tmp_path):
    arguments = [a for a in tiny("hydra.run.dir=run") if not a.startswith("trainer.epochs")]
    assert train(*arguments, "trainer.time_budget=2 s", "trainer.freeze=[{match: stem, at: 50%}]")[0] == 0
    chosen = record_of(tmp_path / "run")["time_budget"]
    total = chosen["epochs"] * (chosen["steps_per_epoch"] or 3)  # a busy machine takes a step or two
    lines = [line for line in (tmp_path / "run/train.log").read_text().splitlines() if "freeze" in line]
    middle = int(re.search(r"from step (\d+) on: stem frozen", lines[-1])[1])
    assert middle in (total // 2, (total + 1) // 2), "half a step goes either way: 50 * (207 / 100) is below 103.5"
    assert len(lines) == 1 + (middle > 0), "measured steps are not said"


@pytest.mark.parametrize(
    ("freeze", "messages"),
    [
        ("^steam", ["trainer.freeze: '^steam' matches no parameter; the nearest are stem."]),
        ("stem|stages|head", ["trainer.freeze: with 'stem|stages|head' every parameter is frozen"]),
        ("(stem", ["trainer.freeze: '(stem' is not a regular expression"]),
        ("3", ["trainer.freeze: 3 is not allowed; it takes text or a list"]),
        ("[{match: stem, untl: 1}]", ["trainer.freeze[0]: unknown key untl; it takes match"]),
        ("''", ["trainer.freeze: "]),
        (
            "[{match: stem, at: 9}, {match: stem, at: 1, until: 1}, {match: stem, until: soon}]",
            [
                "trainer.freeze[0].at: 9 (step 27) is beyond the end of the run at step 6",
                "trainer.freeze[1]: nothing is frozen from at=1 (step 3) to until=1 (step 3)",
                "trainer.freeze[2].until='soon': it takes a number of epochs",
            ],
        ),
    ],
)
def test_what_cannot_be_frozen_is_said_and_nothing_is_made(train, tmp_path, freeze, messages):
    status, out, err = train(*tiny("hydra.run.dir=run"), f"trainer.freeze={freeze}")
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == len(messages), err
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


def test_positions_are_those_of_schedules():
    rules = [{"match": "a", "at": 0.5}, {"match": "b", "at": "4 steps", "until": "50%"}, "c"]
    found = frozen_spans({"freeze": rules}, RunLength(40, 10))
    assert found == [FrozenSpan("a", 5), FrozenSpan("b", 4, 20), FrozenSpan("c")]
    with pytest.raises(InputError, match="until has to come after at"):
        frozen_spans({"freeze": [{"match": "a", "at": 4}]}, RunLength(40, 10))
    (short,) = frozen_spans({"freeze": [{"match": "a", "until": "50%"}]}, RunLength(1, 1))
    assert not short.covers(0), "half a step is rounded to none"


def test_the_key_is_off_by_default_and_changes_no_hash():
    assert settings_of()["trainer"]["freeze"] is None
    assert ADDED_SINCE_0_1_0["trainer.freeze"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["trainer.freeze=head", "optimizer.head_lr=0.3"],
            "optimizer.head_lr=0.3 applies only to parameters that trainer.freeze freezes for the whole run",
        ),
        (
            ["trainer.freeze=stem", "+optimizer.groups.stem.lr=0.1"],
            "optimizer.groups: 'stem' matches only parameters that trainer.freeze freezes for the whole run",
        ),
        (["trainer.freeze=[{match:stem,until:1}]", "+optimizer.groups.stem.lr=0.1"], ""),
        (["trainer.freeze=stem", "optimizer.head_lr=0.3"], ""),
    ],
)
def test_options_of_parameters_that_never_train_are_refused(train, options, message):
    status, _, err = train(*tiny("model=resnet8", "model.width=4", "trainer.epochs=2", *options))
    assert (status, err) == ((2, f"error: {message}\n") if message else (0, ""))
