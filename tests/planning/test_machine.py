"""The machine that nets are timed on: what rates depend on, and steps that compute as those of the run."""

from contextlib import nullcontext

import pytest
import torch

from resnet_cli.planning import machine, step_times
from resnet_cli.planning.machine import Machine
from resnet_cli.runs.environment import cpu_name
from resnet_cli.training.device import device_name

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
USUAL = {"precision": "fp32", "channels_last": True, "deterministic": False, "compile": "off"}


@pytest.fixture
def on_card(monkeypatch):
    """Returns a function that changes the trainer's node, and returns the machine of a run on a pretended card."""
    monkeypatch.setattr(machine, "device_of", lambda trainer: CUDA)
    monkeypatch.setattr(machine, "device_name", lambda device: "card")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return lambda **changed: Machine.of(USUAL | changed, {})


def test_rates_on_a_card_depend_on_the_settings_of_the_run(on_card):
    changes = [{}, {"precision": "tf32"}, {"channels_last": False}, {"deterministic": True}]
    assert len({on_card(**changed).name for changed in changes}) == len(changes)
    assert on_card(compile="step").name == on_card().name, "steps are timed uncompiled"
    (note,) = on_card(compile="step").notes
    assert "trainer.compile=step" in note
    assert on_card().notes == []


def test_a_card_times_nets_with_the_algorithms_of_the_run(on_card):
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision, torch.backends.cudnn.benchmark
    with on_card().switches():
        assert (conv.fp32_precision, torch.backends.cudnn.benchmark) == ("ieee", True)
    with on_card(precision="tf32", deterministic=True).switches():
        assert (conv.fp32_precision, torch.backends.cudnn.benchmark) == ("tf32", False)
        assert torch.are_deterministic_algorithms_enabled()
    assert (conv.fp32_precision, torch.backends.cudnn.benchmark) == before
    for channels_last, expected in ((True, torch.channels_last), (False, torch.contiguous_format)):
        assert step_times._memory_format({"trainer": {"channels_last": channels_last}}, CUDA) == expected


def test_on_a_cpu_rates_depend_on_the_machine_and_the_precision_alone():
    node = USUAL | {"device": "cpu", "deterministic": True, "channels_last": False, "compile": "model"}
    found = Machine.of(node, {})
    assert found.name == f"{cpu_name()}, {device_name(CPU)}, fp32, torch {torch.__version__}"
    assert found.notes == []
    assert isinstance(found.switches(), nullcontext)
    assert step_times._memory_format({}, CPU) == torch.channels_last
