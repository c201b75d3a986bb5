"""What only a CUDA device can show: precision, the gradient scaler, random draws, and tensors on a second device."""

import copy

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.training.backend import Backend
from tests.support.trainers import assert_same, blobs, loader, make_trainer, net, weights

pytestmark = pytest.mark.cuda
CUDA = "cuda:0"


def train(device=CUDA, epochs=2, dropout=0.0, **options):
    trainer = make_trainer(net(dropout=dropout), device=device, seed=1, **options)
    trainer.fit(loader(), loader(), num_epochs=epochs, verbose=False)
    return trainer


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_layers_compute_in_half_precision_with_float32_weights(precision, dtype):
    seen = []
    model = net()
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer = make_trainer(model, device=CUDA, precision=precision, seed=1)
    trainer.fit(loader(), loader(), num_epochs=1, verbose=False)
    assert set(seen) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    plain = train(epochs=1, precision="fp32")
    assert trainer.state.rows[-1]["train_loss"] == pytest.approx(plain.state.rows[-1]["train_loss"], rel=0.02)


@pytest.mark.parametrize(("precision", "is_exact"), [("fp32", True), ("tf32", False)])
def test_tf32_rounds_products_and_fp32_does_not(precision, is_exact):
    torch.manual_seed(0)
    a, b = torch.randn(2, 512, 512, dtype=torch.float64)
    with Backend(torch.device(CUDA), precision).switches():
        product = a.to(CUDA, torch.float32) @ b.to(CUDA, torch.float32)
    error = (product.cpu().double() - a @ b).norm() / (a @ b).norm()
    assert error < 1e-6 if is_exact else 1e-5 < error < 1e-2


def test_devices_train_to_the_same_weights_up_to_rounding():
    a, b = train("cpu", precision="fp32"), train(precision="fp32")
    for name, value in weights(b).items():
        torch.testing.assert_close(value.cpu(), weights(a)[name], rtol=1e-3, atol=1e-5)


def test_float16_steps_that_overflow_change_nothing_but_the_scale():
    trainer = train(precision="fp16", averaging="ema")
    state, before, average = trainer.state, weights(trainer), [t.clone() for t in trainer.state.average.tensors]
    step, scale = state.step, state.scaler.get_scale()
    images, labels = next(iter(loader()))
    with trainer.backend.switches():
        trainer.stepper.run_step((images.to(CUDA) * 6e4, labels.to(CUDA)))
    assert_same(before, weights(trainer))
    assert all(torch.equal(a, b) for a, b in zip(average, state.average.tensors, strict=True))
    assert (state.step, state.scaler.get_scale()) == (step, scale / 2)
    with trainer.backend.switches():
        trainer.stepper.run_step((images.to(CUDA), labels.to(CUDA)))
    assert state.step == step + 1


def test_float16_overflow_in_the_first_step_leaves_no_momentum_of_fused_sgd_behind():
    model = net().to(CUDA)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    trainer = ClassifierTrainer(model, None, optimizer, CUDA, precision="fp16", seed=1)
    images, labels = next(iter(loader()))
    before = weights(trainer)
    trainer.train_batch((images * 6e4, labels))
    assert trainer.state.step == 0
    assert_same(before, weights(trainer))
    assert not any("momentum_buffer" in values for values in optimizer.state.values())
    trainer.train_batch((images, labels))
    assert trainer.state.step == 1
    for parameter in model.parameters():
        momentum = optimizer.state[parameter]["momentum_buffer"]
        torch.testing.assert_close(momentum, parameter.grad, msg="the momentum of the first step is its gradient")


def test_draws_are_those_of_the_seed_whatever_was_drawn_before():
    torch.cuda.manual_seed(5)
    first = train(dropout=0.5, deterministic=True)
    torch.cuda.manual_seed(6)
    torch.rand(7, device=CUDA)
    second = train(dropout=0.5, deterministic=True)
    assert_same(weights(first), weights(second))


@pytest.mark.parametrize("order", [(CUDA, "cpu"), ("cpu", CUDA)])
def test_a_state_is_continued_on_the_other_device(order):
    first = train(order[0], averaging="ema", precision="fp32")
    other = make_trainer(net(), device=order[1], seed=1, averaging="ema", precision="fp32")
    other.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
    other.fit(loader(), loader(), num_epochs=1, verbose=False)
    assert other.state.epoch == 3
    first.fit(loader(), loader(), num_epochs=1, verbose=False)
    for name, value in weights(other).items():
        torch.testing.assert_close(value.cpu(), weights(first)[name].cpu(), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("compile", ["off", "model", "step"])
def test_a_second_device_is_used_alone(compile):  # noqa: A002
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    other = torch.device("cuda", 1)
    torch.cuda.reset_peak_memory_stats(0)
    before = torch.cuda.max_memory_allocated(0)
    trainer = train(other, compile=compile, averaging="ema")
    state = trainer.state
    momenta = [value for values in state.optimizer.state.values() for value in values.values()]
    tensors = [*trainer.model.state_dict().values(), *state.average.tensors, *momenta]
    assert {tensor.device for tensor in tensors if isinstance(tensor, torch.Tensor)} == {other}
    assert torch.cuda.max_memory_allocated(0) == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning", "ignore::UserWarning:torch")
def test_recorded_steps_of_every_shape_and_in_evaluation_between():
    """A short last batch has a recording of its own; evaluation runs eagerly between the replays."""

    def losses(kind):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).to(CUDA)
        trainer = make_trainer(model, device=CUDA, compile=kind, seed=1, accumulate=2, averaging="ema")
        trainer.fit(loader(blobs(count=80)), loader(), num_epochs=3, verbose=False)
        return [row[key] for row in trainer.state.rows for key in ("train_loss", "val_loss")]

    torch.manual_seed(0)
    eager = losses("off")
    torch.manual_seed(0)
    assert losses("step") == pytest.approx(eager, rel=1e-2)
