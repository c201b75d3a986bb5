"""The group `loss` in whole runs: what the builder passes, what is refused, and what the record says."""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.data import Dataset, DatasetSplit, make_loaders
from resnet_cli.errors import InputError
from resnet_cli.losses import CrossEntropy, Focal
from resnet_cli.session.losses import build_loss, try_distillation
from resnet_cli.training.evaluation import smoothing_off
from resnet_cli.training.step import StepOptions, compute_loss
from resnet_cli.training.teacher import Teacher
from tests.support.runs import record_of, rows_of, tiny
from tests.support.trainers import make_trainer, net

CROSS_ENTROPY = {"_target_": "resnet_cli.losses.CrossEntropy", "class_weights": None, "label_smoothing": 0.0}
FOCAL = {"_target_": "resnet_cli.losses.Focal"}
TRAINER = {"_target_": "resnet_cli.ClassifierTrainer", "label_smoothing": 0.0}


class Margin(nn.Module):
    """A user's own loss."""

    def __init__(self, num_classes: int, margin: float = 0.5):
        super().__init__()
        self.margin, self.classes = margin, num_classes

    def forward(self, logits, labels):
        return F.cross_entropy(logits + self.margin, labels)


class Vector(nn.Module):
    """No mean."""

    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels, reduction="none")


class Total(nn.Module):
    """The sum over the images."""

    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels, reduction="sum")


class Negative(nn.Module):
    """A mean that is negative, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits, labels):
        self.calls += 1
        return -logits.softmax(1).gather(1, labels[:, None]).mean()


class Searching(nn.Module):
    """Fails."""

    def forward(self, logits, labels):
        return {}["scale"]


class Returning(nn.Module):
    """Returns what it is told to make of the loss; of up to `until` images the loss itself."""

    KINDS: ClassVar = {
        "detached": lambda loss: loss.detach(),
        "none": lambda loss: None,
        "float": lambda loss: loss.item(),
        "whole": lambda loss: loss.long(),
        "vector": lambda loss: loss[None],
    }

    def __init__(self, kind: str, until: int = 0):
        super().__init__()
        self.kind, self.until = kind, until

    def forward(self, logits, labels):
        loss = F.cross_entropy(logits, labels)
        return loss if len(labels) <= self.until else self.KINDS[self.kind](loss)


class Learnt(nn.Module):
    """A loss with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def rare_loaders(counts=(60, 30, 10)):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    split = DatasetSplit(torch.randint(0, 256, (len(labels), 4, 4, 1), dtype=torch.uint8), labels)
    dataset = Dataset("rare", ("cat", "dog", "owl"), split, split)
    return make_loaders(dataset, device="cpu", seed=0, val_fraction=0.1, batch_size=16)


def of(cls, **arguments):
    return {"_target_": f"{__name__}.{cls.__name__}", **arguments}


def test_the_default_loss_is_the_trainers_own():
    loaders = rare_loaders()
    for node in (None, CROSS_ENTROPY):
        for smoothing in (0.0, 0.1):
            assert build_loss(node, {**TRAINER, "label_smoothing": smoothing}, loaders) is None


def test_balanced_weights_come_from_the_training_images_alone():
    loaders = rare_loaders()
    assert loaders.class_counts == (54, 27, 9)
    built = build_loss({**CROSS_ENTROPY, "class_weights": "balanced"}, {**TRAINER, "label_smoothing": 0.2}, loaders)
    assert built.weight.tolist() == pytest.approx([90 / 162, 90 / 81, 90 / 27])
    assert built.label_smoothing == 0.2  # of the trainer


def test_a_users_loss_gets_what_it_has_parameters_for():
    built = build_loss(of(Margin, margin=2.0), TRAINER, rare_loaders())
    assert (built.classes, built.margin) == (3, 2.0)
    assert isinstance(build_loss({"_target_": "torch.nn.CrossEntropyLoss"}, TRAINER, rare_loaders()), nn.Module)


@pytest.mark.parametrize(
    ("node", "smoothing", "words"),
    [
        (
            {**CROSS_ENTROPY, "label_smoothing": 0.1},
            0.2,
            r"trainer.label_smoothing=0.2: loss.label_smoothing=0.1 ",
        ),
        (
            FOCAL,
            0.2,
            r"trainer.label_smoothing=0.2: needs loss=cross_entropy; set loss.l",
        ),
        (of(Margin), 0.2, "smooth in your own loss"),
        (
            {**FOCAL, "class_weights": {"ow": 3.0}},
            0,
            "^loss.class_weights: there is no class 'ow'; did you mean owl",
        ),
        ({**FOCAL, "class_weights": [1, 2]}, 0, "^loss.class_weights: 2 numbers, but the data have 3 classes"),
        ({"_target_": "torch.nn.MSELoss"}, 0, r"^loss: torch.nn.MSELoss on logits \[2, 3\] and classes \[2\]: "),
        (of(Vector), 0, r"Vector on logits \[2, 3\] and classes \[2\]: returns \[2\]; it must be one number"),
        (of(Searching), 0, r"classes \[2\]: KeyError: 'scale' \(test_losses\.py:\d+\)$"),
        (of(Learnt), 0, "Learnt has parameters, which no optimizer would train"),
        ({"_target_": "builtins.dict"}, 0, r"^loss._target_: builtins.dict returned a dict"),
    ],
)
def test_a_loss_that_does_not_fit_is_named(node, smoothing, words):
    with pytest.raises(InputError, match=words):
        build_loss(node, {**TRAINER, "label_smoothing": smoothing}, rare_loaders())


