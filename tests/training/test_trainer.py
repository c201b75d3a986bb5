"""ClassifierTrainer by hand, with ordinary PyTorch loaders, and the promises of its loop."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from resnet_cli import ClassifierTrainer
from resnet_cli.data import make_loaders, synthetic
from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import DivergedError, InputError, StoppedError
from resnet_cli.models import MLP, ArgMaxClassifier
from resnet_cli.schedules import multistep
from resnet_cli.seeding import random_state_kept, seed_everywhere
from resnet_cli.training.control import RunControl
from resnet_cli.training.finite_checks import require_finite_weights
from resnet_cli.training.gradient_scaler import GradientScaler
from resnet_cli.training.step import clip_gradients
from tests.support.small_nets import DrawingNet
from tests.support.trainers import (
    CountingLoss,
    MemorySaver,
    ScaledLoss,
    assert_same,
    blobs,
    loader,
    make_trainer,
    net,
    weights,
)


def test_by_hand_as_in_a_notebook():
    model = ArgMaxClassifier(MLP(in_dim=16, dims=[16, 3], nonlins=["relu", "none"]))
    flat = TensorDataset(blobs().tensors[0].flatten(1), blobs().tensors[1])
    trainer = ClassifierTrainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    result = trainer.fit(loader(flat), loader(flat), num_epochs=4, verbose=False)
    assert result.num_epochs == 4
    assert [len(x) for x in (result.train_loss, result.train_acc, result.test_loss, result.test_acc)] == [4] * 4
    assert result.train_loss[-1] < result.train_loss[0]
    assert 0 <= result.test_acc[-1] <= 100
    epoch = trainer.train_epoch(loader(flat), max_batches=2, verbose=False)
    assert len(epoch.losses) == 2
    test = trainer.test_epoch(loader(flat), verbose=False)
    assert len(test.losses) == 3
    again = trainer.fit(loader(flat), loader(flat), num_epochs=2, verbose=False)
    assert again.num_epochs == 2  # a number of epochs given by hand is that many more


def test_the_loss_of_a_test_epoch_counts_a_short_last_batch_by_its_images(caplog):
    trainer = make_trainer(net())
    with caplog.at_level("INFO"):
        losses = trainer.test_epoch(loader(blobs(33))).losses
    assert abs(losses[0] - losses[1]) > 0.002
    assert f"test loss {(32 * losses[0] + losses[1]) / 33:.4f}," in caplog.text


def test_an_epoch_is_the_plain_loop():
    """Losses, accuracies and weights equal a loop written out, bit for bit."""
    trainer = make_trainer(net(), loss_fn=nn.CrossEntropyLoss())
    plain = net()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    losses, correct = [], 0
    for images, labels in loader():
        optimizer.zero_grad()
        scores = plain(images)
        loss = nn.functional.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct += (scores.argmax(1) == labels).sum().item()
    result = trainer.train_epoch(loader(), verbose=False)
    assert result.losses == losses
    assert result.accuracy == pytest.approx(100 * correct / 96)
    assert_same(weights(trainer), plain.state_dict())


def test_evaluation_runs_under_the_run_s_switches():
    seen = []
    model = net()
    model.register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    make_trainer(model, deterministic=True).evaluate(loader())
    assert seen == [True] * 3
    assert not torch.are_deterministic_algorithms_enabled()


def test_evaluation_weighs_a_short_last_batch_by_its_count():
    trainer = make_trainer(net())
    dataset = blobs(count=50)
    scores = trainer.evaluate(loader(dataset, batch_size=32))
    whole = trainer.evaluate(loader(dataset, batch_size=50))
    assert scores.count == 50
    assert scores.loss == pytest.approx(whole.loss, rel=1e-6)
    assert scores.accuracy == pytest.approx(whole.accuracy)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_accumulation_gives_the_large_batch(clip_norm):
    a, b = (make_trainer(net(), accumulate=n, clip_norm=clip_norm) for n in (1, 4))
    for trainer in (a, b):
        trainer.train_epoch(loader(), verbose=False)
    for name, value in weights(a).items():
        torch.testing.assert_close(value, weights(b)[name], rtol=1e-5, atol=1e-6)


def test_accumulation_with_a_batch_that_does_not_divide():
    a, b = (make_trainer(net(), accumulate=n) for n in (1, 3))
    batch = next(iter(loader(batch_size=32)))
    assert a.train_batch(batch).loss == pytest.approx(b.train_batch(batch).loss, rel=1e-6)
    torch.testing.assert_close(weights(a)["1.weight"], weights(b)["1.weight"])


def test_clipping_bounds_the_step():
    trainer = make_trainer(net(), lr=1.0, clip_norm=0.01)
    before = weights(trainer)
    trainer.train_batch(next(iter(loader())))
    moved = torch.sqrt(sum((weights(trainer)[name] - before[name]).square().sum() for name in before))
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("norm", [1e-3, 0.7, 1e6])
@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.bfloat16, torch.float64]])
def test_clipping_is_that_of_torch(norm, dtypes):
    drawn = [torch.randn(3, i + 1).to(dtype) for i, dtype in enumerate(dtypes)]
    both = [[nn.Parameter(torch.zeros_like(value)) for value in drawn] for _ in range(2)]
    for parameters in both:
        for parameter, value in zip(parameters, drawn, strict=True):
            parameter.grad = value.clone()
    both[0].append(nn.Parameter(torch.zeros(2)))  # without a gradient
    clip_gradients(torch.optim.SGD(both[0], lr=1.0), norm)
    nn.utils.clip_grad_norm_(both[1], norm)
    for a, b in zip(*both, strict=False):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)


def test_label_smoothing_is_in_the_training_loss_only():
    plain, smooth = make_trainer(net()), make_trainer(net(), label_smoothing=0.2)
    batch = next(iter(loader()))
    assert plain.test_batch(batch).loss == smooth.test_batch(batch).loss
    assert plain.train_batch(batch).loss != smooth.train_batch(batch).loss
    with pytest.raises(ValueError, match="label_smoothing"):
        make_trainer(net(), loss_fn=nn.CrossEntropyLoss(), label_smoothing=0.1)
    smooth = make_trainer(net(), loss_fn=nn.CrossEntropyLoss(label_smoothing=0.2))
    assert smooth.test_batch(batch).loss == make_trainer(net()).test_batch(batch).loss


def test_a_loss_with_smoothing_is_evaluated_with_what_it_has_accumulated():
    losses = [ScaledLoss(), ScaledLoss()]
    losses[0].label_smoothing = 0.1
    found = []
    for loss in losses:
        trainer = make_trainer(net(), loss_fn=loss)
        trainer.train_epoch(loader(), verbose=False)
        found.append(trainer.test_batch(next(iter(loader()))).loss)
    assert losses[0].mean != 1
    assert found[0] == found[1]
    assert losses[0].label_smoothing == 0.1


def test_averages_are_what_is_evaluated_and_kept():
    trainer = make_trainer(net(), averaging="ema", averaging_decay=0.9)
    kept = MemorySaver()
    trainer.fit(loader(), loader(), num_epochs=2, verbose=False, saver=kept)
    own = weights(trainer)
    with trainer.state.average.applied():
        averaged = weights(trainer)
    assert_same(own, weights(trainer))
    assert not torch.equal(own["1.weight"], averaged["1.weight"])
    raw = make_trainer(net())
    raw.model.load_state_dict(averaged)
    assert raw.evaluate(loader()).loss == trainer.evaluate(loader()).loss


def test_the_average_is_the_recursion_written_out():
    trainer = make_trainer(net(), averaging="ema", averaging_decay=0.5)
    expected = trainer.model[1].weight.detach().clone()
    for step, batch in enumerate(loader(), start=1):
        trainer.train_batch(batch)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.model[1].weight.detach()
    torch.testing.assert_close(trainer.state.average.state_dict()["average"][0], expected)


def test_early_stopping_counts_epochs_without_a_better_accuracy():
    trainer = make_trainer(net(), lr=0.0, early_stopping=3, epochs=50)
    result = trainer.fit(loader(), loader(), verbose=False)
    assert result.num_epochs == 4  # the first is the best, then three without a better one


def test_more_epochs_after_an_early_stop_are_none_and_the_log_says_why(caplog):
    trainer = make_trainer(net(), lr=0.0, early_stopping=3, epochs=50)
    trainer.fit(loader(), loader(), verbose=False)
    assert not caplog.text
    with caplog.at_level("INFO"):
        assert trainer.fit(loader(), loader(), 5).num_epochs == 0
    assert caplog.messages == [
        "nothing to train: the run has stopped early, after 3 epochs without an improvement; early_stopping=0 "
        "continues it"
    ]
    assert trainer.fit(loader(), loader(), 1, early_stopping=0).num_epochs == 1


def test_the_schedule_scales_each_step():
    schedule = multistep(total_steps=6, steps_per_epoch=3, milestones=["2 steps", "4 steps"], gamma=0.1)
    trainer = make_trainer(net(), schedule=schedule)
    seen = []
    for _ in range(2):
        for batch in loader():
            trainer.train_batch(batch)
            seen.append(trainer.state.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_dropout_is_a_function_of_seed_epoch_and_batch():
    batch = next(iter(loader()))
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        trainer = make_trainer(net(dropout=0.5), seed=7)
        torch.manual_seed(noise)  # the global stream's position does not matter
        results.append(trainer.train_batch(batch).loss)
    other = make_trainer(net(dropout=0.5), seed=8).train_batch(batch).loss
    assert results[0] == results[1] != other


def test_draws_from_any_global_generator_are_functions_of_seed_epoch_and_batch():
    def trained(noise):
        seed_everywhere(0)
        trainer = make_trainer(DrawingNet((1, 4, 4), 3), seed=7)
        seed_everywhere(noise)  # the positions of the global streams do not matter
        for batch in loader():
            trainer.train_batch(batch)
        loss = trainer.evaluate_loader(loader(), None, RunControl()).loss
        return {**weights(trainer), "loss": torch.tensor(loss)}

    with random_state_kept():
        assert_same(trained(1), trained(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda trainer, batches: trainer.fit(batches, None, num_epochs=1, verbose=False),
        lambda trainer, batches: trainer.train_epoch(batches, verbose=False),
        lambda trainer, batches: trainer.train_batch(batches[0]),
    ],
    ids=["fit", "train_epoch", "train_batch"],
)
def test_a_trainer_s_seed_does_not_decide_what_the_caller_draws_next(call):
    batches = list(loader())

    def drawn(seed, callers_seed):
        seed_everywhere(callers_seed)
        found = []
        for _ in range(3):
            call(make_trainer(DrawingNet((1, 4, 4), 3), seed=seed), batches)
            found.append((torch.rand(()).item(), random.random(), np.random.rand()))
        return found

    with random_state_kept():
        found = drawn(7, callers_seed=0)
        assert [len(set(numbers)) for numbers in zip(*found, strict=True)] == [3, 3, 3]
        assert drawn(7, callers_seed=0) == drawn(8, callers_seed=0) == found
        others = drawn(7, callers_seed=1)
        assert not any(a == b for pair in zip(found, others, strict=True) for a, b in zip(*pair, strict=True))


class HalfMomentum(torch.optim.Optimizer):
    """SGD with momentum in bfloat16, and an integer that counts its steps."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["count"] = torch.zeros((), dtype=torch.int64)
                    state["momentum"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                state["count"] += 1
                state["momentum"].mul_(0.9).add_(parameter.grad)
                parameter.sub_(group["lr"] * state["momentum"])


def test_the_state_of_an_optimizer_keeps_its_types_when_it_is_loaded():
    trainers = [ClassifierTrainer(model, None, HalfMomentum(model.parameters())) for model in (net(), net())]
    batch = next(iter(loader()))
    trainers[0].train_batch(batch)
    trainers[1].state.load_state_dict(copy.deepcopy(trainers[0].state.state_dict()))
    for values in trainers[1].state.optimizer.state.values():
        assert {name: value.dtype for name, value in values.items()} == {
            "count": torch.int64,
            "momentum": torch.bfloat16,
        }
    for trainer in trainers:
        trainer.train_batch(batch)
    assert_same(*map(weights, trainers))


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
@pytest.mark.parametrize(
    "options", [{}, {"averaging": "ema"}, {"accumulate": 2, "clip_norm": 0.1}, {"log_gradients": True}]
)
def test_a_state_taken_anywhere_goes_on_to_the_same_end(stop_after, options):
    def make():
        schedule = multistep(total_steps=9, steps_per_epoch=3, milestones=["50%"])
        return make_trainer(net(dropout=0.3), seed=1, epochs=3, schedule=schedule, **options)

    whole, kept = make(), MemorySaver()
    whole.fit(loader(), loader(), verbose=False, saver=kept)

    stopped, saver = make(), MemorySaver()
    calls = iter(range(1, 1000))
    with pytest.raises(StoppedError):
        stopped.fit(
            loader(), loader(), verbose=False, saver=saver,
            control=RunControl(lambda: 15 if next(calls) >= stop_after else None),
        )  # fmt: skip
    resumed, rest = make(), MemorySaver()
    resumed.state.load_state_dict(saver.states[-1])
    resumed.fit(loader(), loader(), verbose=False, saver=rest)

    assert_same(weights(whole), weights(resumed))
    a, b = kept.states[-1], rest.states[-1]
    for state in (a, b):
        for row in state["rows"]:
            row.pop("seconds"), row.pop("samples_per_second")
    assert a["rows"] == b["rows"]
    assert a["best"] == b["best"]
    momenta = [s["optimizer"]["state"][0]["momentum_buffer"] for s in (a, b)]
    assert torch.equal(*momenta)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_the_update(bad):
    dataset = blobs()
    dataset.tensors[0][40] = bad  # in the second batch
    trainer = make_trainer(net())
    kept = MemorySaver()
    with pytest.raises(DivergedError, match=r"step 1 \(epoch 1, batch 2\).*optimizer\.lr"):
        trainer.fit(loader(dataset), None, num_epochs=1, verbose=False, saver=kept)
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert kept.states == []


def poisoned(where, bad, call):
    """A net in whose forward pass number `call` one number becomes `bad`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    calls = iter(range(1, 1000))

    def poison(module, inputs, scores):
        if next(calls) != call:
            return scores
        if where == "loss":
            return torch.cat([scores[:1] + bad, scores[1:]])
        if where == "buffer":
            model[1].running_mean.data[1] = bad  # unseen by autograd, as a kernel does it
        if where == "gradient":
            scores.register_hook(lambda gradient: gradient.masked_fill(gradient == gradient[0, 0], bad))
        return scores

    model.register_forward_hook(poison)
    return model


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16"}, {"clip_norm": 1.0}, {"accumulate": 2, "averaging": "ema"}, {"log_gradients": True}],
    ids=str,
)
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("loss", "the loss is"),
        ("gradient", r"the gradient of \S+ is not finite"),
        ("buffer", r"1\.running_mean is not"),
    ],
)
def test_nothing_non_finite_reaches_the_weights_or_a_save(where, words, options, bad):
    parts = options.get("accumulate", 1)
    trainer, kept = make_trainer(poisoned(where, bad, call=2 * parts + 1), checkpoint_every=1, **options), MemorySaver()
    with pytest.raises(DivergedError, match=rf"{words}.* at step 2 \(epoch 1, batch 3\)"):
        trainer.fit(loader(), None, num_epochs=1, verbose=False, saver=kept)
    good = kept.states[-1]
    assert (good["step"], len(kept.states)) == (2, 2)
    assert_same(good["model"] | dict(trainer.model.named_parameters()), good["model"])  # nothing moved
    assert all(torch.isfinite(value).all() for value in good["model"].values())
    again = make_trainer(poisoned(where, bad, call=0), **options)
    again.state.load_state_dict(good)
    again.fit(loader(), None, num_epochs=1, verbose=False)
    assert again.state.step == 3


def test_a_buffer_that_came_in_a_later_epoch_is_looked_at():
    trainer = make_trainer(net())
    trainer.fit(loader(), None, num_epochs=1, verbose=False)
    trainer.model.register_buffer("late", torch.tensor(math.nan))
    with pytest.raises(DivergedError, match="late is not finite"):
        trainer.fit(loader(), None, num_epochs=1, verbose=False)


def test_large_gradients_are_no_infinite_ones():
    """Their norm overflows in float32, they do not."""
    trainer = make_trainer(net(), lr=0.0, loss_fn=lambda scores, labels: 1e30 * scores.mean())
    trainer.train_batch(next(iter(loader())))
    assert trainer.state.step == 1


def test_an_infinite_validation_loss_ends_the_run():
    dataset = blobs()
    dataset.tensors[0][95] = math.nan
    kept = MemorySaver()
    with pytest.raises(DivergedError, match=r"the validation loss is nan at step 3"):
        make_trainer(net()).fit(loader(), loader(dataset), num_epochs=1, verbose=False, saver=kept)
    assert kept.bests == kept.states == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_refused(bad):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3))
    trainer = make_trainer(model, averaging="ema")
    trainer.train_batch(next(iter(loader())))
    state = trainer.state
    require_finite_weights(state)
    memory = state.optimizer.state[model[2].weight]["momentum_buffer"]
    for tensor, words in [
        (model[0].running_var, r"0\.running_var"), (model[2].weight, r"2\.weight"),
        (memory, "the optimizer's momentum_buffer of parameter 2"), (state.average.tensors[2], "average"),
    ]:  # fmt: skip
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.view(-1)[0] = bad
        with pytest.raises(DivergedError, match=words):
            require_finite_weights(state)
        with torch.no_grad():
            tensor.copy_(before)
    require_finite_weights(state)


def test_float16_keeps_its_scale_over_a_restart_and_leaves_gradients_to_it():
    def make():
        trainer = make_trainer(net(dropout=0.2), seed=1, epochs=3, averaging="ema", loss_fn=nn.CrossEntropyLoss())
        trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=3)
        return trainer

    def big():
        return loader(TensorDataset(1000 * blobs().tensors[0], blobs().tensors[1]))

    whole, kept = make(), MemorySaver()
    whole.fit(big(), big(), verbose=False, saver=kept)
    assert whole.state.step < 9, "some steps overflowed"
    for stop_after in (1, 2, 4, 8):
        stopped, saver = make(), MemorySaver()
        calls = iter(range(1, 1000))
        with pytest.raises(StoppedError):
            stopped.fit(
                big(), big(), verbose=False, saver=saver,
                control=RunControl(lambda calls=calls, last=stop_after: 15 * (next(calls) >= last)),
            )  # fmt: skip
        resumed, rest = make(), MemorySaver()
        resumed.state.load_state_dict(saver.states[-1])
        resumed.fit(big(), big(), verbose=False, saver=rest)
        assert_same(weights(whole), weights(resumed))
        assert rest.states[-1]["scaler"] == kept.states[-1]["scaler"]
        assert rest.states[-1]["step"] == kept.states[-1]["step"]


def test_overfitting_uses_the_same_batches_again():
    trainer = make_trainer(net(), overfit_batches=1, epochs=30)
    result = trainer.fit(loader(), loader(), verbose=False)
    assert result.train_acc[-1] > 95
    assert trainer.state.step == 30


def test_max_batches_limits_training_and_validation():
    trainer = make_trainer(net(), max_batches=2, epochs=1)
    trainer.fit(loader(), loader(), verbose=False)
    assert trainer.state.step == 2


def test_channels_last_and_its_default_give_the_same_losses():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    a, b = make_trainer(copy.deepcopy(model)), make_trainer(copy.deepcopy(model), channels_last=True)
    batch = next(iter(loader()))
    assert a.train_batch(batch).loss == pytest.approx(b.train_batch(batch).loss, rel=1e-5)


def test_bf16_keeps_the_loss_in_float32():
    trainer = make_trainer(net(), precision="bf16")
    reference = make_trainer(net())
    batch = next(iter(loader()))
    assert trainer.train_batch(batch).loss == pytest.approx(reference.train_batch(batch).loss, rel=0.02)
    assert trainer.model[1].weight.dtype == torch.float32


def test_float16_overflow_moves_neither_schedule_nor_average():
    trainer = make_trainer(net(), averaging="ema")
    trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = weights(trainer)
    images, labels = next(iter(loader()))
    batch = (1000 * images, labels)  # the first scaled gradients overflow
    trainer.train_batch(batch)
    assert trainer.state.step == 0
    assert_same(before, weights(trainer))
    assert torch.equal(trainer.state.average.state_dict()["average"][0], before["1.weight"])
    while trainer.state.step == 0:
        trainer.train_batch(batch)
    assert not torch.equal(before["1.weight"], weights(trainer)["1.weight"])


def test_float16_overflow_in_the_first_step_leaves_no_momentum_behind():
    images, labels = next(iter(loader()))
    ends = []
    for fused in (True, False):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5, fused=fused)
        trainer = ClassifierTrainer(model, None, optimizer)
        trainer.state.scaler = GradientScaler("cpu", init_scale=2.0**127)
        before = weights(trainer)
        trainer.train_batch((1000 * images, labels))
        assert trainer.state.step == 0
        assert_same(before, weights(trainer))
        assert not any("momentum_buffer" in values for values in optimizer.state.values())
        while trainer.state.step < 3:
            trainer.train_batch((1000 * images, labels))
        ends.append(weights(trainer))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name])


class SecondRank(Ranks):
    """The second of two ranks; all gradients of the first are 1."""

    rank, size = 1, 2

    def sum_(self, tensor):
        tensor.fill_(1)


def test_a_rank_without_images_may_take_the_first_step_in_float16():
    """As after a resume before the last batch of an epoch; torch creates the scale when it first scales a loss."""
    trainer = make_trainer(net())
    trainer.share_steps(SecondRank())
    trainer.state.scaler = scaler = GradientScaler("cpu")
    scaler.load_state_dict({**scaler.state_dict(), "scale": 8.0})
    before = weights(trainer)
    images, labels = next(iter(loader()))
    trainer.train_batch((images[:1], labels[:1]))
    assert trainer.state.step == 1
    assert scaler.get_scale() == 8
    torch.testing.assert_close(weights(trainer)["1.weight"], before["1.weight"] - 0.1 / 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning:torch")  # of its compiler
def test_compiled_equals_eager_up_to_rounding():
    a, b = make_trainer(net()), make_trainer(net(), compile="model")
    batch = next(iter(loader()))
    assert a.train_batch(batch).loss == pytest.approx(b.train_batch(batch).loss, rel=1e-5)


def test_the_scale_of_float16_is_read_from_the_device_once_a_step(monkeypatch):
    read, reads = torch.amp.GradScaler.get_scale, []
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda scaler: reads.append(read(scaler)) or reads[-1])
    trainer = make_trainer(net())
    assert isinstance(trainer.state.scaler, GradientScaler)
    trainer.state.scaler = scaler = GradientScaler("cpu", init_scale=2.0**127)
    images, labels = next(iter(loader()))
    for _ in range(16):
        trainer.train_batch((1000 * images, labels))  # the first scaled gradients overflow
    assert 0 < trainer.state.step < 16
    assert len(reads) == 1 + 16, "the first is that before the first step"
    scaler.load_state_dict({**scaler.state_dict(), "scale": 8.0})
    assert scaler.get_scale() == 8
    scaler.update(4.0)
    assert scaler.get_scale() == 4


def test_a_state_of_steps_recorded_on_cuda_is_trained_on_elsewhere():
    def make():
        model = net()
        return ClassifierTrainer(model, None, torch.optim.AdamW(model.parameters(), lr=0.01))

    trainer, resumed = make(), make()
    batch = next(iter(loader()))
    trainer.train_batch(batch)
    state = copy.deepcopy(trainer.state.state_dict())
    state["optimizer"]["param_groups"][0] |= {"capturable": True, "weight_decay": 0.5}  # as recorded steps make it
    resumed.state.load_state_dict(state)
    resumed.train_batch(batch)
    group = resumed.state.optimizer.param_groups[0]
    assert (group["capturable"], group["weight_decay"]) == (False, 0.5)


def norms_by_hand(model, images, labels):
    loss = nn.functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, [model[1].weight, model[4].weight])
    return [math.sqrt(gradient.square().sum().item()) for gradient in gradients]


@pytest.mark.parametrize("options", [{}, {"accumulate": 4, "clip_norm": 1e-3}, {"averaging": "ema"}])
def test_gradient_norms_are_the_means_over_the_steps_of_each_epoch(options):
    trainer = make_trainer(net(), log_gradients=True, epochs=2, **options)
    kept, expected = MemorySaver(), []
    twin = make_trainer(net(), **options)  # takes the same steps
    for _ in range(2):
        steps = []
        for images, labels in loader():
            steps.append(norms_by_hand(twin.model, images, labels))
            twin.train_batch((images, labels))
        expected.append([sum(column) / 3 for column in zip(*steps, strict=True)])
    trainer.fit(loader(), loader(), verbose=False, saver=kept)
    assert_same(weights(twin), weights(trainer))  # recording changes no step
    for row, means in zip(kept.written, expected, strict=True):
        assert list(row["gradient_norms"]) == ["1", "4"]
        assert list(row["gradient_norms"].values()) == pytest.approx(means, rel=1e-5)


def test_gradient_norms_are_not_recorded_unless_asked_for():
    kept = MemorySaver()
    make_trainer(net(), epochs=1).fit(loader(), loader(), verbose=False, saver=kept)
    assert "gradient_norms" not in kept.written[0]
    assert kept.states[-1]["gradients"] is None


def test_gradient_norms_of_float16_runs_are_unscaled_and_leave_overflows_out():
    trainer, reference = make_trainer(net(), log_gradients=True), net()
    trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    images, labels = next(iter(loader()))
    batch = (1000 * images, labels)  # the first scaled gradients overflow
    trainer.train_batch(batch)
    assert trainer.state.step == 0
    assert trainer.state.gradients.compute() == {"1": None, "4": None}
    while trainer.state.step == 0:
        trainer.train_batch(batch)
    expected = norms_by_hand(reference, *batch)
    assert [*trainer.state.gradients.compute().values()] == pytest.approx(expected, rel=1e-3)


def test_gradient_norms_of_layers_without_a_gradient_are_zero_or_absent():
    model = net()
    model.add_module("unused", nn.Linear(2, 2))
    model.forward = lambda images: model[4](model[3](model[2](model[1](model[0](images)))))
    trainer = make_trainer(model, log_gradients=True)
    model[1].requires_grad_(False)  # frozen after the trainer was made, as a data-dependent start may
    trainer.train_batch(next(iter(loader())))
    norms = trainer.state.gradients.compute()
    assert list(norms) == ["4", "unused"]
    assert norms["4"] > 0 == norms["unused"]


def test_a_state_from_before_gradient_norms_can_be_loaded():
    state = make_trainer(net()).state.state_dict()
    del state["gradients"]
    trainer = make_trainer(net(), log_gradients=True)
    trainer.state.load_state_dict(state)
    trainer.train_batch(next(iter(loader())))
    assert len(trainer.state.gradients.compute()) == 2


def test_gradient_norms_of_a_model_without_such_layers_are_none_at_all():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))
    trainer = make_trainer(model, log_gradients=True)
    trainer.train_batch(next(iter(loader())))
    assert trainer.state.gradients.compute() == {}


@pytest.mark.parametrize(("seconds", "every", "saves"), [(-1.0, None, 4), (300.0, None, 1), (-1.0, 2, 2)])
def test_saves_inside_an_epoch_by_the_clock_or_the_step(monkeypatch, seconds, every, saves):
    monkeypatch.setattr("resnet_cli.training.saving.SAVE_SECONDS", seconds)
    kept = MemorySaver()
    make_trainer(net(), epochs=1, checkpoint_every=every).fit(loader(), None, verbose=False, saver=kept)
    assert len(kept.states) == saves  # of an epoch of three steps, its end included


def test_memory_of_the_optimizer_follows_its_weights_layout():
    """A fused update goes through weight and momentum side by side and asks for no order: another one is wrong."""

    def trained(channels_last, steps, state=None, fused=True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=fused)
        trainer = ClassifierTrainer(net, None, sgd, channels_last=channels_last, seed=0)
        if state is not None:
            trainer.state.load_state_dict(state)
        batch = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 2
        for _ in range(steps):
            trainer.train_batch(batch)
        return trainer.state

    half = trained(True, 2)
    found = trained(False, 2, half.state_dict()).model.state_dict()
    expected = trained(False, 4, fused=False).model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_state_that_an_optimizer_makes_when_it_is_built_follows_the_model_to_its_memory_format():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.1)
    ClassifierTrainer(model, None, optimizer, channels_last=True)
    state = optimizer.state[model[0].weight]
    assert state["sum"].stride() == model[0].weight.stride() != torch.empty(4, 1, 3, 3).stride()
    assert (state["sum"] == 0.1).all()


class CountedLoader:
    """A loader that counts the batches that it yields."""

    def __init__(self):
        self.batches, self.yielded = list(loader()), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.yielded += 1
            yield batch


def test_steps_on_single_batches_belong_to_no_epoch_of_fit():
    trainer = make_trainer(net())
    trainer.train_batch(next(iter(loader())))
    batches = CountedLoader()
    trainer.fit(batches, None, num_epochs=1, verbose=False)
    assert (batches.yielded, trainer.state.step) == (3, 4)
    assert trainer.state.rows[0]["epoch"] == 1


def test_fit_after_an_interrupted_fit_begins_the_epoch_anew_with_any_loader():
    class Interrupted:
        def __iter__(self):
            yield from list(loader())[:2]
            raise KeyboardInterrupt

    trainer = make_trainer(net())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Interrupted(), None, num_epochs=1, verbose=False)
    larger = loader(batch_size=96)  # has a single batch
    expected = trainer.evaluate(larger)
    result = trainer.fit(larger, None, num_epochs=1, verbose=False)
    assert trainer.state.step == 2 + 1
    assert result.train_loss == pytest.approx([expected.loss])
    assert result.train_acc == pytest.approx([expected.accuracy])


def test_fit_after_an_interrupted_fit_continues_the_epoch_of_a_loader_of_this_package():
    calls = iter(range(1, 100))

    def loss_fn(logits, labels):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(logits, labels)

    data = synthetic(count=96, test_count=8, image_size=8, classes=3)
    own = make_loaders(data, device="cpu", seed=0, batch_size=32, val_fraction=0.0).train
    trainer = make_trainer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3)), loss_fn=loss_fn)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(own, None, num_epochs=1, verbose=False)
    trainer.fit(own, None, num_epochs=1, verbose=False)
    assert trainer.state.step == len(own) == 3


def test_fit_after_an_interrupted_epoch_by_hand_takes_all_batches():
    trainer = make_trainer(net())

    def interrupted():
        yield from list(loader())[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train_epoch(interrupted(), verbose=False)
    trainer.fit(loader(), None, num_epochs=1, verbose=False)
    assert trainer.state.step == 2 + 3


def test_a_step_on_a_single_batch_runs_under_the_switches_of_the_run():
    seen = []
    model = net()
    model.register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    make_trainer(model, deterministic=True).train_batch(next(iter(loader())))
    assert seen == [True]


@pytest.mark.parametrize("form", [lambda x, y: {"image": x, "label": y}, lambda x, y: [x, y, "name"]])
def test_every_method_takes_batches_in_every_form(form):
    trainer, batches = make_trainer(net()), [form(images, labels) for images, labels in loader()]
    scores = trainer.evaluate(batches)
    assert scores == trainer.evaluate(loader())
    assert trainer.test_batch(batches[0]) == trainer.test_batch(next(iter(loader())))
    trainer.train_batch(batches[0])
    assert trainer.fit(batches, batches, num_epochs=1, verbose=False).num_epochs == 1


def test_an_evaluation_without_batches_is_an_error():
    trainer, once = make_trainer(net()), iter(loader())
    assert trainer.evaluate(once).count == 96
    with pytest.raises(InputError, match="the loader has no batch"):
        trainer.evaluate(once)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"averaging": "EMA"}, "averaging='EMA': must be one of none, ema, swa, lookahead; did you mean ema?"),
        ({"precision": "bfloat16"}, "precision='bfloat16': must be one of auto, fp32, tf32, bf16, fp16; did you mean"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0: must be a number above 0"),
        ({"accumulate": 0, "max_batches": 0}, "accumulate=0: must be a whole number 1 or more"),
        ({"schedule": 0.1}, "schedule: a float is not a function of the step"),
    ],
)
def test_wrong_settings_are_refused(options, problem):
    with pytest.raises(InputError) as caught:
        make_trainer(net(), **options)
    assert caught.value.problems[0].startswith(problem)


@pytest.mark.parametrize("arguments", [{"num_epochs": -1}, {"max_batches": 0}, {"early_stopping": -1}])
def test_wrong_arguments_of_fit_are_refused(arguments):
    with pytest.raises(InputError, match=rf"^{next(iter(arguments))}="):
        make_trainer(net()).fit(loader(), loader(), **arguments)


def test_what_a_loss_accumulates_is_part_of_the_state():
    whole, first, rest = (make_trainer(net(), loss_fn=ScaledLoss()) for _ in range(3))
    expected = whole.fit(loader(), None, num_epochs=2, verbose=False)
    assert "loss" not in first.state.state_dict()
    first.fit(loader(), None, num_epochs=1, verbose=False)
    saved = copy.deepcopy(first.state.state_dict())
    assert list(saved["loss"]) == ["mean"]
    rest.state.load_state_dict(saved)
    assert rest.fit(loader(), None, num_epochs=1, verbose=False).train_loss == expected.train_loss[1:]
    other = make_trainer(net(), loss_fn=ScaledLoss(weight=2.0))
    other.state.load_state_dict(saved)
    assert other.state.loss.weight.tolist() == [2.0] * 3
    make_trainer(net()).state.load_state_dict(saved)  # a run that continues with another loss


class CountsEvaluations(nn.Module):
    """Scales logits by the number of its forward passes, in evaluation mode too; `replaces` makes new buffers."""

    def __init__(self, replaces):
        super().__init__()
        self.replaces = replaces
        self.register_buffer("passes", torch.ones(()))

    def forward(self, logits):
        if self.replaces:
            self.passes = self.passes + 1
        else:
            self.passes += 1
        return logits * (1 + 0.1 * self.passes.detach().clone())


@pytest.mark.parametrize("averaging", ["none", "swa"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_stop_after_the_steps_of_an_epoch_undoes_what_is_repeated(replaces, averaging):
    def make():
        model = nn.Sequential(*net(), CountsEvaluations(replaces))
        options = {"averaging": "swa", "swa_start": 1} if averaging == "swa" else {}
        return make_trainer(model, loss_fn=CountingLoss(), epochs=2, seed=1, log_sharpness=1, **options)

    def polls(trainer):  # in the validation and in the measurement of the sharpness after the first epoch
        begun = [0]

        def count():
            begun[0] += trainer.state.batches == 3
            return begun[0]

        return count

    whole = make()
    whole.fit(loader(), loader(), verbose=False)
    for stop_after in (2, 3, 5, 9):
        stopped, saver = make(), MemorySaver()
        count = polls(stopped)
        with pytest.raises(StoppedError):
            stopped.fit(
                loader(), loader(), verbose=False, saver=saver,
                control=RunControl(lambda count=count, last=stop_after: 15 * (count() >= last)),
            )  # fmt: skip
        resumed = make()
        resumed.state.load_state_dict(saver.states[-1])
        resumed.fit(loader(), loader(), verbose=False)
        assert_same(weights(whole), weights(resumed))
        assert_same(whole.state.loss_tensors, resumed.state.loss_tensors)
        keys = ("train_loss", "val_loss", "sharpness")
        assert [[row[key] for key in keys] for row in resumed.state.rows] == [
            [row[key] for key in keys] for row in whole.state.rows
        ]
        stopped.fit(loader(), loader(), verbose=False)
        assert_same(weights(whole), weights(stopped))


class MonteCarloDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


def test_draws_in_evaluation_are_those_of_the_seed_and_change_no_others():
    def make(seed, model=None):
        return make_trainer(model or nn.Sequential(*net(), MonteCarloDropout()), epochs=2, seed=seed)

    def losses(trainer):
        return [row["val_loss"] for row in trainer.state.rows]

    whole, stopped, saver = make(1), make(1), MemorySaver()
    whole.fit(loader(), loader(), verbose=False)
    polls = iter(range(1, 100))
    control = RunControl(lambda: 15 * (stopped.state.batches == 3 and next(polls) > 2))
    with pytest.raises(StoppedError):  # in the first validation
        stopped.fit(loader(), loader(), verbose=False, saver=saver, control=control)
    resumed = make(1)
    resumed.state.load_state_dict(saver.states[-1])
    torch.manual_seed(99)
    resumed.fit(loader(), loader(), verbose=False)
    assert losses(whole) == losses(resumed)
    assert losses(whole)[0] != losses(whole)[1]
    scores = [whole.evaluate(loader()).loss for _ in range(2)]
    assert scores[0] != scores[1], "evaluations outside of a run draw from the global random state"
    batches, (images, labels) = 3, next(iter(loader()))
    same = make(1, nn.Sequential(nn.Flatten(), nn.Linear(16, 3), MonteCarloDropout()))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    control = RunControl()
    each = [same.evaluate_loader([(images, labels)] * batches, limit, control).loss for limit in (1, 2)]
    assert torch.equal(torch.rand(3), expected), "the random state is restored"
    assert each[0] != each[1], "batches have draws of their own"
    unseeded = make(None)
    with_state = [unseeded.evaluate_loader(loader(), None, control).loss for _ in range(2)]
    assert with_state[0] != with_state[1]


def test_a_fit_after_a_state_within_single_steps_begins_an_epoch():
    trainer = make_trainer(net())
    for batch in loader():
        trainer.train_batch(batch)
    stored = copy.deepcopy(trainer.state.state_dict())
    again = make_trainer(net())
    again.state.load_state_dict(stored)
    result = again.fit(loader(), None, num_epochs=1, verbose=False)
    expected = trainer.fit(loader(), None, num_epochs=1, verbose=False)
    assert result.train_loss == expected.train_loss
    assert again.state.step == trainer.state.step == 2 * len(loader())
