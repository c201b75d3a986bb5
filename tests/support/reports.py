"""Run folders as resnet-train writes them, without training."""

import json
from copy import deepcopy

import yaml

from resnet_cli.config import stored

CONFIG = {
    "model": {"_target_": "resnet_cli.models.CifarResNet", "depth": 8, "residual": True},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "groups": {}},
    "schedule": {"_target_": "resnet_cli.schedules.one_cycle", "warmup": 0},
    "data": {"_target_": "resnet_cli.data.digits", "val_fraction": 0.1, "split_seed": 0, "train_size": None},
    "trainer": {"_target_": "resnet_cli.ClassifierTrainer", "epochs": 3, "device": "auto"},
    "name": "resnet8", "seed": 0,
}  # fmt: skip


def write_run(folder, *changes, status="finished", val=90.0, test=89.0, epochs=3, command="resnet-train", **record):
    """A run folder as resnet-train writes it; changes are `key=value` in YAML. Its record may have `overrides`."""
    config = deepcopy(CONFIG)
    for key, value in (change.split("=", 1) for change in changes):
        node = config
        *path, last = key.split(".")
        for name in path:
            node = node.setdefault(name, {})
        node[last] = yaml.safe_load(value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(stored.dump(config), encoding="utf-8")
    finished = {
        "test": {"accuracy": test, "loss": 0.5, "samples": 355} if isinstance(test, float) else test,
        "selection": {"weights": "best epoch", "by": "val_accuracy", "val_samples": 144},
    }
    content = {
        "status": status, "command": command, "seed": config["seed"], "parameters": 75290, "start": "scratch",
        "ended": "2026-11-21T10:00:00+00:00", "best": {"epoch": 2, "val_accuracy": val, "val_loss": 0.4},
        **(finished if status == "finished" else {}), **record,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    rows = [
        {"epoch": e, "train_loss": 1 / e, "train_accuracy": 50.0 + e, "val_loss": 1.2 / e, "val_accuracy": val - 3 + e,
         "seconds": 2.0}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
