"""Freezing: what is frozen stays as it is bit for bit, costs no backward pass, and trains again when it is due."""

import copy
import itertools
import logging

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.optimizers import Muon
from resnet_cli.training.control import RunControl
from resnet_cli.training.freezing import Freezing, FrozenSpan, freeze_rules
from resnet_cli.training.measuring import measure
from tests.support.trainers import MemorySaver, assert_same, blobs, loader, weights

COMPILER_WARNINGS = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:torch", "ignore::DeprecationWarning:torch", "ignore::UserWarning:torch"
)
OPTIMIZERS = {
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, fused=True),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "muon": lambda p: Muon(p, lr=0.02, weight_decay=0.1, sgd_weight_decay=0.1, renormalise=True),
}
STEPS = 3  # of an epoch: 80 images in batches of 32


def net():
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    back = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential()
    model.add_module("front", front)
    model.add_module("back", back)
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)))
    return model


def make(*spans, optimizer="fused sgd", **options):
    model = net()
    chosen = OPTIMIZERS[optimizer](model.parameters())
    freezing = Freezing(model, spans) if spans else None
    return ClassifierTrainer(model, None, chosen, seed=1, epochs=3, freezing=freezing, **options)


def batches():
    return loader(blobs(count=80))


def states_of(trainer, saver=None):
    """The state after each step."""
    saver = saver or MemorySaver()
    trainer.checkpoint_every = 1
    trainer.fit(batches(), batches(), verbose=False, saver=saver)
    return saver.states


