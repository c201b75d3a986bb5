"""Keys that a plan does not change."""

import pytest

from resnet_cli.planning.typed import keys_of_other_classes, least_batch

USUAL = {
    "data": {"augment": {"_target_": "resnet_cli.data.Augment"}},
    "trainer": {"_target_": "resnet_cli.ClassifierTrainer"},
    "loss": {"_target_": "resnet_cli.losses.CrossEntropy"},
}
KEYS = ["data.augment.flip", "data.augment.bias", "trainer.cpu_bf16", "trainer.time_budget", "optimizer.lr"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"data": {"augment": {"_target_": "torch.nn.Linear"}}}, ["data.augment.flip"]),
        ({"data": {"augment": None}, "loss": None}, []),
        ({"trainer": {"_target_": "torch.nn.Linear"}}, ["trainer.cpu_bf16"]),
        ({"data": {"augment": {"_target_": "no_such_module.Augment"}}}, ["data.augment.flip", "data.augment.bias"]),
    ],
)
def test_other_classes_may_lack_keys_that_plans_choose(settings, expected):
    assert list(keys_of_other_classes({**USUAL, **settings}, KEYS)) == expected


@pytest.mark.parametrize(
    ("trainer", "augment", "expected"),
    [
        ({}, None, 1),
        ({"accumulate": 8, "processes": 4}, {"repeats": 2}, 32),
        ({"accumulate": 8}, {"repeats": 64}, 64),
        ({"accumulate": None}, {}, 1),
    ],
)
def test_a_batch_has_images_for_micro_batches_processes_and_repeats(trainer, augment, expected):
    assert least_batch({"trainer": trainer, "data": {"augment": augment}}) == expected
