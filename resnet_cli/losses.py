"""Losses that training minimises. Each is a sum over the images of a batch divided by the number of images.

The mean of the losses of micro-batches or batches, weighted by their numbers of images, is therefore the loss of the
whole batch or epoch, also with class weights. `torch.nn.CrossEntropyLoss(weight)` divides by the sum of the weights of
the classes that happen to be in the batch instead, or by the number of images if the targets are mixed.

Targets are classes [B], or class probabilities [B, K] as produced by mixup and CutMix. Validation and test images are
evaluated with the same loss without label smoothing.

Shapes: B batch, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between, Positive
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.errors import InputError

ClassWeights = Literal["balanced"] | Sequence[Annotated[float, AtLeast(0)]] | Mapping[str, Annotated[float, AtLeast(0)]]


class ClassLoss(nn.Module):
    """Base class of the losses: class weights and dense targets.

    Args:
        class_weights: Factor on the term of each class: a list in the order of the classes, or a mapping from class
            names to factors, with 1 for classes that it lacks. `balanced` is N / (K n_k) for a class with n_k of the N
            training images, so that the mean over the training images is 1. None applies no weights.
        label_smoothing: Probability spread evenly over all classes (Szegedy et al. 2016, section 7); training only.
        class_names: Names of the classes, from the data; a list of weights does not need them.
        class_counts: Training images of each class, from the data.

    Raises:
        InputError: The weights do not match the classes.
    """

    weight: Tensor | None
    takes_label_sets = False  # the softmax gives each image one class

    @validate_arguments
    def __init__(
        self,
        *,
        class_weights: ClassWeights | None = None,
        label_smoothing: Annotated[float, Below(0, 1)] = 0.0,
        class_names: Sequence[str] = (),
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = resolve_class_weights(class_weights, class_names, class_counts)
        self.register_buffer("weight", None if weights is None else torch.tensor(weights))

    def dense_targets(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Return smoothed class probabilities [B, K] of labels in either form."""
        return self.smooth(class_probabilities(logits_BK, labels))

    def smooth(self, targets_BK: Tensor) -> Tensor:
        """Return class probabilities with `label_smoothing`."""
        if not self.label_smoothing:
            return targets_BK
        return targets_BK * (1 - self.label_smoothing) + self.label_smoothing / targets_BK.shape[1]


