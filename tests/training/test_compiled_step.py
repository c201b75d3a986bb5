"""The whole step compiled: the eager step's results, exact resume, nothing compiled after the warm-up, no trace of it.

Tests but one trace and differentiate the step as torch.compile does, and leave out the C++ compiler, which takes long.
"""

import copy
import logging
import math
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.errors import DivergedError, InputError, StoppedError
from resnet_cli.optimizers import CombinedOptimizer, Muon
from resnet_cli.schedules import multistep
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.control import RunControl
from resnet_cli.training.lookahead import LookaheadOptions
from tests.support import tiers
from tests.support.trainers import MemorySaver, assert_same, blobs, loader, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:torch", "ignore::DeprecationWarning:torch", "ignore::UserWarning:torch"
)
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": partial(torch.optim.SGD, lr=0.1),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "muon": partial(Muon, lr=0.02, renormalise=True, weight_decay=1e-3),
}


def several(params):
    """Return optimizers of all three kinds of parameters as one."""
    filters, scale, shift, *linear = params
    return CombinedOptimizer(
        [
            torch.optim.SGD([{"params": [scale]}, {"params": [shift], "lr": 0.2}], lr=0.1, momentum=0.9),
            Muon([filters], lr=0.02, renormalise=True),
            torch.optim.AdamW(linear, lr=0.01),
        ]
    )


OPTIMIZERS["several"] = several
OPTIONS = {"averaging": "ema", "averaging_decay": 0.9, "clip_norm": 0.5, "log_gradients": True}

AVERAGED = {"averaging": "swa", "swa_start": 1, "swa_lr": 0.05}
LOOKAHEAD = {"averaging": "lookahead", "lookahead": LookaheadOptions(k=2, final_alpha=0.2, buffers=True)}


def make(compile="step", optimizer="sgd", dropout=0.0, **options):  # noqa: A002
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 3)
    )
    schedule = multistep(total_steps=9, steps_per_epoch=3, milestones=["3 steps", "5 steps"], gamma=0.5)
    chosen = OPTIMIZERS[optimizer](net.parameters())
    return ClassifierTrainer(net, None, chosen, schedule=schedule, seed=1, epochs=3, compile=compile, **options)


def batches():
    """Three an epoch, the last of 16."""
    return loader(blobs(count=80))


