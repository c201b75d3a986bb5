"""verify_resume: the comparison, and the proof itself through the command, on nets that resume exactly and one not."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_cli.config.run_config import RunConfig
from resnet_cli.session import verify
from resnet_cli.session.comparison import first_difference
from tests.support.runs import tiny

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.floats(width=32), max_size=4).map(torch.tensor),
)  # fmt: skip
NESTED = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


@given(NESTED)
def test_a_copy_does_not_differ(value):
    assert first_difference(value, copy.deepcopy(value)) is None


@given(NESTED, NESTED, LEAVES, LEAVES)
def test_one_changed_leaf_is_found(before, after, a, b):
    def around(leaf):
        return {"before": before, "in": [{"leaf": leaf}], "after": after}

    found = first_difference(around(a), around(b))
    same = type(a) is type(b) and (
        (a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes())
        if isinstance(a, torch.Tensor)
        else repr(a) == repr(b)
    )
    assert (found is None) == same
    assert same or found.startswith("in[0].leaf")


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(7.0)),
         "x[1, 2]: 0.0 != 7.0 (1 of 6 differ)"),
        (torch.tensor(1.0), torch.tensor(1.0 + 2**-23), "x: 1.0 != 1.0000001192092896 (1 of 1 differ)"),
        (torch.zeros(1), -torch.zeros(1), "x[0]: 0.0 != -0.0 (1 of 1 differ)"),
        (torch.zeros(1), torch.zeros(1).double(), "x: torch.float32 [1] != torch.float64 [1]"),
        (torch.zeros(1), torch.zeros(1, 1), "x: torch.float32 [1] != torch.float32 [1, 1]"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "x: keys ['a', 'b'] != ['b', 'a']"),
        ([1], [1, 2], "x: length 1 != 2"),
        (1, True, "x: 1 != True"),
        (1, 1.0, "x: 1 != 1.0"),
        (None, torch.zeros(2), "x: None != a tensor [2]"),
    ],
)  # fmt: skip
def test_differences_in_words(a, b, words):
    assert first_difference({"x": a}, {"x": b}) == words


@pytest.mark.parametrize(("device", "deterministic"), [("cpu", False), ("cuda:1", True), ("cuda:1", False)])
def test_reproducible_operations_are_suggested_where_they_have_to_be_asked_for(monkeypatch, device, deterministic):
    monkeypatch.setattr("resnet_cli.session.verify.resolve_device", torch.device)
    trainer = {"_target_": "resnet_cli.ClassifierTrainer", "device": device, "deterministic": deterministic}
    expected = "" if device == "cpu" or deterministic else "; on cuda, use trainer.deterministic=true"
    assert (
        verify._remedy(RunConfig(model={}, optimizer={}, schedule={}, data={}, trainer=trainer, name="x")) == expected
    )


def test_slow_weights_move_within_the_shortened_run():
    trainer = {"_target_": "resnet_cli.ClassifierTrainer", "averaging": "lookahead", "lookahead_k": 500}
    whole = RunConfig(model={}, optimizer={}, schedule={}, data={}, trainer=trainer, name="x")
    assert verify.shorten(whole).trainer["lookahead_k"] == 2


@pytest.mark.parametrize("value", [math.nan, torch.tensor([math.nan]), torch.zeros(0), torch.arange(4)[::2].view(2, 1)])
def test_equal_though_comparison_says_otherwise(value):
    assert first_difference([value], [copy.deepcopy(value)]) is None


STRANGE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, hidden: bool = True):
        super().__init__()
        numbers = in_size[0] * in_size[1] * in_size[2]
        self.layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(numbers, num_classes))
        self.calls = 0 if hidden else -10**9

    def forward(self, x):
        self.calls += self.training
        return self.layer(x) * (1 + max(self.calls, 0))
"""


@pytest.mark.slow
def test_a_run_is_proved_to_resume_and_leaves_nothing(train, tmp_path):
    status, out, err = train(
        *tiny(
            "verify_resume=true",
            "data.batch_size=16",
            "trainer.averaging=ema",
            "trainer.epochs=4",
            "schedule=cosine",
            "schedule.warmup=15 steps",  # of 24: more than the short run has
        )
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "verify  part 1: trained to the end without a stop"
    assert lines[1].startswith("verify  part 2: killed after step ")
    assert lines[2] == "verify  part 3: killed after step 6 (epoch 1, batch 6)"
    assert lines[-1].startswith("identical: ")
    assert lines[-1].endswith(f"killed after steps {', '.join(line.split()[6] for line in lines[1:-2])}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_net_that_remembers_elsewhere_is_found_out(train, tmp_path):
    (tmp_path / "strange_nets.py").write_text(STRANGE)
    arguments = tiny("verify_resume=true", "model._target_=strange_nets.Net", "data.batch_size=16")
    status, out, err = train(*arguments)
    assert status == 1
    assert err.startswith("error: not identical: last.model.layer.1.weight[0, 0]: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "identical" not in out
    assert {path.name for path in tmp_path.iterdir()} <= {"strange_nets.py", "__pycache__"}


@pytest.mark.slow
def test_errors_of_the_run_are_told_as_usual(train, tmp_path):
    status, _, err = train("verify_resume=true", *tiny("schedule.warmup=9000"))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: schedule.warmup=9000 is")
    status, _, err = train("verify_resume=true", *tiny("optimizer.lr=1e30", "data.batch_size=8", "schedule=constant"))
    assert (status, err.count("\n")) == (3, 1)
    assert "optimizer.lr" in err
    assert list(tmp_path.iterdir()) == []
