"""Resuming with a changed config, as `resume_force=true` allows: each change takes effect or is refused."""

import shutil

import pytest
import torch

from resnet_cli.runs import checkpoints
from resnet_cli.training.trainer import ClassifierTrainer
from tests.support.runs import record_of, rows_of, tiny

FORCED = ["resume=run", "trainer.epochs=2", "resume_force=true"]
OWN = "{head:{schedule:{_target_:resnet_cli.schedules.constant,warmup:0}}}"


@pytest.fixture
def start(train):
    def start(*options, epochs=1):
        common = ["hydra.run.dir=run", f"trainer.epochs={epochs}", "trainer.max_batches=1", "schedule=constant"]
        status, _, err = train(*tiny(*common, *options))
        assert (status, err) == (0, "")

    return start


def groups_of(tmp_path):
    return torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)["state"]["optimizer"]["param_groups"]


def test_settings_of_muons_other_parameters_take_effect(train, tmp_path, start):
    start("optimizer=muon")
    changes = ["optimizer.sgd_lr=0.03", "optimizer.sgd_momentum=0.5", "optimizer.sgd_weight_decay=0.001"]
    assert train(*FORCED, *changes)[0] == 0
    matrices, others = groups_of(tmp_path)
    names = ("lr", "initial_lr", "momentum", "weight_decay")
    assert [others[name] for name in names] == [0.03, 0.03, 0.5, 0.001]
    assert [matrices[name] for name in names] == [0.1, 0.1, 0.6, 0.0]


def test_a_group_that_moves_to_the_other_half_of_muon_gets_its_settings(train, tmp_path, start):
    start("optimizer=muon", "optimizer.groups={head.linear.weight:{use_muon:false}}", "optimizer.sgd_lr=0.05")
    assert [group["lr"] for group in groups_of(tmp_path)] == [0.1, 0.05, 0.05]
    assert train(*FORCED, "optimizer.groups={head.linear.weight:{use_muon:true}}")[0] == 0
    assert [(group["lr"], group["use_muon"]) for group in groups_of(tmp_path)] == [
        (0.1, True), (0.05, False), (0.1, True),
    ]  # fmt: skip


def test_a_groups_own_schedule_comes_and_goes(train, tmp_path, start):
    start("optimizer.groups={head:{lr:0.2}}")
    shutil.copytree(tmp_path / "run", tmp_path / "plain")
    half = OWN.replace("warmup:0", "warmup:2,warmup_shape:constant,warmup_start:0.5")
    assert train(*FORCED, f"optimizer.groups={half.replace('{schedule', '{lr:0.2,schedule')}")[0] == 0
    assert [group.get("schedule") for group in groups_of(tmp_path)] == [None, "head"]
    assert rows_of(tmp_path / "run")[1]["lrs"] == {"other": 0.1, "head": 0.1}
    shutil.rmtree(tmp_path / "run")
    shutil.move(tmp_path / "plain", tmp_path / "run")
    assert train(*FORCED, "optimizer.groups={fc|head:{lr:0.2}}")[0] == 0
    assert [group["name"] for group in groups_of(tmp_path)] == ["other", "fc|head"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("optimizer=rmsprop", "optimizer._target_: torch.optim.AdamW -> torch.optim.RMSprop"),
        ("model=resnet20", "model.depth: 8 -> 20"),
        ("trainer.averaging=none", "trainer.averaging: ema -> none"),
        ("trainer.averaging=swa", "trainer.averaging: ema -> swa"),
    ],
)
def test_a_change_that_the_saved_state_does_not_fit_is_one_error(train, start, change, problem):
    start("model=resnet8", "optimizer=adamw", "trainer.averaging=ema", epochs=2)
    status, out, err = train(*FORCED[:1], "trainer.epochs=3", "resume_force=true", change)
    assert (status, err.count("error:"), err.count("\n")) == (2, 1, 1)
    assert err.startswith(f"error: {problem}: cannot be forced: run holds ")
    assert ("init_from=run" in err) == (change != "model=resnet20")
    assert "resuming from" not in out


def test_options_of_another_optimizer_with_the_same_state_take_effect(train, tmp_path, start):
    start("optimizer=adam")
    assert train(*FORCED, "optimizer=adamw", "optimizer.weight_decay=0.05")[0] == 0
    (group,) = groups_of(tmp_path)
    assert (group["weight_decay"], group["decoupled_weight_decay"]) == (0.05, True)


