"""Devices, precisions and process-wide switches."""

import os
import warnings

import pytest
import torch

from resnet_cli.models import MLP
from resnet_cli.training.backend import Backend
from resnet_cli.training.device import (
    draws_outside_torch,
    has_bf16_matrix_units,
    resolve_device,
    resolve_precision,
    seed_device,
)
from tests.support.small_nets import DrawingNet

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == resolve_device(None) == CPU
    for name, words in [
        ("gpu0", "is not a device"),
        ("cuda", "not available"),
        ("cuda:1", "not available"),
        ("mps", "not available"),
    ]:
        with pytest.raises(ValueError, match=words):
            resolve_device(name)


def test_cuda_devices_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["auto", "cuda:1", torch.device("cuda", 1)])
def test_cublas_is_configured_before_anything_uses_a_card(monkeypatch, name):
    """PyTorch reads the setting in the first product of a process: a deterministic run may come later."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is as before in the end
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    resolve_device("cpu")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert resolve_device(name).type == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's choice
    resolve_device(name)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize(("has_bf16", "name"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_cuda_is_bf16_where_the_card_has_it(monkeypatch, has_bf16, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    precision = resolve_precision("auto", CUDA)
    assert precision == name
    assert Backend(CUDA, precision).scales_gradients is (name == "fp16")


def test_auto_on_the_cpu_is_fp32_unless_asked_and_able(monkeypatch):
    monkeypatch.setattr("resnet_cli.training.device.has_bf16_matrix_units", lambda: True)
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("auto", CPU, cpu_bf16=True) == "bf16"
    monkeypatch.setattr("resnet_cli.training.device.has_bf16_matrix_units", lambda: False)
    assert resolve_precision("auto", CPU, cpu_bf16=True) == "fp32"


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_precisions_that_the_cpu_lacks_are_refused(name):
    with pytest.raises(ValueError, match=f"precision: {name}"):
        resolve_precision(name, CPU)


def test_the_generator_of_the_cpu_is_seeded_for_any_device(monkeypatch):
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: None)
    drawn = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            seed_device(torch.device("mps"), 3, "step")
            drawn.append(torch.rand(()).item())
    assert drawn[0] == drawn[1]


def test_user_defined_parts_may_draw_from_any_generator():
    model = MLP(in_dim=16, dims=[16, 3], nonlins=["relu", "none"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert not draws_outside_torch(model, torch.nn.functional.cross_entropy, optimizer, None)
    assert draws_outside_torch(torch.nn.Sequential(model, DrawingNet((1, 4, 4), 3)))
    assert draws_outside_torch(model, lambda logits, labels: logits.sum())


def test_matrix_units_are_read_from_the_kernel(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    for flags, able in [("amx_bf16 amx_tile", True), ("avx512f avx512_bf16", True), ("avx512f avx512_bf16x", False)]:
        cpuinfo.write_text(f"flags : fpu {flags}\n")
        assert has_bf16_matrix_units(cpuinfo) is able
    assert not has_bf16_matrix_units(tmp_path / "none")


def test_autocast_is_on_for_the_half_precisions_only():
    for name, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        with Backend(CPU, name).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning")
def test_compiled_runs_may_compile_as_many_graphs_as_they_need():
    from torch._dynamo import config

    before = config.recompile_limit, config.accumulated_recompile_limit
    with Backend(CPU, compile="model", max_graphs=300).switches():
        assert (config.recompile_limit, config.accumulated_recompile_limit) == (300, 300)
    assert (config.recompile_limit, config.accumulated_recompile_limit) == before


@pytest.mark.parametrize("name", ["fp32", "tf32"])
def test_switches_are_put_back(name, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    matmul = torch.backends.cuda.matmul
    before = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, matmul.fp32_precision)
    try:
        with Backend(CUDA, name, deterministic=True).switches():
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
            assert matmul.fp32_precision == ("tf32" if name == "tf32" else "ieee")
            raise KeyError
    except KeyError:
        pass
    after = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, matmul.fp32_precision)
    assert after == before


def test_switches_do_not_make_python_repeat_warnings(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(2):
            with Backend(CUDA).switches():
                warnings.warn("of a net", stacklevel=1)
    assert [str(warning.message) for warning in shown].count("of a net") == 1


def older_switches():
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cuda.matmul.allow_tf32, cudnn.allow_tf32


@pytest.mark.filterwarnings("ignore:Please use the new API settings")
@pytest.mark.parametrize(
    ("device", "precision"),
    [(CPU, "fp32"), (CPU, "bf16"), (CUDA, "fp32"), (CUDA, "tf32"), (CUDA, "bf16"), (CUDA, "fp16")],
)
def test_a_net_may_use_torchs_older_switches_of_tf32(device, precision):
    """Inductor reads them, and `cudnn.flags` does; they are refused where the newer ones contradict them."""
    before = older_switches()
    with Backend(device, precision).switches():
        found = older_switches()
        with torch.backends.cudnn.flags(enabled=False):
            assert not torch.backends.cudnn.enabled
    if device == CUDA:
        assert found == (("high", True, True) if precision == "tf32" else ("highest", False, False))
    assert older_switches() == before


@pytest.mark.filterwarnings("ignore:Please use the new API settings")
def test_older_switches_that_were_set_before_are_put_back():
    with Backend(CUDA, "fp32").float32():  # puts back what this test sets
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        before = older_switches()
        for precision in ("fp32", "tf32"):
            with Backend(CUDA, precision).switches():
                assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
            assert older_switches() == before == ("high", True, True)
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # contradicts the older one
        with Backend(CUDA, "fp32").switches():
            assert older_switches() == ("highest", False, False)
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        assert older_switches() == before


def test_seeding_makes_draws_a_function_of_the_parts():
    draws = []
    for step in (3, 4, 3):
        seed_device(CPU, 0, "step", step)
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[2] != draws[1]
