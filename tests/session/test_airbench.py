"""The presets of airbench against the update rules of the published programs, number by number, and resumed exactly."""

from functools import partial
from pathlib import Path

import pytest
import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import StoppedError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.comparison import first_difference, read_results
from resnet_cli.session.context import RunContext
from resnet_cli.session.prepare import prepare
from resnet_cli.session.train import train
from resnet_cli.training.control import RunControl
from tests.support import tiers
from tests.support.airbench_rules import Airbench94, Airbench94Muon, Airbench96

# preset -> transcription, widths (filters of Muon wider than high, as the published ones), epochs of 7 steps
PRESETS = {
    "airbench94": (Airbench94, [8, 12, 12], 3.9),
    "airbench94_muon": (Airbench94Muon, [8, 12, 12], 4),
    "airbench96": (Airbench96, [8, 12, 12], 4.4),  # 31 steps, of which a tenth is rounded down here and there
}
STEPS = 7


def options(preset):
    _, widths, epochs = PRESETS[preset]
    return [
        f"experiment={preset}", "data=synthetic", "data.image_size=26", "data.classes=4", "data.test_count=24",
        f"data.count={STEPS * 24 + 5}", "data.batch_size=24", f"model.widths={widths}", f"trainer.epochs={epochs}",
        "trainer.precision=fp32", "trainer.device=cpu", "name=x",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", tiers.mostly_slow(PRESETS, every=3))
def test_steps_are_those_of_the_published_program(preset, tmp_path, monkeypatch):
    """Each step begins with the same weights: at these rates a difference by rounding grows tenfold in a few steps."""
    monkeypatch.chdir(tmp_path)
    rules, _, epochs = PRESETS[preset]
    prepared = prepare(RunConfig(**compose_settings(options(preset)).settings), RunDir("x"))
    trainer, losses = prepared.trainer, []
    published = rules(weights_of(trainer.model), STEPS, epochs)
    take_step = trainer.stepper.run_step

    def run_step(batch):
        before = weights_of(trainer.model)
        for name, value in before.items():
            published.weights[name].copy_(value)
        loss, correct = take_step(batch)
        losses.append((loss.item(), published.take_step(*(part.clone() for part in batch))))
        assert_same_changes(before, weights_of(trainer.model), published.weights)
        return loss, correct

    monkeypatch.setattr(trainer.stepper, "run_step", run_step)
    trainer.fit(prepared.loaders.train, None, verbose=False)
    assert len(losses) == published.total >= 20
    ours, theirs = zip(*losses, strict=True)
    assert ours == pytest.approx(theirs, rel=1e-5)
    with trainer.state.evaluated_weights():
        for name, value in weights_of(trainer.model).items():
            torch.testing.assert_close(value, published.finished()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:torch", "ignore::DeprecationWarning:torch", "ignore::UserWarning:torch"
)
def test_a_compiled_step_has_both_optimizers_and_all_schedules(tmp_path, monkeypatch):
    """Traced as torch.compile does, and run as it is; also when the bias of the whitening is frozen."""
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    try:
        losses, rates = {}, {}
        for mode in ("off", "step"):
            settings = compose_settings([*options("airbench94_muon"), f"trainer.compile={mode}"]).settings
            prepared = prepare(RunConfig(**settings), RunDir("x"))
            losses[mode] = recorded_losses(prepared.trainer, monkeypatch)
            prepared.trainer.fit(prepared.loaders.train, None, verbose=False)
            rates[mode] = [row["lrs"] for row in prepared.trainer.state.rows]
    finally:
        torch._dynamo.reset()
    assert len(losses["off"]) == len(losses["step"]) == 4 * STEPS
    assert losses["step"][:8] == pytest.approx(losses["off"][:8], rel=1e-3)
    assert rates["step"] == rates["off"]
    assert rates["off"][3][r"^features\.0\.bias$"] == 0


def recorded_losses(trainer, monkeypatch):
    """A list that gets the loss of each step."""
    losses, take_step = [], trainer.stepper.run_step

    def run_step(batch):
        loss, correct = take_step(batch)
        losses.append(loss.item())
        return loss, correct

    monkeypatch.setattr(trainer.stepper, "run_step", run_step)
    return losses


def weights_of(model):
    return {name: v.detach().clone() for name, v in model.state_dict().items() if v.is_floating_point()}


def assert_same_changes(before, after, expected):
    for name, value in after.items():
        change, wanted = value - before[name], expected[name] - before[name]
        rounding = 1e-6 * value.abs().max().item()
        assert (change - wanted).abs().max().item() <= 1e-3 * wanted.abs().max().item() + rounding, name


@pytest.mark.parametrize("preset", tiers.mostly_slow(PRESETS, every=3))
def test_a_stopped_run_goes_on_as_if_it_had_not_been(preset, tmp_path, monkeypatch):
    """Stopped in the warm-up, between lookaheads, before and after the bias of the whitening is frozen."""
    monkeypatch.chdir(tmp_path)
    settings = {**compose_settings(options(preset)).settings, "resume": "auto"}
    train(RunConfig(**settings), Path("whole"), RunContext())
    for stop_at in (3, 7, 10, 4, None):  # polls, one a step, since the last stop
        polls = iter(range(1, 10_000))
        control = RunControl(should_stop=lambda: 15 if next(polls) == stop_at else None)  # noqa: B023
        if stop_at is not None:
            with pytest.raises(StoppedError):
                train(RunConfig(**settings), Path("parts"), RunContext(control=control))
        else:
            train(RunConfig(**settings), Path("parts"), RunContext())
    assert first_difference(read_results(RunDir("whole")), read_results(RunDir("parts"))) is None
