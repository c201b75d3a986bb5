"""No step waits for the device: how often an epoch reads numbers from it does not depend on how many steps it has."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.metrics import Scores, Totals
from resnet_cli.training.stepper import GPU_CHECK_STEPS
from tests.support import tiers
from tests.support.trainers import blobs, loader, make_trainer, net

NAMES = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero", "is_nonzero"}
OPTIONS = {"averaging": "ema", "clip_norm": 1.0, "log_gradients": True, "accumulate": 2, "seed": 1}


class Reads(TorchFunctionMode):
    """Counts what would make the host wait, by its name in Python."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in NAMES
        return func(*args, **(kwargs or {}))


class Scalars(TorchDispatchMode):
    """Counts numbers that leave a tensor, and results whose size depends on numbers."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def reads(steps, monkeypatch, **options):
    trainer = make_trainer(net(dropout=0.1), **OPTIONS | options)
    trainer.stepper.can_sync_every_step = False  # as on a GPU
    monkeypatch.setattr(Totals, "peek", lambda totals: None)  # asynchronous there: see below
    data = [*loader(blobs(count=8 * steps), batch_size=8)]
    with Reads() as by_name, Scalars() as by_number:
        trainer.fit(data, None, num_epochs=1, verbose=False)
    assert trainer.state.step == steps
    return by_name.count, by_number.count


@pytest.mark.parametrize("options", tiers.mostly_slow([{}, {"precision": "bf16"}], every=2), ids=str)
def test_reads_of_an_epoch_do_not_grow_with_its_steps(monkeypatch, options):
    few, many = (reads(steps, monkeypatch, **options) for steps in (5, 2 * GPU_CHECK_STEPS + 5))
    assert few == many
    assert sum(few) > 0, "the counters see the sums of the epoch"


def test_where_looking_is_free_each_step_is_looked_at(monkeypatch):
    trainer = make_trainer(net())
    with Reads() as by_name:
        trainer.fit([*loader()], None, num_epochs=1, verbose=False)
    assert by_name.count >= 2 * 3


def test_sums_are_seen_later_and_never_waited_for(monkeypatch):
    ready = []

    class Event:
        def __init__(self):
            self.recorded_on = None

        def record(self, stream):
            self.recorded_on = stream

        def query(self):
            assert self.recorded_on == "the stream of cuda:1"
            return bool(ready)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    totals = Totals(torch.device("cpu"))
    totals.device = torch.device("cuda:1")  # not the current one
    totals.add(torch.tensor(2.0), torch.tensor(3), 4)
    assert totals.peek() is None
    totals.add(torch.tensor(4.0), torch.tensor(1), 4)
    assert totals.peek() is None
    ready.append(True)
    assert totals.peek() == Scores(2.0, 75.0, 4)  # as they were when they were asked for
    assert totals.peek() == Scores(3.0, 50.0, 8)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore::RuntimeWarning:torch", "ignore::DeprecationWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("compile", ["off", "model", "step"])
def test_no_step_waits_on_cuda(compile):  # noqa: A002
    from resnet_cli.data import make_loaders, synthetic

    loaders = make_loaders(synthetic(count=4096, test_count=32, image_size=8, classes=3), device="cuda", seed=0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    trainer = make_trainer(
        model, device="cuda", compile=compile, averaging="ema", clip_norm=1.0, log_gradients=True, seed=1,
        precision="bf16",
    )  # fmt: skip
    trainer.fit(loaders.train, None, num_epochs=1, verbose=False)
    with trainer.backend.switches():
        batches = EpochIterator(loaders.train, backend=trainer.backend).iterate(epoch=1)
        trainer.stepper.run_step(next(batches))
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in batches:
                trainer.stepper.run_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
