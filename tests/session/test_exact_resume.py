"""Stopped anywhere and resumed, a run ends as if it had not been, bit for bit; over what draws, averages or counts."""

import copy
import shutil
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import StoppedError
from resnet_cli.runs.folder import RunDir
from resnet_cli.session import record
from resnet_cli.session.comparison import first_difference, read_results
from resnet_cli.session.context import RunContext
from resnet_cli.session.resume_warnings import inexactness_warnings
from resnet_cli.session.saver import RunSaver
from resnet_cli.session.train import train
from resnet_cli.training.backend import Backend
from resnet_cli.training.control import RunControl
from tests.support import tiers
from tests.support.runs import tiny

STEPS = 3  # of an epoch: 87 images in batches of 32
SMALL = ["data.image_size=8", "data.eval_batch_size=3", "trainer.epochs=2"]
CNN = ["model=cnn", "model.channels=[4,6]", "model.pool_every=1", "model.hidden_dims=[8]"]
DRAWS = ["model.dropout=0.2", "model.spatial_dropout=0.1", "model.stochastic_depth=0.3", "model.drop_connect=0.1"]
SWA = ["trainer.averaging=swa", "trainer.swa_start=0"]
LOOKAHEAD = ["trainer.averaging=lookahead", "trainer.lookahead_k=2", "trainer.lookahead_final_alpha=0.2"]
GROWING = ["trainer.resolution=[[0, 0.5], [80%, 1]]", "trainer.resolution_multiple=2"]
PIXELS = [
    "data.augment.crop=1", "data.augment.flip=random", "data.augment.cutout=2", "data.augment.brightness=0.2",
    "data.augment.contrast=0.2", "data.augment.saturation=0.2", "data.augment.mixup=0.4", "data.augment.cutmix=1.0",
]  # fmt: skip

CASES = {
    "whatever draws": [*DRAWS, *PIXELS],
    "sharpness": ["trainer.log_sharpness=1", *DRAWS, *PIXELS],
    "bf16 with averages": ["trainer.precision=bf16", "trainer.averaging=ema", "model.dropout=0.2"],
    "alternating flips from workers": ["data.backend=stream", "data.workers=2", "data.augment.flip=alternating"],
    "accumulated and clipped": ["trainer.accumulate=2", "trainer.clip_norm=0.5", "trainer.log_gradients=true", *DRAWS],
    "balanced classes": [
        "data.sampler=balanced",
        "loss.class_weights=balanced",
        "trainer.label_smoothing=0.1",
        "trainer.accumulate=3",
        "trainer.select_by=val_balanced_accuracy",
        "data.augment.mixup=0.4",
        "trainer.epochs=3",
    ],
    "policies from workers": [
        "data.backend=stream",
        "data.workers=2",
        "data.augment.policy=randaugment",
        "data.augment.resized_crop=[0.3,1]",
        "data.augment.erase=0.5",
        "data.augment.rotation=20",
        "data.augment.blur=0.5",
        "data.augment.repeats=3",
        "data.augment.transforms=[{_target_:torchvision.transforms.v2.ColorJitter,hue:0.1}]",
        "data.eval_crop=0.9",
    ],
    "focal loss": ["loss=focal", "loss.class_weights=[1,2,3]", "trainer.select_by=val_loss", "trainer.epochs=3"],
    "warm-up and adamw": ["optimizer=adamw", "schedule=cosine", "schedule.warmup=4 steps", "trainer.averaging=ema"],
    "optimizers of parameter groups": [
        "optimizer.groups={head:{optimizer:{_target_:torch.optim.AdamW,lr:0.01},schedule:{_target_:resnet_cli.schedules.cosine}},"
        "conv:{optimizer:{_target_:resnet_cli.optimizers.Muon,renormalise:true}},bias:{lr_scale:4}}",
        *DRAWS,
    ],
    "state from the start": [
        "optimizer._target_=torch.optim.Adagrad",
        "optimizer.initial_accumulator_value=0.1",
        "optimizer.groups={head:{lr:0.02}}",
        "trainer.averaging=lookahead",
        *DRAWS,
    ],
    "a part of an epoch at the end": [
        "trainer.epochs=2.5",
        "trainer.averaging=lookahead",
        "trainer.lookahead_k=2",
        *DRAWS,
    ],
    "averaged epochs": [*SWA, "trainer.swa_lr=0.03", "schedule=cosine", *DRAWS],
    "lookahead": [*LOOKAHEAD, "trainer.lookahead_buffers=true", *DRAWS],
    "growing images": [*GROWING, *DRAWS, "data.augment.crop=1"],
    "seeds of their own": ["seed=3", "seed.init=1", "seed.augment=2", *DRAWS, *PIXELS],
    "early stopping": ["trainer.early_stopping=1", "optimizer.lr=1e-9", "trainer.epochs=4"],
    "a start from images": [*CNN, "model.init=lsuv", "optimizer=muon"],
    "frozen from the third step, and until it": [
        "trainer.freeze=[{match: stem, at: 2 steps}, {match: '^stages', until: 2 steps}, {match: head, at: 75%}]",
        "trainer.averaging=ema",
        "trainer.clip_norm=0.5",
        "trainer.log_gradients=true",
        *DRAWS,
    ],
    "thawed where an epoch ends": ["trainer.freeze=[{match: stem, until: 3 steps}]", *SWA, "trainer.log_sharpness=1"],
    "rates by depth": ["optimizer.layer_decay=0.5", "optimizer.head_lr=0.3", "optimizer.decay_norm_and_bias=false"],
    "no validation": ["data.val_fraction=0", "data.drop_last=true"],
    "without batch norm": ["model=fixup20", "model.depth=8", "trainer.channels_last=false", "trainer.precision=bf16"],
    "draws from any global generator": ["model._target_=tests.support.small_nets.DrawingNet"],
}


