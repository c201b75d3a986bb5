"""Batches in the forms that loaders have, and what is said of those that are none."""

import pytest
import torch
from torch.nn.functional import one_hot

from resnet_cli.errors import InputError
from resnet_cli.training.batch_format import to_batch
from tests.support.trainers import blobs, loader, make_trainer, net

SEVERAL = r"several labels per image are floats \[B, K\] of 0 and 1, for example labels.float\(\), and classes have"
IMAGES, LABELS = torch.randn(6, 1, 4, 4), torch.arange(6) % 3


def fit(batches, val=None, epochs=1, model=None):
    trainer = make_trainer(model or net(), seed=1)
    trainer.fit(batches, val, num_epochs=epochs, verbose=False)
    return trainer


@pytest.mark.parametrize(
    "batch",
    [
        [IMAGES, LABELS], (IMAGES, LABELS, {"path": "x"}), {"image": IMAGES, "label": LABELS, "index": 3},
        {"pixel_values": IMAGES, "labels": LABELS}, {"x": IMAGES, "y": LABELS},
    ],
)  # fmt: skip
def test_usual_forms_of_a_pair_train_alike(batch):
    images, labels = to_batch(batch)
    assert images is IMAGES
    assert labels is LABELS
    expected = fit([(IMAGES, LABELS)], [(IMAGES, LABELS)])
    assert fit([batch], [batch]).state.rows[0]["val_loss"] == expected.state.rows[0]["val_loss"]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (IMAGES, "this one is a Tensor"),
        ((IMAGES,), "this one is a tuple of Tensor"),
        ([], "this one is a list of nothing"),
        ({"foo": IMAGES, "label": LABELS}, "this one is a dictionary of 'foo', 'label'"),
        (("a.png", LABELS), "this one is a tuple of str, Tensor"),
        ((IMAGES.byte(), LABELS), r"images are torch.uint8: normalise them first"),
        ((IMAGES, LABELS.float()), r"labels are torch.float32 of shape \[6\]: classes are integers"),
        ((IMAGES, LABELS[:, None]), r"labels are classes of shape \[6, 1\]: they must have shape \[B\]"),
        ((IMAGES, LABELS.int()), r"labels are torch.int32: classes are int64 \[B\]"),
        ((IMAGES, LABELS > 0), r"labels are torch.bool: classes are int64"),
        ((IMAGES, one_hot(LABELS, 3)), rf"labels are torch.int64 of shape \[6, 3\]: {SEVERAL}"),
        ((IMAGES, one_hot(LABELS, 3).int()), rf"labels are torch.int32 of shape \[6, 3\]: {SEVERAL}"),
        ((IMAGES, one_hot(LABELS, 3).bool()), rf"labels are torch.bool of shape \[6, 3\]: {SEVERAL}"),
        ((IMAGES, LABELS[:, None] > 0), rf"labels are torch.bool of shape \[6, 1\]: {SEVERAL}"),
        ((IMAGES[:0], LABELS[:0]), "this one has no images"),
        ((IMAGES, LABELS[:5]), "a batch has 6 images and 5 labels"),
        ((IMAGES, LABELS + 5), "labels go from 5 to 7: .*out of bounds"),
    ],
)
def test_what_is_no_batch_is_said(batch, words):
    with pytest.raises(InputError, match=words):
        fit([batch])
    with pytest.raises(InputError, match=words):
        fit([(IMAGES, LABELS)], [batch])
    trainer = make_trainer(net())
    for method in (trainer.train_batch, trainer.test_batch):
        with pytest.raises(InputError, match=words):
            method(batch)


def test_class_probabilities_are_labels_too():
    fit([(IMAGES, one_hot(LABELS, 3).float())])


@pytest.mark.parametrize("empty", [[], iter(())])
def test_an_epoch_without_a_batch_is_an_error(empty):
    with pytest.raises(InputError, match="the loader has no batch in this epoch"):
        fit(empty)
    with pytest.raises(InputError, match="the loader has no batch in this epoch"):
        fit(loader(), empty)
    with pytest.raises(InputError, match="no batch"):
        make_trainer(net()).train_epoch(empty, verbose=False)
    with pytest.raises(InputError, match="no batch"):
        make_trainer(net()).test_epoch(empty, verbose=False)


def test_a_generator_trains_one_epoch_and_says_that_it_has_no_second():
    batches = (batch for batch in loader(blobs()))
    trainer = make_trainer(net(), seed=1)
    with pytest.raises(InputError, match="not a generator"):
        trainer.fit(batches, None, num_epochs=2, verbose=False)
    assert trainer.state.epoch == 1