def test_another_class_of_a_groups_own_optimizer_with_the_same_state_takes_effect(train, tmp_path, start):
    groups = "optimizer.groups={head:{optimizer:{_target_:torch.optim.Adam,lr:0.01}}}"
    start(groups)
    status, _, err = train(*FORCED, groups.replace("Adam", "AdamW"))
    assert (status, err) == (0, "")
    assert [group.get("decoupled_weight_decay") for group in groups_of(tmp_path)] == [None, True]


def test_a_run_whose_validation_part_was_taken_away_ends_with_its_last_epoch(train, tmp_path, start):
    start("trainer.early_stopping=5", epochs=2)
    assert record_of(tmp_path / "run")["best"]["epoch"] in (1, 2)
    status, _, err = train("resume=run", "trainer.epochs=4", "resume_force=true", "data.val_fraction=0")
    assert (status, err) == (0, "")
    record = record_of(tmp_path / "run")
    assert (record["status"], record["best"], record["selection"]["weights"]) == ("finished", None, "last epoch")
    assert torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)["state"]["epoch"] == 4


def test_a_run_gets_validation_images_that_it_did_not_have(train, tmp_path, start):
    start("data.val_fraction=0", epochs=2)
    status, _, err = train("resume=run", "trainer.epochs=4", "resume_force=true", "data.val_fraction=0.25")
    assert (status, err) == (0, "")
    assert [row["val_accuracy"] is None for row in rows_of(tmp_path / "run")] == [True, True, False, False]
    record = record_of(tmp_path / "run")
    assert (record["status"], record["best"]["epoch"] in (3, 4)) == ("finished", True)


def test_a_best_epoch_of_other_validation_images_is_not_the_one_to_beat(train, tmp_path, start):
    start("trainer.early_stopping=1", epochs=2)
    last = tmp_path / "run/checkpoints/last.pt"
    content = checkpoints.load(last)
    best = {**content["state"]["best"], "val_accuracy": 101.0}  # an epoch that no later one beats
    checkpoints.save(last, {**content, "state": {**content["state"], "best": best}})
    status, _, err = train("resume=run", "trainer.epochs=3", "resume_force=true", "data.split_seed=1")
    assert (status, err) == (0, "")
    record = record_of(tmp_path / "run")
    assert record["best"]["epoch"] == 3
    assert record["best"]["val_accuracy"] == rows_of(tmp_path / "run")[2]["val_accuracy"]
    assert torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)["state"]["epoch"] == 3


STALE = ["model=plain_mlp", "optimizer.lr=1e-30", "hydra.run.dir=run"]  # no epoch is better than the first one
OTHER_VALIDATION = ["resume=run", "resume_force=true", "data.split_seed=1"]


def test_a_run_that_has_stopped_early_is_complete_whatever_its_validation_images(train, tmp_path):
    assert train(*tiny(*STALE, "trainer.epochs=6", "trainer.early_stopping=1"))[0] == 0
    before, best = record_of(tmp_path / "run"), (tmp_path / "run/checkpoints/best.pt").read_bytes()
    status, out, _ = train(*OTHER_VALIDATION)
    assert status == 0
    assert "nothing to do: stopped early after epoch 2 of 6" in out
    record = record_of(tmp_path / "run")
    assert (record["best"], record["test"]) == (before["best"], before["test"])
    assert (tmp_path / "run/checkpoints/best.pt").read_bytes() == best
    assert train(*OTHER_VALIDATION, "trainer.epochs=7")[0] == 0
    assert record_of(tmp_path / "run")["best"]["epoch"] >= 3


def test_the_best_weights_stay_until_an_epoch_is_validated_on_other_images(train, tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def fit(*_, **__):
        raise KilledError

    assert train(*tiny(*STALE))[0] == 0
    best = tmp_path / "run/checkpoints/best.pt"
    assert checkpoints.load(best)["state"]["epoch"] == 1
    content = best.read_bytes()
    monkeypatch.setattr(ClassifierTrainer, "fit", fit)
    with pytest.raises(KilledError):
        train(*OTHER_VALIDATION, "trainer.epochs=3")
    assert best.read_bytes() == content