class CrossEntropy(ClassLoss):
    """Cross-entropy of the softmax, with class weights and label smoothing; see `ClassLoss` for the arguments."""

    def forward(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the images."""
        if self.weight is None:
            return F.cross_entropy(logits_BK, labels, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            logits_BK, labels, self.weight, reduction="sum", label_smoothing=self.label_smoothing
        )  # fmt: skip
        return total / logits_BK.shape[0]


class Focal(ClassLoss):
    """Focal loss: cross-entropy with less weight on images that are classified well (Lin et al. 2017, equation 5).

    The term of a class is -(1 - p)^gamma log p with its probability p of the softmax; `class_weights` are the paper's
    alpha. Without weights and with gamma 0 it is cross-entropy.

    Args:
        gamma: Exponent, called the focusing parameter.
        **options: See `ClassLoss`.
    """

    @validate_arguments
    def __init__(
        self,
        *,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        class_weights: ClassWeights | None = None,
        label_smoothing: Annotated[float, Below(0, 1)] = 0.0,
        class_names: Sequence[str] = (),
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__(
            class_weights=class_weights, label_smoothing=label_smoothing, class_names=class_names,
            class_counts=class_counts,
        )  # fmt: skip
        self.gamma = gamma

    def forward(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the images."""
        log_p_BK = logits_BK.log_softmax(1)
        # 1 - p without cancellation, and above 0: the slope of its power is infinite there for gamma below 1.
        rest_BK = (-torch.expm1(log_p_BK)).clamp(min=torch.finfo(log_p_BK.dtype).tiny)
        terms_BK = -self.dense_targets(logits_BK, labels) * rest_BK**self.gamma * log_p_BK
        if self.weight is not None:
            terms_BK = terms_BK * self.weight
        return terms_BK.sum() / logits_BK.shape[0]


class BinaryCrossEntropy(ClassLoss):
    """A binary cross-entropy for each class, as in Wightman et al. 2021 ("ResNet strikes back", section 3).

    The targets of an image are one-hot, or mixed by mixup or CutMix. The loss of an image is the mean over the classes,
    K times smaller than their sum, and needs higher learning rates than cross-entropy. `class_weights` are factors on
    the terms of the classes that an image has. If images have several labels, `balanced` is the number of images
    without a class divided by the number with it, and 1 for classes that no image or every image has.

    Args:
        target_threshold: Targets above it count as 1 and others as 0, before label smoothing, so that both classes of a
            mixed image count fully, as in the paper; None does not change the targets.
        image_count: Number of training images if they have several labels, from the data.
        **options: See `ClassLoss`.
    """

    takes_label_sets = True

    @validate_arguments
    def __init__(
        self,
        *,
        target_threshold: Annotated[float, Below(0, 1)] | None = None,
        class_weights: ClassWeights | None = None,
        label_smoothing: Annotated[float, Below(0, 1)] = 0.0,
        class_names: Sequence[str] = (),
        class_counts: Sequence[int] = (),
        image_count: int | None = None,
    ) -> None:
        super().__init__(
            class_weights=class_weights, label_smoothing=label_smoothing, class_names=class_names,
            class_counts=class_counts,
        )  # fmt: skip
        self.target_threshold = target_threshold
        if class_weights == "balanced" and image_count is not None:
            # Weighted by 0, a class that every image has would not be learnt at all.
            without = [image_count - count for count in class_counts]
            pairs = zip(without, class_counts, strict=True)
            self.weight = torch.tensor([no / yes if no and yes else 1.0 for no, yes in pairs])

    def forward(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over images and classes."""
        targets_BK = class_probabilities(logits_BK, labels)
        if self.target_threshold is not None:
            targets_BK = (targets_BK > self.target_threshold).to(logits_BK.dtype)
        return F.binary_cross_entropy_with_logits(logits_BK, self.smooth(targets_BK), pos_weight=self.weight)


class Distillation(nn.Module):
    """Loss on a teacher's predictions and the labels: distillation (Hinton et al. 2015, 1503.02531, section 2).

    The loss is weight * T^2 * KL(teacher || student) + (1 - weight) * the loss on the labels. The divergence between
    the probabilities of both at the temperature T is averaged over the images. The factor T^2 keeps the size of the
    gradients as T changes.

    Args:
        temperature: T, by which the logits of both are divided before the softmax.
        weight: Share of the teacher in the loss; 0 learns from the labels alone, 1 from the teacher alone.
    """

    @validate_arguments
    def __init__(
        self, *, temperature: Annotated[float, Positive()] = 4.0, weight: Annotated[float, Between(0, 1)] = 0.9
    ) -> None:
        super().__init__()
        self.temperature, self.weight = temperature, weight

    def forward(self, logits_BK: Tensor, teacher_BK: Tensor, loss: Tensor) -> Tensor:
        """Return the whole loss.

        Args:
            logits_BK: The student's logits, in float32.
            teacher_BK: The teacher's logits.
            loss: The loss on the labels.
        """
        student_BK, target_BK = ((x / self.temperature).log_softmax(1) for x in (logits_BK, teacher_BK.float()))
        divergence = F.kl_div(student_BK, target_BK, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * divergence + (1 - self.weight) * loss


def resolve_class_weights(
    given: ClassWeights | None, class_names: Sequence[str], class_counts: Sequence[int]
) -> list[float] | None:
    """Return the weight of each class; None for None.

    Raises:
        InputError: The weights do not match the classes; one line for each problem.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if not class_counts:
            raise InputError("class_weights=balanced: needs class_counts")
        return balanced_weights(class_counts)
    classes = len(class_names) or len(given)
    if isinstance(given, Mapping):
        if not class_names:
            raise InputError("class_weights: a mapping from class names needs class_names")
        forms = match_unicode_forms(given, class_names)
        given = {forms.get(name, name): weight for name, weight in given.items()}
        unknown = [name for name in given if name not in class_names]
        if unknown:
            near = (did_you_mean(name, class_names) or f"; there are {_shorten(class_names)}" for name in unknown)
            lines = zip(unknown, near, strict=True)
            raise InputError(*(f"class_weights: there is no class {name!r}{hint}" for name, hint in lines))
        weights = [float(given.get(name, 1.0)) for name in class_names]
    elif len(given) != classes:
        raise InputError(
            f"class_weights: {len(given)} numbers, but the data have {classes} classes: {_shorten(class_names)}"
        )
    else:
        weights = [float(value) for value in given]
    if not any(weights):
        raise InputError("class_weights: all are 0, which leaves nothing to learn")
    return weights


def class_probabilities(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """Return labels in either form as probabilities [B, K] of the type of the logits."""
    targets_BK = labels if labels.ndim == 2 else F.one_hot(labels.long(), logits_BK.shape[1])
    return targets_BK.to(logits_BK.dtype)


def balanced_weights(class_counts: Sequence[int]) -> list[float]:
    """Return N / (K n_k) for each class, as scikit-learn's `class_weight="balanced"`; 1 for classes without images."""
    found = [count for count in class_counts if count]
    return [sum(found) / (len(found) * count) if count else 1.0 for count in class_counts]


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
