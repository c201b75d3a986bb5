"""Sums and counts of an epoch, kept on the device so that no step waits for it, and rows of metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from resnet_cli.training.multi_label import LabelScores, LabelTotals

Row = dict[str, Any]
Prune = Callable[[Sequence[Row]], bool]  # (metrics of all epochs so far) -> True to prune the run


@dataclass(frozen=True)
class Scores:
    """Mean loss, accuracy in percent and number of samples.

    `balanced_accuracy` is the mean recall over the classes that occur, in percent; None where it was not computed.
    `labels` has the scores of images with several labels, whose accuracy is the share with every label right.
    `tta` has the scores of the same images with test-time augmentation, where that was asked for.
    """

    loss: float
    accuracy: float
    count: int
    balanced_accuracy: float | None = None
    labels: LabelScores | None = None
    tta: "Scores | None" = None


@dataclass
class Totals:
    """Running sums over the samples of an epoch.

    `sums_2` holds the summed loss and the number of correct predictions, on the device, in float64 where the device
    supports it.
    """

    device: torch.device
    count: int = 0
    sums_2: Tensor = field(init=False)
    _pending: tuple[Tensor, torch.cuda.Event, int] | None = field(init=False, default=None)  # being copied to the host
    _latest: Scores | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.sums_2 = torch.zeros(2, dtype=dtype, device=self.device)
        self._loss, self._correct = self.sums_2.unbind()  # views, made once instead of in each step

    def add(self, mean_loss: Tensor, correct: Tensor, count: int) -> None:
        """Add a batch: its mean loss (scalar), its number of correct predictions (scalar) and its size."""
        self._loss.add_(mean_loss.detach(), alpha=count)
        self._correct.add_(correct)
        self.count += count

    def compute(self, by_class: "ClassTotals | LabelTotals | None" = None) -> Scores:
        """Return the scores so far, with those of `by_class`; the host waits for the device once."""
        measures = by_class.measures(self.sums_2.dtype) if by_class is not None else None
        if by_class is None or measures is None:
            return _scores(self.sums_2.tolist(), self.count)
        loss, correct, *others = torch.cat([self.sums_2, measures]).tolist()
        return replace(_scores([loss, correct], self.count), **by_class.as_scores(others))

    def peek(self) -> Scores | None:
        """Return recent scores without waiting for a CUDA device: those of an earlier call, or None if none are ready.

        On other devices return the scores so far.
        """
        if self.device.type != "cuda":
            return self.compute()
        if self._pending is not None and self._pending[1].query():  # type: ignore[no-untyped-call]
            self._latest, self._pending = _scores(self._pending[0].tolist(), self._pending[2]), None
        if self._pending is None:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            host = self.sums_2.to("cpu", non_blocking=True, copy=True)  # into pinned memory
            copied.record(torch.cuda.current_stream(self.device))  # the current device may be another card
            self._pending = host, copied, self.count
        return self._latest

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"sums": self.sums_2.tolist(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.sums_2.copy_(torch.tensor(state["sums"], dtype=self.sums_2.dtype))
        self.count = state["count"]


def _scores(sums: list[float], count: int) -> Scores:
    """Return the scores for sums of loss and correct predictions over `count` samples."""
    loss, correct = sums
    return Scores(loss / max(count, 1), 100.0 * correct / max(count, 1), count)


class ClassTotals:
    """Running counts of samples and of correct predictions by class, on the device."""

    def __init__(self) -> None:
        self.counts_2K: Tensor | None = None

    def add(self, logits_BK: Tensor, labels: Tensor) -> None:
        """Add a batch; labels are as in `count_correct`."""
        classes = logits_BK.shape[1]
        if self.counts_2K is None:
            self.counts_2K = torch.zeros(2, classes, dtype=torch.int64, device=logits_BK.device)
        classes_B = most_probable(labels)
        is_class_BK = classes_B[:, None] == torch.arange(classes, device=logits_BK.device)  # unlike bincount, no sync
        is_correct_B1 = (logits_BK.argmax(dim=1) == classes_B)[:, None]
        self.counts_2K += torch.stack([is_class_BK.sum(0), (is_class_BK & is_correct_B1).sum(0)])

    def collected(self) -> Tensor | None:
        """Return the counts on the host, for other ranks."""
        return None if self.counts_2K is None else self.counts_2K.cpu()

    def merge(self, found: Sequence[Tensor | None], device: torch.device) -> None:
        """Replace the counts with their sums over all ranks."""
        counts = [count for count in found if count is not None]
        self.counts_2K = torch.stack(counts).sum(0).to(device) if counts else None

    def measures(self, dtype: torch.dtype) -> Tensor | None:
        """Return the mean recall over the classes that occur, [1] on the device; None without a sample."""
        if self.counts_2K is None:
            return None
        counts_K, correct_K = self.counts_2K.to(dtype)
        recall: Tensor = (correct_K / counts_K.clamp(min=1)).sum() / (counts_K > 0).sum()
        return recall[None]

    def as_scores(self, values: list[float]) -> dict[str, Any]:
        """Return the host's copy of `measures` as a field of `Scores`."""
        return {"balanced_accuracy": 100.0 * values[0]}


