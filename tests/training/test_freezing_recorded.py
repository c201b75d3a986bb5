"""Recorded steps and freezing: a recording is replayed only while the same is frozen as when it was made."""

import pytest
import torch

from resnet_cli.training.freezing import FrozenSpan
from tests.support.trainers import weights
from tests.training.test_freezing import COMPILER_WARNINGS, STEPS, batches, make

BOUNDARIES = {"between epochs": STEPS, "inside one": STEPS + 1}


class Recorder:
    """Stands in for the recorder of CUDA graphs: a recording refuses to run when other parameters have gradients."""

    def __init__(self, model):
        self.model, self.recorded = model, []

    def trained(self):
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def record(self, step, batch, *, dry_runs):
        for _ in range(dry_runs):
            step(batch)
        self.recorded.append((self.trained(), len(batch[1])))
        return Recording(self, step)


class Recording:
    def __init__(self, recorder, step):
        self.recorder, self.step, self.trained = recorder, step, recorder.trained()

    def replay(self, batch):
        assert self.recorder.trained() == self.trained, "recorded while others were frozen"
        return self.step(batch)


@pytest.mark.parametrize("at", BOUNDARIES.values(), ids=BOUNDARIES)
def test_each_phase_has_recordings_of_its_own_and_keeps_them(at):
    with torch.compiler.set_stance("force_eager"):
        trainer = make(FrozenSpan("back", at=at), compile="step")
        recorder = trainer.stepper._recorder = Recorder(trainer.model)
        trainer.fit(batches(), None, verbose=False)
        sizes = [32, 16]  # the last batch of an epoch is a short one
        assert [size for _, size in recorder.recorded] == 2 * sizes
        assert sum("back.0.weight" in trained for trained, _ in recorder.recorded) == 2
        state = trainer.state
        state.step = state.epoch = 0
        state.rows.clear()
        trainer.stepper.forget_optimizer_state()
        trainer.fit(batches(), None, verbose=False)
        assert len(recorder.recorded) == 4, "nothing is recorded anew when a phase comes back"


@pytest.mark.cuda
@COMPILER_WARNINGS
@pytest.mark.parametrize("optimizer", ["fused sgd", "adamw"])
@pytest.mark.parametrize("at", BOUNDARIES.values(), ids=BOUNDARIES)
def test_recorded_steps_are_the_eager_ones_around_a_change(at, optimizer):
    def train(mode):
        trainer = make(FrozenSpan("back", at=at), optimizer=optimizer, compile=mode, device="cuda")
        trainer.model.head[1].p = 0.0  # compiled code draws other numbers
        trainer.fit(batches(), None, verbose=False)
        return weights(trainer)

    eager, recorded = train("off"), train("step")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-3, atol=1e-4, msg=name)
