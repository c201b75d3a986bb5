"""Options that are typed and have no effect are named in one line, and the run goes on."""

import pytest

from resnet_cli.session.unused_options import RunFacts, unused_options
from tests.support.runs import tiny
from tests.support.settings import settings_of

LOOKAHEAD = "trainer.averaging=lookahead"


@pytest.mark.parametrize(
    ("overrides", "needs"),
    [
        (["distillation.weight=0.5"], "teacher=RUN"),
        (["trainer.averaging_decay=0.9"], "trainer.averaging=ema"),
        (["trainer.averaging=ema", "trainer.swa_start=0.5"], "trainer.averaging=swa"),
        (["trainer.averaging=swa", "trainer.lookahead_k=7"], LOOKAHEAD),
        (["trainer.lookahead_buffers=true"], LOOKAHEAD),
        (["trainer.precision=fp32", "trainer.cpu_bf16=true"], "trainer.precision=auto"),
        (["trainer.resolution_multiple=4"], "trainer.resolution"),
        (["schedule.warmup_shape=constant"], "schedule.warmup"),
        (["data.augment.erase_area=[0.1,0.2]"], "data.augment.erase"),
        (["data.val_fraction=0", "trainer.early_stopping=1"], "validation images (data.val_fraction)"),
        (["data.val_fraction=0", "trainer.select_by=val_loss"], "validation images (data.val_fraction)"),
        (["trainer.sync_batch_norm=true"], "trainer.processes"),
        (["trainer.max_restarts=2"], "trainer.processes"),
        (["trainer.collective_timeout=60"], "trainer.processes"),
        (["sweep.isolate=true"], "-m"),
        (["resume_force=true"], "resume=RUN"),
        (["data.augment=null", "seed.augment=4"], "augmentation or dropout"),
        (["data.augment.policy=augmix", "data.augment.randaugment_ops=1"], "data.augment.policy=randaugment"),
    ],
)
def test_an_option_without_effect_is_named(train, overrides, needs):
    status, out, err = train(*tiny(*overrides, "trainer.epochs=1"))
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if "has no effect" in line] == [
        f"{overrides[-1]}: has no effect without {needs}"
    ]


@pytest.mark.parametrize(
    ("overrides", "needs"),
    [
        (["model.gate_bias=3"], "model.shortcut=exclusive_gating or shortcut_gating"),
        (["model.shortcut=shortcut_gating", "model.gate_bias=3"], None),
        (["model.residual=false", "model.shortcut=C"], "model.residual=true"),
        (["model.residual=false", "model.gate_bias=3"], "model.residual=true"),
        (["model=resnet18", "model.residual=false", "model.shortcut=C"], "model.residual=true"),
        (["model=plain_mlp", "model.shortcut=C"], "model.residual=true"),
        (["model=residual_mlp", "model.gate_bias=3"], "model.shortcut=exclusive_gating or shortcut_gating"),
        (["model=resnet", "model.norm=group", "model.batchnorm=true"], "model.norm=null"),
        (["model=resnet", "model.batchnorm=false"], None),
        (["model=resnet", "model.hidden_dropout=0.5"], "model.hidden_dims"),
        (["model=cnn", "model.hidden_dims=[]", "model.hidden_dropout=0.5"], "model.hidden_dims"),
        (["model=cnn", "model.hidden_dropout=0.5"], None),
    ],
)
def test_options_of_a_model_without_effect_are_named(overrides, needs):
    expected = [] if needs is None else [f"{overrides[-1]}: has no effect without {needs}"]
    assert unused_options(settings_of(*overrides), overrides) == expected


def test_options_with_an_effect_are_not_named(train):
    used = ["trainer.averaging=ema", "trainer.averaging_decay=0.9"]
    used += ["schedule=cosine", "schedule.warmup=1", "schedule.warmup_start=0.1", "data.augment.crop=1"]
    status, out, _ = train(*tiny(*used, "data.augment.crop_padding=reflect", "trainer.epochs=2"))
    assert status == 0
    assert "has no effect" not in out


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.early_stopping=1"],
        ["trainer.overfit_batches=1", "data.val_fraction=0", "trainer.early_stopping=1"],
        ["resume=auto", "hydra.run.dir=a", "resume_force=true"],
        ["trainer.sync_batch_norm=false", "resume_force=false"],
        ["seed.augment=4"],
        ["data.augment=null", "model=resnet8", "model.width=4", "model.stochastic_depth=0.1", "seed.augment=4"],
        ["trainer.deterministic=true", "trainer.shards=2", "trainer.sync_batch_norm=true"],
        pytest.param(["-m", "sweep.isolate=true", "seed=0"], marks=pytest.mark.slow),
    ],
)
def test_an_option_with_an_effect_is_not_named(train, overrides):
    status, out, err = train(*tiny(*overrides, "trainer.epochs=1"))
    assert (status, err) == (0, "")
    assert "has no effect" not in out


def test_early_stopping_without_validation_is_named_wherever_it_is_set():
    settings = {"trainer": {"_target_": "resnet_cli.ClassifierTrainer", "early_stopping": 3}}
    line = "trainer.early_stopping=3: has no effect without validation images (data.val_fraction)"
    assert unused_options(settings, [], RunFacts(has_validation=False)) == [line]
    assert unused_options(settings, ["trainer.early_stopping=3"], RunFacts(has_validation=False)) == [line]
    assert unused_options(settings, []) == []


def test_a_users_own_trainer_may_use_its_keys_in_any_way():
    settings = {"trainer": {"_target_": "mine.Trainer", "averaging": "none", "swa_start": 0.5}}
    assert unused_options(settings, ["trainer.swa_start=0.5"]) == []
    settings["trainer"]["_target_"] = "resnet_cli.ClassifierTrainer"
    assert len(unused_options(settings, ["++trainer.swa_start=0.5"])) == 1


def test_a_file_that_leaves_the_other_key_out_may_have_any_default():
    settings = {"data": {"_target_": "resnet_cli.data.image_folder", "augment": {"crop_padding": "reflect"}}}
    assert unused_options(settings, ["data.augment.crop_padding=reflect"]) == []


def test_fine_tuning_without_weights_is_named(train, tmp_path):
    start = tiny("experiment=finetune", "model=resnet8", "model.width=4", "trainer.epochs=1")
    line = "experiment=finetune: the weights are random"
    status, out, _ = train(*start, "hydra.run.dir=a")
    assert (status, line in out) == (0, True)
    status, out, _ = train(*start, "init_from=a", "hydra.run.dir=b")
    assert (status, line in out) == (0, False)
