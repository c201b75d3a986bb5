"""Numbers that overflow somewhere end with a line that names their key, not with a traceback."""

import pytest
import torch

from resnet_cli.config.ranges import TimeSpan
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.optimizers.groups import parameter_groups
from resnet_cli.schedules import RunLength
from resnet_cli.session import build, model_memory
from resnet_cli.training.device import resolve_device
from resnet_cli.training.freezing import freeze_rules
from tests.support.settings import problems_of, settings_of
from tests.support.trainers import assert_same, loader, make_trainer, net


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.epochs", 1e308),
        ("trainer.time_budget", 1e12),
        ("trainer.time_budget", "1e12"),
        ("trainer.collective_timeout", 1e14),
        ("optimizer.newton_schulz_steps", 10**9),
        ("model.width", 1e308),
        ("model.layers", [10**5, 1, 1, 1]),
    ],
)
def test_what_is_out_of_all_proportion_is_refused(key, value):
    settings = settings_of("optimizer=muon", "model=resnet18")
    group, name = key.split(".")
    settings[group][name] = value
    (problem,) = problems_of(settings)
    assert problem.startswith(f"{key}: {value} is not allowed; it takes ")


NETS = [
    {"_target_": "resnet_cli.models.CifarResNet", "width": 8},
    {"_target_": "resnet_cli.models.CNN", "channels": [64, 512], "pool_every": 1, "hidden_dims": []},
    {"_target_": "torchvision.models.resnet18"},
]


@pytest.mark.parametrize("node", NETS)
def test_a_net_that_does_not_fit_into_memory_is_refused(node, monkeypatch):
    sizes = {"in_size": (3, 32, 32), "num_classes": 10}
    size = sum(parameter.nbytes for parameter in build.model(node, **sizes, seed=0).parameters())
    monkeypatch.setattr(model_memory, "UNCHECKED_BYTES", size // 10)
    monkeypatch.setattr(model_memory, "memory_limit", lambda: 2 * size)
    build.model(node, **sizes, seed=0)
    monkeypatch.setattr(model_memory, "memory_limit", lambda: 2 * size - 2)
    with pytest.raises(
        InputError, match=rf"^model: {node['_target_']} is too large: its weights take .* GiB, gradients"
    ):
        build.model(node, **sizes, seed=0)


def test_all_weights_of_a_net_are_counted_before_most_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda layer: drawn.append(layer.weight.device.type))
    monkeypatch.setattr(model_memory, "UNCHECKED_BYTES", 1000)
    monkeypatch.setattr(model_memory, "memory_limit", lambda: 10**6)
    with pytest.raises(InputError, match="is too large"):
        build.model(NETS[0], in_size=(3, 32, 32), num_classes=10, seed=0)
    assert drawn.count("cpu") < 3 < drawn.count("meta")


def test_counting_weights_draws_no_random_numbers(monkeypatch):
    sizes = {"in_size": (3, 32, 32), "num_classes": 10, "seed": 3}
    expected = build.model(NETS[0], **sizes)
    monkeypatch.setattr(model_memory, "UNCHECKED_BYTES", 100_000)
    assert_same(build.model(NETS[0], **sizes).state_dict(), expected.state_dict())


def test_times_of_years_are_still_times():
    assert "1000 d" in TimeSpan()
    assert "100000 d" not in TimeSpan()


@pytest.mark.parametrize("duration", [1e308, "1e308 steps", "1e300 epochs", "1e308%"])
def test_durations_beyond_any_run_are_refused(duration):
    with pytest.raises(InputError, match=r"^warmup=.*: is longer than any run$"):
        RunLength(10, 5).parse_duration(duration, "warmup")


def test_patterns_with_a_quantifier_that_is_too_large_are_refused():
    with pytest.raises(InputError, match=r"^trainer\.freeze: .* is not a regular expression: "):
        freeze_rules("a{99999999999}")
    with pytest.raises(InputError, match=r"^groups: .* is not a regular expression: "):
        parameter_groups(net(), groups={"a{99999999999}": {"lr": 1.0}})


def test_a_device_without_numbers_is_refused():
    with pytest.raises(ValueError, match=r"^trainer\.device: meta is not supported"):
        resolve_device("meta")


@pytest.mark.parametrize("on_oom", ["raise", "halve"])
def test_a_rate_beyond_float32_is_a_divergence(on_oom):
    trainer = make_trainer(net(), on_oom=on_oom)
    trainer.state.optimizer = torch.optim.Adam(trainer.model.parameters(), weight_decay=1e300)
    with pytest.raises(DivergedError, match=r"^step 0 \(epoch 1, batch 1\) needs a number .* optimizer\.weight_decay"):
        trainer.fit(loader(), None, num_epochs=1, verbose=False)