@pytest.fixture
def uncompiled(monkeypatch):
    """Steps are traced into graphs, which then run as they are."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def losses(trainer):
    trainer.fit(batches(), batches(), verbose=False)
    return [value for row in trainer.state.rows for value in (row["train_loss"], row["val_loss"])]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_for_good_it_takes_the_eager_steps():
    torch._dynamo.reset()
    try:
        assert losses(make(**OPTIONS)) == pytest.approx(losses(make("off", **OPTIONS)), rel=1e-4)
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize(
    ("optimizer", "options"),
    tiers.mostly_slow(
        [
            *((name, OPTIONS) for name in OPTIMIZERS),
            ("sgd", {"precision": "bf16", "accumulate": 2}),
            ("sgd", AVERAGED),
            ("sgd", LOOKAHEAD),
        ],
        every=8,
    ),
    ids=[*OPTIMIZERS, "bf16", "averaged epochs", "lookahead"],
)
def test_losses_and_weights_are_those_of_eager_steps(uncompiled, optimizer, options):
    a, b = make("off", optimizer, **options), make("step", optimizer, **options)
    tolerance = 0.05 if "precision" in options else 1e-4
    assert losses(b) == pytest.approx(losses(a), rel=tolerance, abs=tolerance)
    for name, value in weights(a).items():
        torch.testing.assert_close(weights(b)[name], value, rtol=tolerance, atol=tolerance)
    for row, other in zip(a.state.rows, b.state.rows, strict=True):
        assert row["lr"] == other["lr"]
        if "gradient_norms" in row:
            assert other["gradient_norms"] == pytest.approx(row["gradient_norms"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "several"])
def test_nothing_is_compiled_after_the_warm_up(uncompiled, optimizer):
    trainer = make(optimizer=optimizer, dropout=0.2, **OPTIONS)
    with trainer.backend.switches():
        trainer.stepper.warm_up(EpochIterator(batches()).iterate_sizes(epoch=0))
    before = graphs()
    trainer.fit(batches(), batches(), verbose=False)
    assert graphs() == before
    assert trainer.state.step == 9
    assert trainer.stepper.warm_up([]) is False


@pytest.mark.slow
def test_what_was_loaded_is_warmed_up_for(uncompiled):
    """A recording goes on reading and writing the tensors that were there when it was made."""
    trainer = make()
    losses(trainer)
    batch = next(iter(batches()))
    assert trainer.stepper.warm_up([batch]) is False
    trainer.state.load_state_dict(copy.deepcopy(trainer.state.state_dict()))
    assert trainer.stepper.warm_up([batch]) is True


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "steps"), [("sgd", 0), ("adamw", 2), ("several", 2)])
def test_the_warm_up_leaves_no_trace(uncompiled, optimizer, steps):
    first = make(optimizer=optimizer, dropout=0.2, **OPTIONS)
    for batch in [*batches()][:steps]:
        first.train_batch(batch)
    trainer = make(optimizer=optimizer, dropout=0.2, **OPTIONS)
    trainer.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
    before, random = copy.deepcopy(trainer.state.state_dict()), torch.get_rng_state()
    with trainer.backend.switches():
        trainer.stepper.warm_up(EpochIterator(batches()).iterate_sizes(epoch=0))
    after = trainer.state.state_dict()
    assert torch.equal(random, torch.get_rng_state())
    assert_same(before["model"], after["model"])
    assert all(map(torch.equal, before["average"]["average"], after["average"]["average"]))
    assert before["optimizer"]["param_groups"] == after["optimizer"]["param_groups"]
    assert before["optimizer"]["state"].keys() == after["optimizer"]["state"].keys()
    for kept, now in zip(before["optimizer"]["state"].values(), after["optimizer"]["state"].values(), strict=True):
        for name, value in kept.items():
            assert torch.equal(now[name], value) if isinstance(value, torch.Tensor) else now[name] == value
    assert (after["step"], after["totals"]) == (before["step"], before["totals"])
    norms = before["gradients"]["sums"] or dict.fromkeys(after["gradients"]["sums"], 0.0)
    assert after["gradients"] == {"sums": norms, "steps": steps}


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "stop_after"), [("sgd", 1), ("adamw", 3), ("muon", 5)])
def test_a_state_taken_anywhere_goes_on_to_the_same_end(uncompiled, optimizer, stop_after):
    new = partial(make, optimizer=optimizer, dropout=0.3, **OPTIONS)
    whole, kept = new(), MemorySaver()
    whole.fit(batches(), batches(), verbose=False, saver=kept)
    stopped, saver = new(), MemorySaver()
    looks = iter(range(1, 1000))
    with pytest.raises(StoppedError):
        stopped.fit(
            batches(), batches(), verbose=False, saver=saver,
            control=RunControl(lambda: 15 if next(looks) >= stop_after else None),
        )  # fmt: skip
    resumed, rest = new(), MemorySaver()
    resumed.state.load_state_dict(saver.states[-1])
    resumed.fit(batches(), batches(), verbose=False, saver=rest)
    assert_same(weights(whole), weights(resumed))
    a, b = kept.states[-1], rest.states[-1]
    for row in (*a["rows"], *b["rows"]):
        row.pop("seconds"), row.pop("samples_per_second")
    assert a["rows"] == b["rows"]
    assert all(map(torch.equal, a["average"]["average"], b["average"]["average"]))


@pytest.mark.slow
def test_dropout_is_a_function_of_the_seed_also_when_compiled(uncompiled):
    a, b = make(dropout=0.5), make(dropout=0.5)
    torch.manual_seed(7)
    first = losses(a)
    torch.manual_seed(8)
    assert losses(b) == first


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_before_the_update(uncompiled):
    dataset = blobs()
    dataset.tensors[0][40] = math.nan  # in the second batch
    trainer = make()
    with pytest.raises(DivergedError, match=r"at step 1 \(epoch 1, batch 2\)"):
        trainer.fit(loader(dataset), None, num_epochs=1, verbose=False)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


@pytest.mark.slow
def test_the_warm_up_is_told_apart(uncompiled, caplog):
    caplog.set_level(logging.INFO, "resnet_cli")
    make().fit(batches(), None, num_epochs=1)
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("warm-up ") and line.endswith(" s")] == said[:1]


def test_impossible_combinations_are_refused_in_a_line(uncompiled, monkeypatch):
    monkeypatch.setattr("resnet_cli.training.trainer.GradientScaler", lambda *_, **__: torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match=r"compile=step: not supported with fp16.*trainer\.precision=bf16"):
        make()


def test_other_devices_are_refused(monkeypatch):
    monkeypatch.setattr("resnet_cli.training.backend.resolve_device", torch.device)
    with pytest.raises(ValueError, match="compile=step: not supported on meta"):
        make(device="meta")


class Reading(torch.optim.SGD):
    """An optimizer that no compiler can see through."""

    def step(self, closure=None):
        raise RuntimeError("this step\nis for nobody")


def test_an_optimizer_that_cannot_be_compiled_is_refused_in_a_line(uncompiled):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    trainer = ClassifierTrainer(net, None, Reading(net.parameters(), lr=0.1), compile="step")
    with pytest.raises(InputError, match=r"compile=step: Sequential with Reading .*this step; use") as refused:
        trainer.fit(batches(), None, num_epochs=1, verbose=False)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", [OPTIONS, LOOKAHEAD], ids=["ema", "lookahead"])
def test_recorded_steps_are_the_eager_ones(optimizer, options):
    a, b = (make(kind, optimizer, device="cuda", **options) for kind in ("off", "step"))
    assert losses(b) == pytest.approx(losses(a), rel=1e-2)
