"""`trainer.averaging=lookahead`: the published update rules number by number, and what is evaluated and kept."""

import copy

import pytest
import torch
from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.session import build
from resnet_cli.training.averaging import load_averages
from resnet_cli.training.lookahead import Lookahead, LookaheadOptions
from tests.support.trainers import MemorySaver, assert_same, loader, make_trainer, weights

EPOCHS, STEPS = 4, 3  # 12 steps, so the last synchronisation by fives is two steps before the end
AIRBENCH = LookaheadOptions(k=5, alpha=1.0, final_alpha=1 - 0.95**5, power=3.0, buffers=True)


def normalised_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )  # fmt: skip


def trainer_with(options, model=None, **others):
    model = model or normalised_net()
    return make_trainer(model, averaging="lookahead", lookahead=options, **{"epochs": EPOCHS, "seed": 1, **others})


def published(synchronise):
    """Train for the same steps with a plain loop, and return what the published program evaluates at the end."""
    model = normalised_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    slow = {name: value.clone() for name, value in model.state_dict().items()}
    for step, (images, labels) in enumerate([batch for _ in range(EPOCHS) for batch in loader()], start=1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if step % 5 == 0:
            synchronise(model, slow, step)
    return model, slow


def evaluated(trainer):
    with trainer.state.evaluated_weights():
        return weights(trainer)


def test_the_slow_weights_are_those_of_airbench94():
    """Its rule: every float of the state dict moves by 1 - decay, decay = 0.95^5 (step / total)^3; at the end by 0."""

    def synchronise(model, slow, step):
        decay = 0.95**5 * (step / (EPOCHS * STEPS)) ** 3
        for kept, own in zip(slow.values(), model.state_dict().values(), strict=True):
            if own.is_floating_point():
                kept.lerp_(own, 1 - decay)
                own.copy_(kept)

    _, slow = published(synchronise)
    trainer = trainer_with(AIRBENCH)
    trainer.fit(loader(), None, verbose=False)
    found = evaluated(trainer)
    assert found.pop("1.num_batches_tracked") == EPOCHS * STEPS
    slow.pop("1.num_batches_tracked")
    torch.testing.assert_close(found, slow, rtol=1e-6, atol=1e-7)


def test_the_slow_weights_are_those_of_zhang_and_batch_norm_keeps_the_fast_ones_statistics():
    def synchronise(model, slow, step):
        for name, own in model.named_parameters():
            slow[name] += 0.5 * (own.data - slow[name])
            own.data.copy_(slow[name])

    model, slow = published(synchronise)
    trainer = trainer_with(LookaheadOptions())
    trainer.fit(loader(), None, verbose=False)
    found = evaluated(trainer)
    fast = model.state_dict()
    expected = {name: fast[name] if "running" in name or "num" in name else slow[name] for name in fast}
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(found["4.weight"], weights(trainer)["4.weight"]), "two steps after the synchronisation"


def test_alpha_follows_its_curve_over_the_run():
    average = Lookahead(nn.Linear(1, 1), LookaheadOptions(k=2, alpha=1.0, final_alpha=0.2, power=3.0))
    assert average.weight(2) == 1.0, "before the length is known, as while an epoch is measured"
    average.start_epoch(0, 4, 0, 5)
    assert [average.weight(step) for step in (1, 3)] == [0, 0]
    assert [average.weight(step) for step in (10, 20, 40)] == pytest.approx([1 - 0.8 / 8, 0.2, 0.2])


def test_what_is_saved_as_the_best_is_the_slow_weights():
    trainer, kept = trainer_with(LookaheadOptions()), MemorySaver()
    trainer.fit(loader(), None, verbose=False, saver=kept)
    assert_same(kept.bests[-1], evaluated(trainer))


def test_a_run_stopped_between_two_synchronisations_goes_on_exactly():
    whole, kept = trainer_with(AIRBENCH), MemorySaver()
    whole.fit(loader(), None, verbose=False, saver=kept)
    resumed = trainer_with(AIRBENCH)
    resumed.state.load_state_dict(kept.states[1])  # after six steps
    resumed.fit(loader(), None, verbose=False)
    assert_same(evaluated(resumed), evaluated(whole))
    assert_same(weights(resumed), weights(whole))


@pytest.mark.parametrize("buffers", [False, True])
def test_a_stored_state_gives_the_weights_that_the_run_evaluates(buffers):
    trainer = trainer_with(LookaheadOptions(buffers=buffers))
    trainer.fit(loader(), None, verbose=False)
    model = normalised_net()
    state = copy.deepcopy(trainer.state.state_dict())
    model.load_state_dict(state["model"])
    load_averages(model, state["average"])
    assert_same(dict(model.state_dict()), evaluated(trainer))


def test_a_state_of_another_kind_is_refused():
    lookahead, ema = trainer_with(LookaheadOptions()), make_trainer(normalised_net(), averaging="ema")
    for one, other in ((lookahead, ema), (ema, lookahead)):
        with pytest.raises(ValueError, match=r"another trainer\.averaging"):
            one.state.load_state_dict(other.state.state_dict())


def test_a_run_that_ends_before_the_first_synchronisation_is_refused():
    trainer = trainer_with(LookaheadOptions(k=EPOCHS * STEPS + 1))
    with pytest.raises(InputError, match=r"lookahead_k=13: the slow weights.* in a run of 12 steps; use at most 12"):
        trainer.fit(loader(), None, verbose=False)
    assert trainer.state.step == 0
    trainer_with(LookaheadOptions(k=EPOCHS * STEPS)).fit(loader(), None, verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookahead": LookaheadOptions(final_alpha=0.2), "averaging": "ema"}, "needs trainer.averaging=lookahead"),
        ({"lookahead": LookaheadOptions(alpha=0.0), "averaging": "lookahead"}, "lookahead_alpha=0: nothing"),
    ],
)
def test_settings_that_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_trainer(normalised_net(), **options)


def test_a_curve_over_a_run_of_unknown_length_is_refused():
    class Endless:
        def __iter__(self):
            return iter(loader())

    with pytest.raises(InputError, match="lookahead_final_alpha: the loader has no length"):
        trainer_with(AIRBENCH).fit(Endless(), None, verbose=False)


def test_the_keys_of_the_config_become_the_settings():
    node = {
        "_target_": "resnet_cli.ClassifierTrainer", "averaging": "lookahead", "lookahead_k": 7, "lookahead_alpha": 1,
        "lookahead_final_alpha": 0.25, "lookahead_power": 3, "lookahead_buffers": True,
    }  # fmt: skip
    model = normalised_net()
    built = build.trainer(
        node, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), schedule=lambda step: 1.0, seed=0
    )
    assert built.state.average.options == LookaheadOptions(7, 1, 0.25, 3, buffers=True)