def count_correct(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """Return the number of correct predictions, a scalar on the device.

    Args:
        logits_BK: Logits; the prediction is the class with the largest one.
        labels: Classes [B], or class probabilities [B, K], whose most probable class is the label.
    """
    return (logits_BK.argmax(dim=1) == most_probable(labels)).sum()


def most_probable(labels: Tensor) -> Tensor:
    """Return classes [B] of classes [B] or class probabilities [B, K]."""
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


@dataclass(frozen=True)
class BatchResult:
    """Mean loss and number of correct predictions of one batch."""

    loss: float
    num_correct: int


@dataclass(frozen=True)
class EpochResult:
    """Mean loss of each batch, and accuracy over the epoch in percent."""

    losses: list[float]
    accuracy: float


@dataclass(frozen=True)
class FitResult:
    """Mean loss and accuracy (percent) of each epoch."""

    num_epochs: int
    train_loss: list[float]
    train_acc: list[float]
    test_loss: list[float]
    test_acc: list[float]


def epoch_row(
    *,
    epoch: int,
    step: int,
    lr: float | Tensor,
    train: Scores,
    val: Scores | None,
    seconds: float,
    gradient_norms: dict[str, float | None] | None = None,
    lrs: dict[str, float] | None = None,
) -> Row:
    """Return the row of metrics of an epoch.

    Args:
        epoch: Epochs finished, this one included.
        step: Optimizer steps taken.
        lr: Learning rate of the first parameter group.
        train: Scores over the training batches.
        val: Scores on the validation set, if there is one.
        seconds: Training time of the epoch.
        gradient_norms: Mean gradient norm of each layer, if they are recorded.
        lrs: Learning rate of each parameter group by its name, if they differ.
    """
    row: Row = {
        "epoch": epoch,
        "step": step,
        "lr": lr,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "val_loss": val.loss if val else None,
        "val_accuracy": val.accuracy if val else None,
        "val_balanced_accuracy": val.balanced_accuracy if val else None,
        **label_row(val),
        "samples_per_second": round(train.count / seconds, 1) if seconds else None,
        "seconds": round(seconds, 3),
    }
    if gradient_norms is not None:
        row["gradient_norms"] = gradient_norms
    if lrs is not None:
        row["lrs"] = lrs
    return row


def label_row(val: Scores | None) -> Row:
    """Return the keys that rows have if images have several labels."""
    if val is None or val.labels is None:
        return {}
    return {"val_map": val.labels.mean_average_precision, "val_macro_f1": val.labels.macro_f1}


def fit_result(rows: list[Row]) -> FitResult:
    """Return the columns of rows of metrics."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows if row[name] is not None]

    return FitResult(
        len(rows), column("train_loss"), column("train_accuracy"), column("val_loss"), column("val_accuracy")
    )