SUM = {"_target_": "torch.nn.CrossEntropyLoss", "reduction": "sum"}
NEGATIVE_LIKELIHOOD = {"_target_": "torch.nn.NLLLoss"}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (SUM, r"loss: torch\.nn\.CrossEntropyLoss returns the sum over the images, .*; set loss\.reduction=mean$"),
        (of(Total), r"loss: \S+\.Total returns the sum over the images, not the mean; it must be one number, the mean"),
        (NEGATIVE_LIKELIHOOD, r"loss\._target_: torch\.nn\.NLLLoss takes log-probabilities, .* use loss=cross_entropy"),
    ],
)  # fmt: skip
def test_a_loss_that_cannot_be_right_is_refused_in_new_runs(node, words):
    with pytest.raises(InputError, match=f"^{words}"):
        build_loss(node, TRAINER, rare_loaders(), is_new=True)
    assert build_loss(node, TRAINER, rare_loaders()) is not None  # to evaluate or resume a former one


def test_an_empty_list_of_class_weights_is_refused_in_new_runs_only():
    node = {**CROSS_ENTROPY, "class_weights": []}
    with pytest.raises(InputError, match=r"^loss\.class_weights: 0 numbers, but the data have 3 classes"):
        build_loss(node, TRAINER, rare_loaders(), is_new=True)
    assert build_loss(node, TRAINER, rare_loaders()) is None  # the default loss, as former versions trained it
    assert build_loss({**CROSS_ENTROPY, "class_weights": {}}, TRAINER, rare_loaders(), is_new=True) is None


@pytest.mark.parametrize(
    "node", [{**SUM, "reduction": "mean"}, of(Margin), of(Negative), FOCAL, {"_target_": "torch.nn.MultiMarginLoss"}]
)
def test_means_are_accepted(node):
    assert build_loss(node, TRAINER, rare_loaders(), is_new=True) is not None


def test_a_loss_with_statistics_is_called_once_before_training():
    assert build_loss(of(Negative), TRAINER, rare_loaders(), is_new=True).calls == 1


@pytest.mark.slow
def test_a_run_with_a_sum_is_refused_before_anything_is_made_and_a_former_one_resumes(train, tmp_path, monkeypatch):
    options = ["trainer.epochs=1", "optimizer.lr=1e-4", "loss._target_=torch.nn.CrossEntropyLoss"]
    command = tiny("hydra.run.dir=a", *options, "loss.reduction=sum")
    status, _, err = train(*command)
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert "set loss.reduction=mean" in err
    with monkeypatch.context() as former:
        former.setattr("resnet_cli.session.losses._require_mean_over_images", lambda *_: None)
        assert train(*command)[0] == 0
    assert train("reproduce=a", "hydra.run.dir=b")[0] == 0
    assert train("resume=a", "trainer.epochs=2")[0] == 0


NO_LOSS = [
    ("detached", r"returns a number without a gradient; it must come from the logits by diff"),
    ("none", r"returns None, not a tensor; it must be one number"),
    ("float", r"returns a float, not a tensor; it must be one number"),
    ("whole", r"returns a number of type torch.int64, which has no gradient"),
    ("vector", r"returns \[1\]; it must be one number"),
]


@pytest.mark.parametrize(("kind", "words"), NO_LOSS)
def test_a_loss_that_returns_no_loss_is_refused_before_training(kind, words):
    with pytest.raises(InputError, match=rf"^loss: \S+\.Returning on logits \[2, 3\] and classes \[2\]: {words}"):
        build_loss(of(Returning, kind=kind), TRAINER, rare_loaders())


@pytest.mark.parametrize(("kind", "words"), NO_LOSS)
def test_a_loss_that_returns_none_on_some_batches_is_named_in_training(kind, words):
    trainer = make_trainer(net(), loss_fn=Returning(kind, until=2))
    with pytest.raises(InputError, match=rf"^loss: \S+\.Returning {words}"):
        trainer.train_batch((torch.randn(8, 16), torch.zeros(8, dtype=torch.int64)))