def frozen_part(state, prefix="front"):
    return {name: value for name, value in state["model"].items() if name.startswith(prefix)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_part_frozen_for_the_whole_run_stays_bit_for_bit_and_the_rest_trains(optimizer):
    trainer = make(FrozenSpan("^front"), optimizer=optimizer, averaging="ema", clip_norm=0.5)
    before = weights(trainer)
    states_of(trainer)
    after = weights(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("front"))
    assert not any(torch.equal(before[f"{name}"], after[name]) for name in before if name.endswith("weight") and
                   not name.startswith("front"))  # fmt: skip
    average = dict(zip([n for n, _ in trainer.model.named_parameters()], trainer.state.average.tensors, strict=False))
    assert torch.equal(average["front.0.weight"], before["front.0.weight"])
    assert not trainer.state.optimizer.state.get(trainer.model.front[0].weight)


def test_nothing_in_front_of_the_first_trained_layer_is_differentiated():
    trainer, seen = make(FrozenSpan("^front")), []
    trainer.model.front.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    trainer.model.back.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    trainer.train_batch(next(iter(batches())))
    assert seen == [False, True]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_timed_spans_freeze_and_thaw_at_their_steps(optimizer):
    trainer = make(
        FrozenSpan("^front", until=4), FrozenSpan("^back", at=2, until=7), optimizer=optimizer, clip_norm=0.5
    )
    states = [{"model": weights(trainer)}, *{state["step"]: state for state in states_of(trainer)}.values()]
    assert len(states) == 1 + 3 * STEPS
    order = {p: i for i, p in enumerate(p for group in trainer.state.optimizer.param_groups for p in group["params"])}
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        for part, frozen in (("front", step < 4), ("back", 2 <= step < 7), ("head", False)):
            a, b = frozen_part(before, part), frozen_part(after, part)
            changed = {name for name in a if not torch.equal(a[name], b[name])}
            assert changed == (set() if frozen else set(a)), (step, part)
            for parameter in getattr(trainer.model, part).parameters() if frozen and step else ():
                old, new = (s["optimizer"]["state"].get(order[parameter], {}) for s in (before, after))
                a, b = ({k: torch.as_tensor(v) for k, v in s.items() if v is not None} for s in (old, new))
                assert_same(a, b)


def test_the_first_step_after_thawing_is_that_of_a_new_momentum():
    """torch's fused SGD takes a group in which all parameters have momentum or none."""
    trainer = make(FrozenSpan("^front", until=2))
    loaded = list(batches())
    for batch in loaded[:2]:
        trainer.train_batch(batch)
    weight = trainer.model.front[0].weight
    before = weight.detach().clone()
    trainer.train_batch(loaded[2])
    gradient = weight.grad + 0.1 * before  # with weight decay
    torch.testing.assert_close(weight.detach(), before - 0.1 * 1.9 * gradient)  # Nesterov: g + 0.9 g


def test_batch_norm_keeps_its_statistics_where_its_parameters_or_they_are_frozen():
    def changed(pattern):
        trainer = make(FrozenSpan(pattern))
        before = weights(trainer)
        states_of(trainer)
        after = weights(trainer)
        return {name for name in before if "running" in name and not torch.equal(before[name], after[name])}

    everything = {f"{part}.1.running_{what}" for part in ("front", "back") for what in ("mean", "var")}
    assert changed("^front") == {name for name in everything if name.startswith("back")}
    assert changed("weight$") == everything, "the shifts of batch norm train, and so do its statistics"
    assert changed("running_mean") == set()
    assert changed("^(?!head)") == set()


def test_statistics_renewed_for_an_average_leave_frozen_ones_alone():
    trainer = make(FrozenSpan("^front"), averaging="swa", swa_start=1)
    before = weights(trainer)
    states_of(trainer)
    with trainer.state.evaluated_weights():
        averaged = weights(trainer)
    assert all(torch.equal(before[name], averaged[name]) for name in before if name.startswith("front"))
    assert not torch.equal(before["back.1.running_mean"], averaged["back.1.running_mean"])


def test_gradient_norms_list_what_trains_in_some_step():
    trainer = make(FrozenSpan("^front"), FrozenSpan("^back", until=STEPS), log_gradients=True)
    states_of(trainer)
    first, second, _ = (row["gradient_norms"] for row in trainer.state.rows)
    assert set(first) == {"back.0", "head.2"}
    assert first["back.0"] == 0 < second["back.0"]


SPANS = (FrozenSpan("^front", until=4), FrozenSpan("^back", at=2, until=7))


def stop_and_resume(make_one, step):
    saver = MemorySaver()
    polls = iter(range(1, 1000))
    control = RunControl(lambda: 15 if next(polls) >= step else None)
    with pytest.raises(StoppedError):
        make_one().fit(batches(), None, verbose=False, saver=saver, control=control)
    resumed, rest = make_one(), MemorySaver()
    resumed.state.load_state_dict(copy.deepcopy(saver.states[-1]))
    resumed.fit(batches(), None, verbose=False, saver=rest)
    return saver.states[-1], resumed, rest.states[-1]


def assert_same_end(whole, kept, resumed, rest):
    assert_same(weights(whole), weights(resumed))
    a, b = kept.states[-1], rest
    for row in (*a["rows"], *b["rows"]):
        row.pop("seconds", 0), row.pop("samples_per_second", 0)
    assert a["rows"] == b["rows"]
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for one, other in zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_stopped_at_any_step_ends_like_one_that_was_not(optimizer):
    def make_one():
        return make(*SPANS, optimizer=optimizer, averaging="ema", clip_norm=0.5, log_gradients=True)

    whole, kept = make_one(), MemorySaver()
    whole.fit(batches(), None, verbose=False, saver=kept)
    for step in range(1, 3 * STEPS):
        state, resumed, rest = stop_and_resume(make_one, step)
        assert state["step"] == step
        assert_same_end(whole, kept, resumed, rest)


def test_a_parameter_that_never_gets_a_gradient_has_no_momentum_after_a_resume_either():
    def make_one():
        model = net()
        model.head.register_parameter("unused", nn.Parameter(torch.ones(2)))
        optimizer = OPTIMIZERS["fused sgd"](model.parameters())
        freezing = Freezing(model, [FrozenSpan("^front")])
        return ClassifierTrainer(model, None, optimizer, seed=1, epochs=3, freezing=freezing)

    whole, kept = make_one(), MemorySaver()
    whole.fit(batches(), None, verbose=False, saver=kept)
    _, resumed, rest = stop_and_resume(make_one, 2)
    assert_same_end(whole, kept, resumed, rest)


def test_a_part_that_other_settings_froze_gets_a_momentum():
    """A resume with `trainer.freeze` changed: torch's fused SGD takes a group in which all have momentum or none."""
    before, after = make(FrozenSpan("^front")), make(FrozenSpan("^back"))
    before.train_batch(next(iter(batches())))
    after.state.load_state_dict(copy.deepcopy(before.state.state_dict()))
    after.state.freezing.is_changed = True
    after.train_batch(next(iter(batches())))
    weight = after.model.front[0].weight
    assert after.state.optimizer.state[weight]["momentum_buffer"] is not None


@pytest.fixture
def uncompiled(monkeypatch):
    """Steps are traced into graphs, which then run as they are."""
    torch._dynamo.reset()
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: compiled(*args, **options, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@COMPILER_WARNINGS
@pytest.mark.parametrize(("compile", "optimizer"), [("step", "fused sgd"), ("step", "muon"), ("model", "adamw")])
def test_compiled_steps_are_the_eager_ones_before_and_after_each_change(uncompiled, compile, optimizer):  # noqa: A002
    def run(mode):
        trainer = make(*SPANS, optimizer=optimizer, compile=mode, averaging="ema", clip_norm=0.5, log_gradients=True)
        trainer.model.head[1].p = 0.0  # compiled code draws other numbers
        return trainer, {state["step"]: state for state in states_of(trainer)}

    eager, (_, states) = run("off")[1], run(compile)
    for step, state in states.items():
        for name, value in state["model"].items():
            torch.testing.assert_close(value, eager[step]["model"][name], rtol=1e-4, atol=1e-5, msg=f"{step} {name}")
    for row, other in zip(states[9]["rows"], eager[9]["rows"], strict=True):
        assert row["gradient_norms"] == pytest.approx(other["gradient_norms"], rel=1e-3, abs=1e-6)


@pytest.mark.slow
@COMPILER_WARNINGS
@pytest.mark.parametrize(("optimizer", "steps"), [("fused sgd", (2, 4))])
def test_a_compiled_run_stopped_around_a_change_ends_like_one_that_was_not(uncompiled, optimizer, steps):
    def make_one():
        return make(*SPANS, optimizer=optimizer, compile="step", averaging="ema", log_gradients=True)

    whole, kept = make_one(), MemorySaver()
    whole.fit(batches(), None, verbose=False, saver=kept)
    for step in steps:
        state, resumed, rest = stop_and_resume(make_one, step)
        assert state["step"] == step
        assert_same_end(whole, kept, resumed, rest)


def test_each_change_is_one_line(caplog):
    caplog.set_level(logging.INFO, "resnet_cli")
    states_of(make(*SPANS))
    assert [line for line in caplog.messages if line.startswith("freeze")] == [
        "freeze  from step 0 on: ^front frozen, 75 of 119 parameters train",
        "freeze  from step 2 on: ^front, ^back frozen, 51 of 119 parameters train",
        "freeze  from step 4 on: ^back frozen, 95 of 119 parameters train",
        "freeze  from step 7 on: nothing frozen, 119 of 119 parameters train",
    ]


def test_measured_steps_freeze_what_never_trains_and_leave_no_trace(caplog):
    caplog.set_level(logging.INFO, "resnet_cli")
    trainer = make(FrozenSpan("^front"), FrozenSpan("^back", until=1))
    before, seen = weights(trainer), []
    trainer.model.back.register_forward_hook(
        lambda module, inputs, output: seen.append(output.requires_grad) if torch.is_grad_enabled() else None
    )
    measure(trainer, batches(), None, seconds=0.01)
    assert all(seen), "the steps of most of the run are timed"
    assert_same(before, weights(trainer))
    assert all(p.requires_grad for p in trainer.model.parameters()), "the parameters of the run are counted later"
    assert not any(line.startswith("freeze") for line in caplog.messages)
    states_of(trainer)
    assert not seen[len(seen) - 3 * STEPS * 1], "the first step of the run itself"


def test_parameters_that_do_not_train_anyway_are_left_alone():
    model = net()
    model.front[0].weight.requires_grad_(False)
    freezing = Freezing(model, [FrozenSpan("^front", until=2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert freezing.apply(0, optimizer)
    assert not freezing.apply(1, optimizer)
    assert freezing.apply(2, optimizer)
    assert [p.requires_grad for p in model.front.parameters()] == [False, True, True]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([FrozenSpan("^frond")], "'\\^frond' matches no parameter; the nearest are front"),
        ([FrozenSpan(".")], "every parameter is frozen"),
        (
            [FrozenSpan("^front"), FrozenSpan("back|head", at=5)],
            "'\\^front', 'back\\|head' every parameter is frozen from step 5 on",
        ),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(spans, message):
    with pytest.raises(InputError, match=message):
        Freezing(net(), spans)


def test_parts_frozen_in_turn_are_not_everything():
    Freezing(net(), [FrozenSpan("^front", until=3), FrozenSpan("back|head", at=3)])


def test_rules_are_a_pattern_or_a_list():
    assert freeze_rules(None) == []
    assert [rule.match for rule in freeze_rules("^stem")] == ["^stem"]
    first, second = freeze_rules(["a", {"match": "b", "at": 3, "until": "50%"}])
    assert (first.match, first.at, first.until) == ("a", None, None)
    assert (second.key, second.match, second.at, second.until) == ("trainer.freeze[1]", "b", 3, "50%")


def test_all_problems_of_the_rules_are_reported():
    with pytest.raises(InputError) as caught:
        freeze_rules(["(", {"at": 3}, {"match": "x", "untl": 3}, {"match": "stem"}])
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "trainer.freeze[0]: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        "trainer.freeze[1]: match is missing",
        "trainer.freeze[2]: unknown key untl",
    ]
