"""Images with several labels in whole runs: defaults, rows, thresholds, resume, and what is refused."""

import numpy as np
import pytest
import torch
import yaml

from tests.support.runs import assert_same_end, record_of, rows_of

NAMES = ("red", "green", "blue")
SMALL = [
    "data.labels=multi", "data.batch_size=16", "data.augment.crop=0", "data.augment.flip=none", "optimizer.lr=0.05",
    "model=cnn", "model.channels=[8]", "model.pool_every=1", "model.hidden_dims=[16]", "trainer.epochs=3",
]  # fmt: skip
ARRAYS = ["data=arrays", "data.file=x.npz", "data.class_names=[red,green,blue]", *SMALL]


@pytest.fixture
def bands(tmp_path):
    """Grey images with a bright band of a colour for each label, as arrays."""
    draw = np.random.default_rng(0)
    labels = draw.random((160, 3)) < [0.6, 0.3, 0.2]
    images = draw.normal(90, 15, (160, 9, 9, 3))
    for k in range(3):
        images[:, 3 * k : 3 * k + 2, :, k] += 110 * labels[:, k, None, None]
    np.savez(tmp_path / "x.npz", images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return labels


def test_a_run_has_its_defaults_rows_and_thresholds(train, tmp_path, bands):
    status, out, err = train(*ARRAYS, "hydra.run.dir=run")
    assert (status, err) == (0, "")
    assert "labels  several per image: loss BinaryCrossEntropy, the best epoch by val_map" in out
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["loss"]["_target_"] == "resnet_cli.losses.BinaryCrossEntropy"
    rows, record = rows_of(tmp_path / "run"), record_of(tmp_path / "run")
    assert all(0 <= row[name] <= 100 for row in rows for name in ("val_map", "val_macro_f1", "val_accuracy"))
    best = record["best"]
    assert best["val_map"] == max(row["val_map"] for row in rows) > 60
    assert tuple(best["thresholds"]) == NAMES
    assert record["selection"]["by"] == best["select_by"] == "val_map"
    assert set(record["test"]) >= {"map", "macro_f1", "macro_f1_with_thresholds"}
    stored = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    assert stored["state"]["thresholds"] == list(best["thresholds"].values())
    assert stored["data"]["labels"] == "multi"


def test_a_resumed_run_ends_as_an_uninterrupted_one(train, tmp_path, bands):
    options = ["data.augment.mixup=0.4", "data.sampler=balanced", "loss.class_weights=balanced", "schedule=constant"]
    options += [option for option in ARRAYS if not option.startswith("trainer.epochs")]
    for folder, epochs in (("whole", 3), ("parts", 1)):
        command = [*options, f"hydra.run.dir={folder}", "trainer.accumulate=2", f"trainer.epochs={epochs}"]
        assert train(*command)[0] == 0
    status, _, err = train("resume=parts", "trainer.epochs=3")
    assert (status, err) == (0, "")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["loss=cross_entropy"], "loss._target_: resnet_cli.losses.CrossEntropy takes one class for each image"),
        (["loss=focal"], "loss._target_: resnet_cli.losses.Focal takes one class for each image"),
        (
            ["trainer.select_by=val_balanced_accuracy"],
            "trainer.select_by=val_balanced_accuracy: the images have several",
        ),
        (["data=digits", "~data.labels", "trainer.select_by=val_map"], "trainer.select_by=val_map: needs images with"),
        (["loss._target_=torch.nn.MultiMarginLoss"], "loss: torch.nn.MultiMarginLoss on logits [2, 3] and class prob"),
    ],
)
def test_what_does_not_go_with_label_sets_is_refused(train, tmp_path, bands, options, line):
    arguments = ARRAYS if "data=digits" not in options else ["data=digits", "data.train_size=40"]
    status, _, err = train(*arguments, "hydra.run.dir=run", *[o for o in options if o[:6] not in ("data=d", "~data.")])
    assert status == 2
    (found,) = err.splitlines()
    assert found.startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


def test_rows_of_several_ones_suggest_label_sets(train, bands):
    status, _, err = train(*[option for option in ARRAYS if option != "data.labels=multi"])
    assert status == 2
    assert "data.labels=multi if images have several" in err


def test_chosen_defaults_are_kept(train, tmp_path, bands):
    options = ["loss._target_=torch.nn.BCEWithLogitsLoss", "trainer.select_by=val_loss", "trainer.epochs=1"]
    status, _, err = train(*(o for o in ARRAYS if not o.startswith("trainer.epochs")), *options, "hydra.run.dir=run")
    assert (status, err) == (0, "")
    assert record_of(tmp_path / "run")["best"]["select_by"] == "val_loss"