@cache
def composed(*options):
    from resnet_cli.hydra_app.compose import compose_settings

    return compose_settings(tiny(*options)).settings


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train in a folder of that name until a poll for signals (None: to the end), and return the results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunSaver, "draw_curves", lambda *_: None)
    monkeypatch.setattr(record, "collect_environment", lambda repositories: {})

    def run(name, *arguments, stop_at=None):
        chosen = {
            argument.partition("=")[0]: argument for argument in ("name=x", *SMALL, *arguments)
        }  # the last counts
        settings = copy.deepcopy(composed(*chosen.values()))
        polls = iter(range(1, 10_000))
        control = RunControl(should_stop=lambda: 15 if next(polls) == stop_at else None)
        with stopping() if stop_at else nullcontext():
            train(RunConfig(**{**settings, "resume": "auto"}), Path(name), RunContext(control=control))
        return read_results(RunDir(name)) if stop_at is None else torch.load(f"{name}/checkpoints/last.pt")["state"]

    return run


@contextmanager
def stopping():
    with pytest.raises(StoppedError):
        yield


ON_CUDA = ["trainer.device=cuda", "trainer.deterministic=true"]
CUDA_CASES = {
    **CASES,
    "fp16 with its scaler": ["trainer.precision=fp16", "trainer.clip_norm=1.0", *DRAWS],
    "tf32": ["trainer.precision=tf32", *DRAWS],
    "recorded steps": ["trainer.compile=step", "trainer.averaging=ema", "trainer.clip_norm=0.5", *DRAWS],
    "recorded steps and averaged epochs": ["trainer.compile=step", *SWA, *DRAWS],
    "recorded steps and lookahead": ["trainer.compile=step", *LOOKAHEAD, *DRAWS],
    "recorded steps on growing images": ["trainer.compile=step", *GROWING, *DRAWS],
    "recorded steps that freeze and thaw": [
        "trainer.compile=step",
        "trainer.freeze=[{match: stem, at: 2 steps}, {match: '^stages', until: 4 steps}]",
        "trainer.averaging=ema",
        *DRAWS,
    ],
    "recorded steps of muon": ["trainer.compile=step", "optimizer=muon", *CNN],
    "recorded steps in tf32": ["trainer.compile=step", "trainer.precision=tf32", *DRAWS],
    "a compiled model": ["trainer.compile=model", "data.val_fraction=0.09"],
    "a compiled model in tf32": ["trainer.compile=model", "trainer.precision=tf32", "data.val_fraction=0.09"],
}


@pytest.mark.parametrize("options", tiers.mostly_slow(CASES.values(), every=6), ids=CASES)
def test_a_run_stopped_three_times_ends_like_one_that_was_not(run, options):
    stop_three_times(run, options)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("options", CUDA_CASES.values(), ids=CUDA_CASES)
def test_a_run_on_cuda_stopped_three_times_ends_like_one_that_was_not(run, options):
    stop_three_times(run, [*ON_CUDA, *options])


def stop_three_times(run, options):
    whole = run("whole", *options)
    state = run("parts", *options, stop_at=3)  # the first poll is before the first step
    assert (state["epoch"], state["batches"]) == (0, 2), "inside an epoch"
    other = [a.replace("workers=2", "workers=0") for a in options]
    state = run("parts", *other, stop_at=2)
    assert (state["epoch"], state["batches"]) == (0, STEPS), "at its end"
    state = run("parts", *options, stop_at=3)
    validated = "data.val_fraction=0" not in options
    assert (state["epoch"], state["batches"]) == ((0, STEPS) if validated else (1, 2)), "in validation"
    assert first_difference(whole, run("parts", *other)) is None


