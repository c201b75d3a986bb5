"""`seed.init`, `seed.order`, `seed.augment`: what each decides, and what they mean together with `seed`."""

import pytest
import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.hydra_app.overrides import hydra_arguments
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.prepare import prepare
from resnet_cli.sweeps.placement import config_hash
from tests.support.runs import tiny

AUGMENTED = ["data.augment.crop=1", "data.augment.flip=random", "data.backend=device"]


def prepared(tmp_path, *options):
    config = RunConfig(**compose_settings(tiny(*AUGMENTED, *options)).settings)
    return prepare(config, RunDir(tmp_path / "run"))


def facts(run):
    """What a seed decides: weights, order of samples, pixels of the first batch for one order, seed of dropout."""
    loader = run.loaders.train
    return {
        "init": torch.cat([p.detach().flatten() for p in run.trainer.model.parameters()]),
        "order": loader._order(0),
        "augment": torch.tensor(run.trainer.stepper.seed),
    }


@pytest.mark.parametrize("part", ["init", "order", "augment"])
def test_each_part_decides_its_own(tmp_path, part):
    whole, changed, other = (
        facts(prepared(tmp_path, *o)) for o in (["seed=3"], ["seed=3", f"seed.{part}=8"], ["seed=8"])
    )
    for name in whole:
        expected = other if name == part else whole
        assert torch.equal(changed[name], expected[name]), name
        assert not torch.equal(whole[name], other[name]), name


def test_the_seed_of_augmentation_changes_pixels_and_not_their_order(tmp_path):
    first, second = (
        next(iter(prepared(tmp_path, "seed=3", *options).loaders.train.epoch(0)))
        for options in ([], ["seed.augment=8"])
    )
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])


def test_weights_that_a_net_draws_from_numpy_are_those_of_the_seed(tmp_path):
    net = "model._target_=tests.support.small_nets.DrawingNet"
    first, again, other = (prepared(tmp_path, net, f"seed={seed}").trainer.model.scale.item() for seed in (3, 3, 4))
    assert first == again != other


def test_all_parts_with_the_same_seed_are_that_seed(tmp_path):
    one = facts(prepared(tmp_path, "seed=8"))
    three = facts(prepared(tmp_path, "seed=3", "seed.init=8", "seed.order=8", "seed.augment=8"))
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_without_parts_nothing_is_stored_and_the_hash_is_the_former_one():
    settings = compose_settings(tiny("seed=3")).settings
    assert not [key for key in RunConfig(**settings).stored() if key.startswith("seed_")]
    former = {key: value for key, value in settings.items() if not key.startswith("seed_")}
    assert config_hash(settings) == config_hash(former)
    assert config_hash(compose_settings(tiny("seed=3", "seed.init=3")).settings) != config_hash(former)


def test_what_is_typed_becomes_a_key_that_hydra_takes():
    assert hydra_arguments(["-m", "seed=0,1", "seed.init=0,1,2"]) == ["-m", "++seed=0,1", "++seed_init=0,1,2"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            ["seed.int=1"],
            "seed.int: unknown key; it is one of seed.init, seed.order, seed.augment; did you mean seed.init",
        ),
        (["seed.init=1", "seed_init=2"], "seed.init: given twice, as 1 and as 2"),
        (["seed.init=-1"], "seed.init: -1 is not allowed"),
    ],
)
def test_a_wrong_part_is_named(typed, words):
    with pytest.raises(InputError, match=words):
        compose_settings(tiny(*typed))
