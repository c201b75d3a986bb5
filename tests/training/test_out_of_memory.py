"""`on_oom=halve`: whichever operation of a step runs out of memory, the step is undone and repeated in halves."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_cli import ClassifierTrainer
from resnet_cli.session.comparison import first_difference
from resnet_cli.training.out_of_memory import HalvingStepper, is_out_of_memory
from resnet_cli.training.stepper import Stepper
from tests.support.trainers import CountingLoss, RunningMean, assert_same, blobs, net, weights


class FullMemory(TorchDispatchMode):
    """Raises an error at operation number `at`, and counts all operations."""

    def __init__(self, at, error=torch.OutOfMemoryError):
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.at:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return func(*args, **(kwargs or {}))


def normalised_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, foreach=False)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)


CASES = {
    "batch norm, Adam, averages, clipping, norms": (
        normalised_net, adam, {"averaging": "ema", "clip_norm": 0.5, "log_gradients": True},
    ),
    "lookahead": (normalised_net, sgd, {"averaging": "lookahead"}),
    "a loss with a state": (normalised_net, sgd, {"loss_fn": CountingLoss}),
    "a buffer that is replaced": (
        lambda: nn.Sequential(RunningMean(), *normalised_net()), sgd, {"averaging": "ema"},
    ),
    "scaled, as in fp16": (normalised_net, sgd, {"clip_norm": 0.5}),
    "accumulated": (lambda: net(dropout=0.2), adam, {"accumulate": 2}),
}  # fmt: skip


def make_trainer(case, **options):
    build, optimizer, others = CASES[case]
    model, options = build(), {"on_oom": "halve", **others, **options}
    loss_fn = options.pop("loss_fn", lambda: None)()
    trainer = ClassifierTrainer(model, loss_fn, optimizer(model), "cpu", seed=3, **options)
    if case.startswith("scaled"):
        trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    return trainer


IMAGES, LABELS = blobs(64).tensors


def batch(size=16):
    return IMAGES[:size], LABELS[:size]


def train(case, *, at, in_step, steps=6):
    """Train on one batch again and again; operation number `at` of step `in_step` runs out of memory."""
    trainer, memory = make_trainer(case), FullMemory(at)
    for step in range(steps):
        if step == in_step:
            images, labels = batch()
            with memory:
                trainer.stepper._take_step((images, labels))
            trainer.state.batches += 1
        else:
            trainer.stepper.run_step(batch())
    return trainer, memory.count


def everything(trainer):
    state = copy.deepcopy(trainer.state.state_dict())
    del state["totals"]  # the step above is taken without them
    return state


@pytest.mark.parametrize("in_step", [0, 4])
@pytest.mark.parametrize("case", CASES)
def test_no_part_of_a_step_that_ran_out_of_memory_remains(case, in_step):
    """All points are equal to the first operation, at which nothing has been done yet."""
    expected, _ = train(case, at=1, in_step=in_step)
    assert [item["step"] for item in expected.state.halvings] == [in_step + 1]
    _, operations = train(case, at=None, in_step=in_step)
    assert operations > 60
    for at in range(2 + in_step, operations + 1, 10):
        trainer, _ = train(case, at=at, in_step=in_step)
        assert first_difference(everything(expected), everything(trainer)) is None, at


def test_without_an_error_a_halving_trainer_trains_as_any_other():
    for case in CASES:
        results = []
        for on_oom in ("raise", "halve"):
            trainer = make_trainer(case, on_oom=on_oom)
            trainer.fit([batch(), batch(7)], None, 3, verbose=False)
            results.append(weights(trainer))
        assert_same(*results)


def test_the_effective_batch_stays_the_same():
    results = []
    for at in (None, 20):
        model = net()
        trainer = ClassifierTrainer(model, None, sgd(model), "cpu", seed=0, on_oom="halve")
        with FullMemory(at):
            trainer.stepper._take_step(batch())
        results.append(weights(trainer))
    assert trainer.state.micro_batch == 8
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value)


def test_halves_are_those_of_accumulate():
    model = normalised_net()
    whole = ClassifierTrainer(model, None, sgd(model), "cpu", seed=0, accumulate=2)
    whole.stepper._take_step(batch())
    model = normalised_net()
    halved = ClassifierTrainer(model, None, sgd(model), "cpu", seed=0, on_oom="halve")
    with FullMemory(30):
        halved.stepper._take_step(batch())
    assert_same(weights(whole), weights(halved))


class Limited(nn.Module):
    """A net for which memory holds `most` images."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most, self.sizes = inner, most, []

    def forward(self, images):
        if self.training and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes += [len(images)] * self.training
        return self.inner(images)


