"""`trainer.averaging`: its averages are those of `torch.optim.swa_utils`, and what is evaluated and kept."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import InputError
from resnet_cli.schedules import GroupedSchedule, cosine
from resnet_cli.training.averaging import ExponentialAverage, StochasticAverage, make_average
from resnet_cli.training.lookahead import LookaheadOptions
from tests.support.trainers import MemorySaver, RunningMean, assert_same, blobs, loader, make_trainer, weights

EPOCHS, START, TAIL_LR = 6, 3, 0.02


def normalised_net(dropout=0.0):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 3)
    )


def swa(model, **options):
    options = {"epochs": EPOCHS, "swa_start": START, "swa_lr": TAIL_LR, "seed": 1, **options}
    return make_trainer(model, averaging="swa", **options)


def averaged(trainer):
    with trainer.state.average.applied():
        return weights(trainer)


def test_weights_and_statistics_are_those_of_torch():
    """The loop of the documentation of `torch.optim.swa_utils`, number by number, bit for bit."""
    plain = normalised_net()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    model = AveragedModel(plain, multi_avg_fn=get_swa_multi_avg_fn())
    losses = []
    for epoch in range(EPOCHS):
        if epoch == START:
            SWALR(optimizer, swa_lr=TAIL_LR, anneal_epochs=0)  # sets the rate
        for images, labels in loader():
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(images), labels).backward()
            optimizer.step()
        if epoch >= START:
            model.update_parameters(plain)
            update_bn(loader(), model)
        evaluated = copy.deepcopy(model.module if epoch >= START else plain).eval()
        with torch.no_grad():
            images, labels = blobs().tensors
            losses.append(nn.functional.cross_entropy(evaluated(images), labels).item())
    trainer = swa(normalised_net())
    trainer.fit(loader(), [blobs().tensors], verbose=False)
    assert_same(weights(trainer), plain.state_dict())
    assert_same(averaged(trainer), model.module.state_dict())
    assert [row["val_loss"] for row in trainer.state.rows] == pytest.approx(losses, rel=1e-6)
    assert [row["lr"] for row in trainer.state.rows] == pytest.approx([0.1] * 3 + [TAIL_LR] * 3)
    assert [row["averaged_epochs"] for row in trainer.state.rows] == [0, 0, 0, 1, 2, 3]


def test_the_exponential_average_is_that_of_torch_once_its_ramp_is_over():
    a, b = normalised_net(), normalised_net()
    average = ExponentialAverage(a, decay=0.9)
    expected = AveragedModel(b, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    expected.update_parameters(b)  # the first update copies
    for step in range(200, 205):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            p.data += 0.1
            q.data += 0.1
        average.update(step)
        expected.update_parameters(b)
    with average.applied():
        torch.testing.assert_close(list(a.parameters()), list(expected.module.parameters()))


def test_averaged_epochs_are_what_is_evaluated_and_kept():
    trainer, kept = swa(normalised_net()), MemorySaver()
    trainer.fit(loader(), loader(), verbose=False, saver=kept)
    own, mean = weights(trainer), averaged(trainer)
    assert_same(own, weights(trainer))
    assert not any(torch.equal(own[name], mean[name]) for name in ("0.weight", "1.running_mean", "5.weight"))
    raw = make_trainer(normalised_net())
    raw.model.load_state_dict(mean)
    assert raw.evaluate(loader()).loss == trainer.evaluate(loader()).loss


def test_without_a_rate_the_tail_keeps_that_of_the_schedule():
    schedule = cosine(total_steps=18, steps_per_epoch=3, warmup="2 steps")
    trainer = swa(normalised_net(), schedule=schedule, swa_lr=None, swa_start=0.5)
    trainer.fit(loader(), None, verbose=False)
    before = [0.1 * schedule(step) for step in (2, 5, 8)]
    assert [row["lr"] for row in trainer.state.rows] == pytest.approx(before + [0.1 * schedule(9)] * 3)


def test_a_tail_that_is_the_whole_run_follows_the_schedule():
    schedule = cosine(total_steps=6, steps_per_epoch=3, warmup="2 steps")
    trainer = swa(normalised_net(), epochs=2, schedule=schedule, swa_lr=None, swa_start=0)
    trainer.fit(loader(), None, verbose=False)
    assert [row["lr"] for row in trainer.state.rows] == pytest.approx([0.1 * schedule(step) for step in (2, 5)])


def test_groups_keep_the_ratio_of_their_rates():
    model = normalised_net()
    trainer = swa(model, epochs=2, swa_start=1)
    optimizer = trainer.state.optimizer
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.05})
    trainer.fit(loader(), None, verbose=False)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([TAIL_LR, TAIL_LR / 2])


def test_groups_with_schedules_of_their_own_keep_the_ratio_of_their_rates_too():
    schedule = GroupedSchedule(lambda step: 1.0, {"slow": lambda step: 0.5})
    trainer = swa(normalised_net(), epochs=2, swa_start=1, schedule=schedule)
    optimizer = trainer.state.optimizer
    group = {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.05, "schedule": "slow"}
    optimizer.add_param_group(group)
    trainer.train_epoch(loader(), verbose=False)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.025])
    trainer.train_epoch(loader(), verbose=False)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([TAIL_LR, TAIL_LR / 2])


def test_dropout_while_statistics_are_renewed_depends_on_the_seed_alone():
    first, second = swa(normalised_net(0.5)), swa(normalised_net(0.5))
    first.fit(loader(), None, verbose=False)
    torch.manual_seed(99)
    second.fit(loader(), None, verbose=False)
    assert_same(averaged(first), averaged(second))


def test_epochs_one_by_one_are_averaged_too():
    trainer, whole = swa(normalised_net()), swa(normalised_net())
    for _ in range(EPOCHS):
        trainer.train_epoch(loader(), verbose=False)
    whole.fit(loader(), None, verbose=False)
    assert_same(averaged(trainer), averaged(whole))


def test_a_longer_run_whose_tail_begins_with_its_next_epoch_averages_like_an_uninterrupted_one():
    options = {"swa_start": 0.5, "schedule": lambda step: 1.0}
    trainer, whole = (swa(normalised_net(), epochs=epochs, **options) for epochs in (2, 4))
    trainer.fit(loader(), None, verbose=False)
    assert trainer.state.average.count == 1
    trainer.fit(loader(), None, num_epochs=2, verbose=False)
    whole.fit(loader(), None, verbose=False)
    assert trainer.state.average.count == whole.state.average.count == 2
    assert trainer.state.average.first_step == whole.state.average.first_step == 6


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_several_ranks_have_the_averages_of_the_first(kind):
    """Buffers that are no batch-norm statistics differ between ranks, and averages hold them too."""

    class Recording(Ranks):
        def broadcast_(self, tensors):
            self.sent = {tensor.data_ptr() for tensor in tensors}

    trainer, ranks = make_trainer(normalised_net(), epochs=1, seed=1, averaging=kind, swa_start=0), Recording()
    trainer.share_steps(ranks)
    trainer.fit(loader(), None, verbose=False)
    shared = [*trainer.model.buffers(), *trainer.state.average.tensors]
    assert {tensor.data_ptr() for tensor in shared} <= ranks.sent


@pytest.mark.parametrize("kind", ["ema", "swa", "lookahead"])
def test_buffers_that_a_module_replaces_are_averaged_like_those_that_it_changes_in_place(kind):
    ends = []
    for in_place in (True, False):
        model, saver = nn.Sequential(RunningMean(in_place=in_place), *normalised_net()), MemorySaver()
        lookahead = LookaheadOptions(k=2, buffers=True)
        trainer = make_trainer(model, epochs=2, seed=1, averaging=kind, swa_start=0, lookahead=lookahead)
        trainer.fit(loader(), loader(), verbose=False, saver=saver)
        ends.append((weights(trainer), saver.bests[-1], dict(enumerate(trainer.state.average.tensors))))
    assert ends[0][0]["0.mean"] != 1
    for a, b in zip(*ends, strict=True):
        assert_same(a, b)


def test_a_buffer_that_a_module_has_deleted_keeps_its_average():
    model = nn.Sequential(nn.Linear(2, 2), RunningMean())
    average = ExponentialAverage(model, 0.9)
    del model[1].mean
    average.update(1)
    with average.applied():
        assert not hasattr(model[1], "mean")
    assert not hasattr(model[1], "mean")
    assert average.tensors[-1] == 1


def test_without_batch_norm_no_batch_is_read_again():
    reads = []

    class Counted(list):
        def __iter__(self):
            reads.append(1)
            return super().__iter__()

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    swa(model, swa_start=0).fit(Counted(loader()), None, verbose=False)
    without, reads[:] = len(reads), []
    swa(normalised_net(), swa_start=0).fit(Counted(loader()), None, verbose=False)
    assert len(reads) == without + EPOCHS


def test_a_longer_run_whose_tail_begins_later_starts_its_average_anew():
    trainer, whole = swa(normalised_net(), swa_start=0.5, swa_lr=None), swa(normalised_net(), epochs=14, swa_start=0.5)
    trainer.fit(loader(), None, verbose=False)
    assert trainer.state.average.count == 3
    trainer.fit(loader(), None, num_epochs=8, verbose=False)  # of now 14, so the tail begins with the eighth
    whole.fit(loader(), None, verbose=False)
    assert trainer.state.average.count == whole.state.average.count == 7


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_state_is_restored(kind):
    make = partial(make_average, kind, decay=0.9, swa_start=0.0, swa_lr=None)
    model, other = normalised_net(), normalised_net()
    average = make(model=model)
    average.start_epoch(0, 3, 0)
    average.update(1)
    if kind == "swa":
        average.add_epoch(0)
    restored = make(model=other)
    restored.load_state_dict(copy.deepcopy(average.state_dict()))
    assert_same(dict(enumerate(restored.tensors)), dict(enumerate(average.tensors)))
    assert {**restored.state_dict(), "average": 0} == {**average.state_dict(), "average": 0}


def test_a_state_of_another_kind_or_model_is_refused():
    flat = nn.Linear(2, 2)
    ema, mean = ExponentialAverage(flat, 0.9), StochasticAverage(flat, 0.5, None)
    for target, source in ((ema, mean), (mean, ema)):
        with pytest.raises(ValueError, match=r"those of another trainer\.averaging"):
            target.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="another model"):
        mean.load_state_dict(StochasticAverage(nn.Linear(3, 2), 0.5, None).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"averaging": "ema", "swa_lr": 0.1}, "trainer.swa_lr=0.1: needs trainer.averaging=swa"),
        ({"averaging": "swa", "swa_start": 2.5}, "trainer.swa_start=2.5: must be a fraction of the run below 1"),
        ({"averaging": "swa", "swa_start": 2, "epochs": 2}, "trainer.swa_start=2: nothing is averaged"),
        (
            {"averaging": "swa", "swa_start": 2, "epochs": 2.0},
            "trainer.swa_start=2: nothing is averaged in a run of 2 epochs",
        ),
    ],
)
def test_settings_that_average_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_trainer(normalised_net(), **options).fit(loader(), None, verbose=False)