def test_a_loss_that_fails_in_validation_alone_is_named():
    trainer = make_trainer(net(), loss_fn=Returning("vector", until=2))
    with pytest.raises(InputError, match=r"^loss: \S+\.Returning returns \[1\]; it must be one number"):
        trainer.test_batch((torch.randn(8, 16), torch.zeros(8, dtype=torch.int64)))


def test_a_loss_that_is_a_function_is_named():
    def on_labels(logits, labels):
        return labels.float().mean()

    with pytest.raises(InputError, match=r"^loss: \S+\.on_labels returns a number without a gradient"):
        make_trainer(net(), loss_fn=on_labels).train_batch((torch.randn(8, 16), torch.zeros(8, dtype=torch.int64)))


def test_a_model_whose_scores_are_detached_is_named_in_place_of_its_loss():
    class Detaching(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1)).detach()

    with pytest.raises(InputError, match=r"^model: in training mode it returns scores without a gradient"):
        make_trainer(Detaching(16, 3)).train_batch((torch.randn(8, 16), torch.zeros(8, dtype=torch.int64)))


@pytest.mark.parametrize("result", [lambda s, t, loss: loss.detach(), lambda s, t, loss: s, lambda s, t, loss: None])
def test_a_distillation_that_returns_no_loss_is_refused(result):
    with pytest.raises(InputError, match=r"^distillation: own.Mine on logits \[2, 5\] of both and a loss: returns "):
        try_distillation("own.Mine", result, 5)
    options = StepOptions(F.cross_entropy, teacher=Teacher(nn.Linear(12, 3), result))
    images = torch.randn(8, 12)
    with pytest.raises(InputError, match=r"^distillation: \S+ returns "):
        compute_loss(nn.Linear(12, 3)(images), images, torch.zeros(8, dtype=torch.int64), 1, options)


def test_evaluation_does_not_smooth_but_weights():
    weights = {"class_weights": [1.0, 2.0, 3.0], "class_names": ("a", "b", "c")}
    for loss in (CrossEntropy(label_smoothing=0.3, **weights), Focal(label_smoothing=0.3, **weights)):
        trainer = make_trainer(net(), loss_fn=loss)
        logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
        plain = type(loss)(**weights)
        with smoothing_off(trainer.eval_loss_fn):
            assert torch.equal(trainer.eval_loss_fn(logits, labels), plain(logits, labels))
        assert not torch.equal(loss(logits, labels), plain(logits, labels))
    smoothed = make_trainer(net(), loss_fn=nn.CrossEntropyLoss(label_smoothing=0.3))
    with smoothing_off(smoothed.eval_loss_fn):
        assert torch.equal(smoothed.eval_loss_fn(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize(
    "options",
    [
        ["loss=binary_cross_entropy", "loss.target_threshold=0.2", "data.augment.mixup=0.2", "data.augment.cutmix=1"],
        ["loss=focal", "loss.class_weights=balanced", "trainer.precision=bf16", "trainer.accumulate=3"],
    ],
)
def test_a_run_with_another_loss_trains_and_says_its_numbers(train, tmp_path, options):
    status, _, err = train(*tiny("hydra.run.dir=run", "trainer.epochs=1", *options))
    assert (status, err) == (0, "")
    (row,) = rows_of(tmp_path / "run")
    assert math.isfinite(row["val_loss"])
    assert 0 <= row["val_balanced_accuracy"] <= 100


def test_class_weights_are_named_like_classes_that_are_numbers(train, tmp_path):
    """YAML reads `{3: 2}` with a number for a key, and stored configs have texts alone."""
    command = ["data=digits", "data.train_size=60", "trainer.max_batches=1"]
    status, _, err = train(*command, "hydra.run.dir=run", "trainer.epochs=1", "loss.class_weights={3: 2, 7: 0.5}")
    assert (status, err) == (0, "")
    status, _, err = train("resume=run", "trainer.epochs=2")
    assert (status, err) == (0, "")
    status, _, err = train(*command, "hydra.run.dir=other", "loss.class_weights={33: 2}")
    assert status == 2
    assert err.splitlines() == ["error: loss.class_weights: there is no class '33'; did you mean 3?"]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("select_by", ["val_loss", "val_balanced_accuracy"])
def test_the_best_epoch_is_the_best_by_what_the_user_selects(train, tmp_path, select_by):
    status, out, err = train(
        *tiny("hydra.run.dir=run", "trainer.epochs=4", "optimizer.lr=0.3", f"trainer.select_by={select_by}")
    )
    assert (status, err) == (0, "")
    rows, record = rows_of(tmp_path / "run"), record_of(tmp_path / "run")
    pick = min if select_by == "val_loss" else max
    assert record["best"][select_by] == pick(row[select_by] for row in rows)
    assert record["best"]["select_by"] == record["selection"]["by"] == select_by
    assert record["test"]["balanced_accuracy"] >= 0
    assert ("balanced" in out) == (select_by == "val_balanced_accuracy")
