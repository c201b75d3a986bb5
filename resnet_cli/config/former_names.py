"""Dotted names that have moved since version 0.1.0, so that runs of every 0.x open in all later ones.

Stored configs are read with their present names before anything compares, hashes or judges them.
"""

from collections.abc import Mapping
from typing import Any

# A former module, or a former name in one -> where its public names are now.
FORMER = {
    "resnet_cli.trainer.ClassifierTrainer": "resnet_cli.ClassifierTrainer",
    "resnet_cli.sweep.Sweep": "resnet_cli.sweeps.Sweep",
    "resnet_cli.optim": "resnet_cli.optimizers",
    "resnet_cli.schedule": "resnet_cli.schedules",
    "resnet_cli.trackers": "resnet_cli.loggers",
    **{
        f"resnet_cli.data.{module}": "resnet_cli.data" for module in ("augment", "bundled", "cifar", "folder", "vision")
    },
    "resnet_cli.models.blocks": "resnet_cli.models",
}
# Present names of the targets in the config files of 0.1.0 -> their names in 0.1.0.
OF_0_1_0 = {
    new: old for old, new in FORMER.items() if old.count(".") == 1 or old.endswith((".ClassifierTrainer", ".Sweep"))
}
# Keys that the config files of this package have gained since, with the values that keep the former behaviour.
ADDED_SINCE_0_1_0: Mapping[str, Any] = {
    "loss._target_": "resnet_cli.losses.CrossEntropy", "loss.class_weights": None, "loss.label_smoothing": 0.0,
    "data.classes": None, "data.merge": None, "data.label_noise": 0.0, "data.folds": None, "data.fold": 0,
    "data.group": None, "data.splits": None, "data.layout": "auto", "data.background": "white",
    "data.interpolation": "bilinear", "data.range": None,
    "data.sampler": "uniform", "data.eval_crop": 1.0,
    "data.augment.policy": "none", "data.augment.randaugment_ops": 2, "data.augment.randaugment_magnitude": 9,
    "data.augment.autoaugment_policy": "imagenet", "data.augment.augmix_severity": 3, "data.augment.erase": 0.0,
    "data.augment.erase_area": [0.02, 0.33], "data.augment.cutout_whole": False,
    "data.augment.resized_crop": None, "data.augment.rotation": 0.0, "data.augment.translate": 0.0,
    "data.augment.scale": None, "data.augment.shear": 0.0, "data.augment.grey": 0.0, "data.augment.blur": 0.0,
    "data.augment.solarise": 0.0, "data.augment.repeats": 1, "data.augment.transforms": [],
    "trainer.select_by": "val_accuracy", "trainer.time_budget": None, "trainer.steps_per_epoch": None,
    "model.convolutions": 2, "model.skip_connections": False, "model.norm_momentum": 0.4, "model.head_std": None,
    "model.bias": True, "model.branch_scale": None, "model.weights": None,
    "trainer.log_sharpness": None,
    "trainer.swa_start": 0.75, "trainer.swa_lr": None,
    "trainer.lookahead_k": 5, "trainer.lookahead_alpha": 0.5, "trainer.lookahead_final_alpha": None,
    "trainer.lookahead_power": 1.0, "trainer.lookahead_buffers": False,
    "trainer.on_oom": "raise",
    "seed_init": None, "seed_order": None, "seed_augment": None,
    "trainer.resolution": None, "trainer.resolution_multiple": 8,
    "teacher": None, "distillation._target_": "resnet_cli.losses.Distillation", "distillation.temperature": 4.0,
    "distillation.weight": 0.9,
    "trainer.processes": 1, "trainer.shards": None, "trainer.sync_batch_norm": False,
    "trainer.collective_timeout": 600.0, "trainer.max_restarts": 0,
    "trainer.freeze": None, "optimizer.layer_decay": None, "optimizer.head_lr": None,
}  # fmt: skip
# Likewise, keys that the files of one class of `model` have gained, and those of another one had already.
ADDED_TO_CLASSES: Mapping[str, Mapping[str, Any]] = {"resnet_cli.models.StagedResNet": {"model.width": 1}}


def present_name(target: str) -> str:
    """Return the present form of a dotted name; other names are returned as they are."""
    return _renamed(target, FORMER)


def name_in_0_1_0(target: str) -> str:
    """Return the name by which version 0.1.0 stored `target`."""
    return _renamed(target, OF_0_1_0)


def _renamed(target: str, names: Mapping[str, str]) -> str:
    if target in names:
        return names[target]
    module, _, name = target.rpartition(".")
    return f"{names[module]}.{name}" if module in names else target


def with_present_names(value: Any) -> Any:
    """Return a config in which every `_target_` has its present name; the config itself is left unchanged."""
    if isinstance(value, Mapping):
        return {
            str(key): present_name(item) if key == "_target_" and isinstance(item, str) else with_present_names(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(with_present_names(item) for item in value)
    return value