@pytest.mark.slow
def test_a_run_that_averages_epochs_is_exact_wherever_it_is_stopped(run):
    """Steps before and in the tail, renewal of the batch-norm statistics, validation, and the epoch after it."""
    options = ["trainer.averaging=swa", "trainer.swa_start=1", "trainer.epochs=3", "schedule=cosine", *DRAWS]
    whole = run("whole", *options)
    assert [row["averaged_epochs"] for row in whole["last"]["rows"]] == [0, 1, 2]
    validation = 4  # batches of ten images by three
    begin = 1 + STEPS + validation  # polls before the tail
    polls = {
        "before": 3, "step": begin + 2, "renewal": begin + STEPS + 2, "validation": begin + 2 * STEPS + 2,
        "next epoch": begin + 2 * STEPS + validation + 2,
    }  # fmt: skip
    for name, poll in polls.items():
        state = run(name, *options, stop_at=poll)
        batches = {"step": 2, "renewal": STEPS, "validation": STEPS}.get(name, 2)
        assert (state["epoch"], state["batches"]) == ({"before": 0, "next epoch": 2}.get(name, 1), batches), name
        assert first_difference(whole, run(name, *options)) is None, name


def test_a_run_that_started_from_a_file_goes_on_without_it(run, tmp_path):
    state = run("first", stop_at=3)
    torch.save({"state_dict": state["model"]}, tmp_path / "net.pth")
    options = ["init_from=net.pth", "data.classes=4", *DRAWS]
    whole = run("whole", *options)
    loaded = RunDir("whole").read_record()["weights"]
    assert loaded["new"].keys() == {"head.linear.weight", "head.linear.bias"}
    run("parts", *options, stop_at=3)
    (tmp_path / "net.pth").unlink()
    assert first_difference(whole, run("parts", *options[1:])) is None
    record = RunDir("parts").read_record()
    assert record["start"] == "net.pth"
    assert record["weights"] == loaded


def test_stopped_while_the_test_set_is_read(run):
    whole = run("whole")
    polls = 1 + 2 * (STEPS + 3)
    state = run("parts", stop_at=polls + 4)
    assert state["epoch"] == 2
    assert RunDir("parts").read_record()["test"] is None
    assert RunDir("parts").read_record()["status"] == "interrupted"
    assert first_difference(whole, run("parts")) is None


def test_an_extended_run_that_is_stopped_at_its_test_has_no_old_result(run):
    run("d")
    longer = ["trainer.epochs=3"]
    run("d", *longer, stop_at=1 + STEPS + 3 + 2)
    assert RunDir("d").read_record()["test"] is None
    assert run("d", *longer)["record"]["test"] is not None


def test_backends_give_the_same_run_in_turn(run):
    whole = run("whole", *PIXELS, "data.backend=device")
    run("parts", *PIXELS, "data.backend=stream", "data.workers=0", stop_at=3)
    assert first_difference(whole, run("parts", *PIXELS, "data.backend=device")) is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning")  # of its compiler
def test_a_compiled_run_is_exact_too(run):
    """The last batch of an epoch is short: with one graph for all sizes a restart would compile others."""
    arguments = [
        *CNN,
        "model.channels=[4]",
        "trainer.compile=model",
        "data.eval_batch_size=9",
        "data.val_fraction=0.09",
    ]
    whole = run("whole", *arguments)
    run("parts", *arguments, stop_at=1 + STEPS + 1)
    assert first_difference(whole, run("parts", *arguments)) is None


@pytest.mark.parametrize(("deterministic", "count"), [(False, 1), (True, 0)])
def test_a_run_resumed_on_cuda_is_exact_with_reproducible_operations_only(deterministic, count):
    record = {"device": "cuda:0 (a card)", "precision": "bf16"}
    backend = Backend(torch.device("cuda", 0), "bf16", deterministic=deterministic)
    assert inexactness_warnings({}, record, backend) == [], "a new run"
    lines = inexactness_warnings(record, record, backend)
    assert (
        lines
        == ["warning: trainer.deterministic=false on cuda: not bit for bit the same as an uninterrupted run"][:count]
    )


def test_another_version_of_a_package_is_a_reason_unless_the_package_is_not_used_now():
    backend = Backend(torch.device("cpu"), "fp32")
    before = {"device": "cpu", "precision": "fp32", "versions": {"torch": "2", "pillow": "11", "timm": "1"}}
    now = {**before, "versions": {"torch": "2", "pillow": "12"}}
    (line,) = inexactness_warnings(before, now, backend)
    assert line.startswith("warning: pillow 11 -> 12: not bit for bit")


def test_what_makes_a_resumed_run_inexact_is_said(run, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    run("d", stop_at=3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    run("d")
    said = Path("d/train.log").read_text()
    assert "warning: device cpu (1 thread) -> cpu (2 threads): not bit for bit" in said