def limited(inner, most, **options):
    model = Limited(inner, most)
    return ClassifierTrainer(model, None, sgd(model), "cpu", seed=0, **options)


def test_it_halves_until_it_fits_and_later_batches_are_split_as_far_as_they_need(caplog):
    trainer = limited(net(), 5, on_oom="halve")
    with caplog.at_level("WARNING", logger="resnet_cli"):
        trainer.fit([batch(16), batch(4), batch(11)], None, 1, verbose=False)
    assert trainer.state.halvings == [{"epoch": 1, "step": 1, "micro_batch": size} for size in (8, 4)]
    assert trainer.model.sizes == [4, 4, 4, 4, 4, 4, 4, 3]
    assert len(caplog.messages) == 2
    assert "at most 4 images" in caplog.messages[1]
    assert "batch norm" not in caplog.messages[1]


def test_batch_norm_is_named_and_never_gets_a_single_image(caplog):
    trainer = limited(normalised_net(), 3, on_oom="halve")
    trainer.fit([batch(16), batch(7)], None, 1, verbose=False)
    assert min(trainer.model.sizes) >= 2
    assert all("batch norm normalises over these, so results differ" in message for message in caplog.messages)
    with pytest.raises(torch.OutOfMemoryError):
        limited(normalised_net(), 1, on_oom="halve").fit([batch(16)], None, 1, verbose=False)


def test_a_single_image_that_does_not_fit_is_an_error():
    trainer = limited(net(), 0, on_oom="halve")
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit([batch(4)], None, 1, verbose=False)
    assert trainer.state.step == 0


def test_by_default_the_error_ends_the_run():
    trainer = limited(net(), 5)
    assert type(trainer.stepper) is Stepper
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit([batch(16)], None, 1, verbose=False)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    trainer = make_trainer("lookahead")
    with FullMemory(30, ValueError), pytest.raises(ValueError, match="out of memory"):
        trainer.stepper._take_step(batch())
    assert not trainer.state.halvings


@pytest.mark.parametrize(
    "text",
    ["FIND was unable to find an engine to execute this computation", "Unable to find a valid cuDNN algorithm to run"],
)
def test_cudnn_without_memory_for_any_algorithm_is_out_of_memory(monkeypatch, text):
    failures = [0, 0]  # of allocations on each device
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(failures))
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": failures[device]})
    assert not is_out_of_memory(RuntimeError(text)), "cuDNN has no algorithm for this operation"
    failures[1] = 3
    assert is_out_of_memory(RuntimeError(text))


def test_it_does_not_go_with_recorded_steps():
    with pytest.raises(ValueError, match=r"trainer\.on_oom=halve: not supported with trainer\.compile=step"):
        make_trainer("lookahead", compile="step")


@pytest.mark.slow
def test_it_goes_with_a_compiled_model():
    trainer = make_trainer("accumulated", compile="model")
    assert type(trainer.stepper) is HalvingStepper
    real, calls = trainer.stepper.options.loss_fn, []

    def loss_fn(logits, labels):
        calls.append(len(logits))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(logits, labels)

    object.__setattr__(trainer.stepper.options, "loss_fn", loss_fn)
    trainer.fit([batch()], None, 2, verbose=False)
    assert trainer.state.micro_batch == 4
    assert calls == [8, 8, 4, 4, 4, 4, 4, 4, 4, 4]
