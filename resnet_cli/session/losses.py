"""The loss of a run: built for its data, with the trainer's label smoothing, and tried once before training."""

import copy
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from resnet_cli.config.run_config import DEFAULT_LOSS, Node
from resnet_cli.config.signatures import locate, signature
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError, describe_error
from resnet_cli.session import build
from resnet_cli.training.evaluation import LossFunction
from resnet_cli.training.loss_checks import ONE_NUMBER, problem_of_loss


def with_trainer_smoothing(node: Node | None, trainer: Node) -> Node:
    """Return the loss's node with `trainer.label_smoothing`, which goes with cross-entropy.

    Args:
        node: The node of the group `loss`; None is `DEFAULT_LOSS`.
        trainer: The trainer's node.

    Raises:
        InputError: another loss has been chosen, or both keys are set.
    """
    node = node or DEFAULT_LOSS
    smoothing = build.get_argument(trainer, "label_smoothing")
    if not smoothing:
        return node
    own = build.get_argument(node, "label_smoothing")
    if own:
        raise InputError(f"trainer.label_smoothing={smoothing}: loss.label_smoothing={own} is set too; set one of them")
    if node["_target_"] != DEFAULT_LOSS["_target_"]:
        takes_it = "label_smoothing" in signature(node["_target_"]).parameters
        remedy = f"set loss.label_smoothing={smoothing} instead" if takes_it else "smooth in your own loss"
        raise InputError(f"trainer.label_smoothing={smoothing}: needs loss=cross_entropy; {remedy}")
    return {**node, "label_smoothing": smoothing}


def build_loss(node: Node | None, trainer: Node, loaders: Loaders, *, is_new: bool = False) -> LossFunction | None:
    """Build the loss and try it on blank scores; return None for the trainer's own smoothed cross-entropy.

    Args:
        node: The node of the group `loss`; None is `DEFAULT_LOSS`.
        trainer: The trainer's node, for its `label_smoothing`.
        loaders: The data, for the names and sizes of the classes.
        is_new: Refuse sums over the images, losses of log-probabilities and an empty list of class weights, of which
            former versions have runs.

    Raises:
        InputError: its arguments do not fit the data, or it is no loss of a classifier.
    """
    chosen = with_trainer_smoothing(node, trainer)
    is_default = chosen["_target_"] == DEFAULT_LOSS["_target_"]
    if loaders.has_label_sets and not getattr(locate(chosen["_target_"]), "takes_label_sets", True):
        raise InputError(
            f"loss._target_: {chosen['_target_']} takes one class for each image, and these have several labels: "
            "use loss=binary_cross_entropy"
        )
    given = [value for key, value in (node or {}).items() if key != "_target_"]
    if is_default and not any(given) and not (is_new and [] in given):
        return None
    classes = len(loaders.class_names)
    known = {
        "num_classes": classes, "class_names": loaders.class_names, "class_counts": loaders.class_counts,
        "image_count": loaders.counts["train"] if loaders.has_label_sets else None,
    }  # fmt: skip
    takes = signature(chosen["_target_"]).parameters  # a module without a constructor only seems to take any keyword
    provided = {name: value for name, value in known.items() if name in takes}
    built: LossFunction = build.instantiate("loss", chosen, provided)
    forms = {}
    if not loaders.has_label_sets:
        forms["classes [2]"] = torch.zeros(2, dtype=torch.int64)
    if loaders.has_label_sets or any(getattr(loaders.train.augment, name, 0) for name in ("mixup", "cutmix")):
        forms[f"class probabilities [2, {classes}]"] = torch.full((2, classes), 1 / classes)
    try_loss(chosen["_target_"], built, classes, forms)
    if is_new:
        _require_mean_over_images(chosen["_target_"], built, classes, next(iter(forms.values())))
    return built


def try_loss(target: str, built: Any, classes: int, forms: Mapping[str, torch.Tensor]) -> None:
    """Raise an `InputError` unless a loss takes logits and labels of these forms."""
    if not callable(built) or isinstance(built, type):
        kind = type(built).__name__
        raise InputError(f"loss._target_: {target} returned a {kind}, not a function of logits and labels")
    if isinstance(built, nn.Module) and any(p.requires_grad for p in built.parameters()):
        raise InputError(f"loss: {target} has parameters, which no optimizer would train")
    for name, labels in forms.items():
        logits_BK = torch.zeros(2, classes, requires_grad=True)
        _require_result(f"loss: {target} on logits [2, {classes}] and {name}", built, logits_BK, labels)


def _require_mean_over_images(target: str, built: Any, classes: int, labels: torch.Tensor) -> None:
    """Raise an `InputError` if a loss is the sum over the images, which doubles if each image is there twice.

    A copy is called, since a user's loss may keep statistics; one that cannot be copied is not tried.
    """
    if isinstance(built, nn.NLLLoss):
        raise InputError(
            f"loss._target_: {target} takes log-probabilities, and it would get logits; use loss=cross_entropy, which "
            "is the same for a model that returns log-probabilities"
        )
    logits_BK = torch.linspace(-1.0, 1.0, 2 * classes).reshape(2, classes)
    try:
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]), torch.no_grad():
            loss = copy.deepcopy(built)
            once, twice = (float(loss(logits_BK.repeat(n, 1), torch.cat([labels] * n))) for n in (1, 2))
    except Exception:  # of a user's class, which may take no other sizes
        return
    if once and math.isclose(twice, 2 * once, rel_tol=1e-4):
        remedy = "set loss.reduction=mean" if "reduction" in signature(target).parameters else ONE_NUMBER
        raise InputError(f"loss: {target} returns the sum over the images, not the mean; {remedy}")


def try_distillation(target: str, built: Any, classes: int) -> None:
    """Raise an `InputError` unless a class combines logits of student and teacher, and the loss on the labels."""
    student_BK, teacher_BK = torch.zeros(2, classes, requires_grad=True), torch.zeros(2, classes)
    call = f"distillation: {target} on logits [2, {classes}] of both and a loss"
    _require_result(call, built, student_BK, teacher_BK, student_BK.logsumexp(1).mean())


def _require_result(call: str, built: Any, *arguments: torch.Tensor) -> None:
    """Raise an `InputError` unless a call with these arguments returns a loss to train with."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.enable_grad():  # an error follows
            result = built(*arguments)
    except Exception as error:  # of a user's class
        raise InputError(f"{call}: {describe_error(error)}") from error
    problem = problem_of_loss(result, trains=True)
    if problem is not None:
        raise InputError(f"{call}: {problem}")
