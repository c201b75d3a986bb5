import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from resnet_cli.optimizers import Muon
from resnet_cli.training import dynamo
from resnet_cli.training.dynamo import CACHE, METHODS, step_optimizer, without_dynamo_import

LR = {"lr": 0.05}
OPTIMIZERS = {
    "sgd": lambda p: SGD(p, **LR, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd, fused": lambda p: SGD(p, **LR, momentum=0.9, fused=True),
    "adamw": lambda p: AdamW(p, **LR),
    "rmsprop": lambda p: torch.optim.RMSprop(p, **LR),
    "adagrad": lambda p: torch.optim.Adagrad(p, **LR),
    "muon": lambda p: Muon(p, **LR),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def fill_gradients(model):
    for i, parameter in enumerate(model.parameters(), 1):
        parameter.grad = torch.linspace(-1, i, parameter.numel()).view_as(parameter)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_optimizer(name):
    models = [net(), net()]
    plain, eager = (OPTIMIZERS[name](model.parameters()) for model in models)
    for _ in range(3):
        for model in models:
            fill_gradients(model)
        plain.step()
        step_optimizer(eager)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(models[0][0].weight, net()[0].weight)


def test_a_step_makes_no_graph_and_leaves_the_mode():
    model = net()
    fill_gradients(model)
    step_optimizer(SGD(model.parameters(), **LR, momentum=0.9))
    assert torch.is_grad_enabled()
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


def test_a_differentiable_step_keeps_its_graph():
    weight = torch.ones(3, requires_grad=True)
    moved = weight.clone()
    optimizer = SGD([moved.detach().requires_grad_()], **LR, differentiable=True)
    optimizer.param_groups[0]["params"] = [moved]
    moved.grad = weight * 2
    step_optimizer(optimizer)
    moved.sum().backward()
    assert torch.allclose(weight.grad, torch.full((3,), 1 - 2 * LR["lr"]))


def test_hooks_are_called():
    model, seen = net(), []
    optimizer = SGD(model.parameters(), **LR)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    step_optimizer(optimizer)
    assert seen == ["before", "after"]


def test_a_step_of_ones_own_is_left_alone():
    class Own(SGD):
        def step(self, closure=None):
            self.steps = getattr(self, "steps", 0) + 1
            super().step(closure)

    own = Own(net().parameters(), **LR)
    step_optimizer(own)
    assert own.steps == 1

    patched = SGD(net().parameters(), **LR)
    step_optimizer(patched)
    calls = []
    patched.step = lambda: calls.append("patched")
    step_optimizer(patched)
    assert calls == ["patched"]


def test_the_methods_are_as_torch_has_them_after():
    methods = [inspect.unwrap(getattr(Optimizer, name)) for name in METHODS]
    before = [copy.copy(vars(method)) for method in methods]
    with without_dynamo_import():
        assert all(hasattr(method, CACHE) for method in methods)
    assert [vars(method) for method in methods] == before


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"muon"}))  # Muon's step is not torch's
def test_step_of_torch_is_decorated_as_expected(name):
    """If this fails, torch has changed: runs are still right, and import the compiler."""
    assert dynamo._undecorated(type(OPTIMIZERS[name](net().parameters())).step) is not None


def test_step_and_methods_are_torchs_own_when_its_internals_change(monkeypatch):
    monkeypatch.setattr(dynamo, "METHODS", ("renamed",))
    monkeypatch.setattr(dynamo, "_undecorated", lambda method: None)
    models = [net(), net()]
    with without_dynamo_import():
        optimizers = [SGD(model.parameters(), **LR, momentum=0.9) for model in models]
        for model in models:
            fill_gradients(model)
        optimizers[0].step()
        step_optimizer(optimizers[1])
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert not torch.equal(models[0][0].weight, net()[0].weight)


RUNS = """
import sys
from resnet_cli.commands.train import run
quick = ["data=synthetic", "data.count=200", "data.test_count=8", "model=resnet8", "trainer.epochs=1"]
for more in [
    ["hydra.run.dir=one", "trainer.precision=bf16", "trainer.clip_norm=1", "trainer.averaging=ema"],
    ["hydra.run.dir=two", "optimizer=adamw"],
    ["-m", "hydra.sweep.dir=sweep", "optimizer=muon,rmsprop"],
]:
    assert run([*quick, *more]) == 0
assert run(["resume=one", "trainer.epochs=2"]) == 0
print([name for name in ("torch", "torch._dynamo", "torch._inductor") if name in sys.modules])
"""


@pytest.mark.slow
def test_runs_do_without_the_compiler(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["['torch']"], done.stdout + done.stderr


def test_the_compiler_is_reset_only_if_it_has_compiled(monkeypatch):
    resets = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    monkeypatch.setattr(torch._dynamo.utils, "counters", {})
    with dynamo.reset_compiler():
        pass
    assert resets == []
    monkeypatch.setattr(torch._dynamo.utils, "counters", {"frames": {"total": 1}})
    with pytest.raises(KeyError), dynamo.reset_compiler():
        raise KeyError
    assert resets == [1]
