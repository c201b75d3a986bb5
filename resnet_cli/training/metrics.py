"""Sums and counts of an epoch, kept on the device so that a step never waits for the host; and rows of metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]
Prune = Callable[[Sequence[Row]], bool]  # told of all epochs so far; whether to give the run up


@dataclass(frozen=True)
class Scores:
    """What an epoch came to: mean loss, accuracy in percent, and how many samples that is."""

    loss: float
    accuracy: float
    count: int


@dataclass
class Totals:
    """Running sums over the samples of an epoch.

    `sums_2` holds the summed loss and the number of correct predictions, on the device, in float64 where it exists.
    """

    device: torch.device
    count: int = 0
    sums_2: Tensor = field(init=False)
    _copy: tuple[Tensor, torch.cuda.Event, int] | None = field(init=False, default=None)  # on its way to the host
    _seen: Scores | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.sums_2 = torch.zeros(2, dtype=dtype, device=self.device)
        self._loss, self._correct = self.sums_2.unbind()  # views, made once instead of in each step

    def add(self, mean_loss: Tensor, correct: Tensor, count: int) -> None:
        """Add a batch: its mean loss (scalar), its number of correct predictions (scalar) and its size."""
        self._loss.add_(mean_loss.detach(), alpha=count)
        self._correct.add_(correct)
        self.count += count

    def read(self) -> Scores:
        """The scores so far; this waits for the device."""
        return _scores(self.sums_2, self.count)

    def peek(self) -> Scores | None:
        """The scores without waiting for a CUDA device: as they were at an earlier call; None before they are there.

        Elsewhere the scores as they are.
        """
        if self.device.type != "cuda":
            return self.read()
        if self._copy is not None and self._copy[1].query():  # type: ignore[no-untyped-call]
            self._seen, self._copy = _scores(self._copy[0], self._copy[2]), None
        if self._copy is None:
            there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            host = self.sums_2.to("cpu", non_blocking=True, copy=True)  # into page-locked memory
            there.record()
            self._copy = host, there, self.count
        return self._seen

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"sums": self.sums_2.tolist(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        self.sums_2.copy_(torch.tensor(state["sums"], dtype=self.sums_2.dtype))
        self.count = state["count"]


def _scores(sums_2: Tensor, count: int) -> Scores:
    loss, correct = sums_2.tolist()
    return Scores(loss / max(count, 1), 100.0 * correct / max(count, 1), count)


def correct_predictions(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """How many of a batch are right, on the device; of labels that are probabilities [B, K] the largest counts."""
    classes_B = labels.argmax(dim=1) if labels.ndim == 2 else labels
    return (logits_BK.argmax(dim=1) == classes_B).sum()


@dataclass(frozen=True)
class BatchResult:
    """Mean loss and number of correct predictions of one batch."""

    loss: float
    num_correct: int


@dataclass(frozen=True)
class EpochResult:
    """One loss a batch, and the accuracy over the epoch in percent."""

    losses: list[float]
    accuracy: float


@dataclass(frozen=True)
class FitResult:
    """Mean losses and accuracies (percent), one an epoch."""

    num_epochs: int
    train_loss: list[float]
    train_acc: list[float]
    test_loss: list[float]
    test_acc: list[float]


def epoch_line(row: Row, of: int, *, is_best: bool) -> str:
    """One epoch in one line."""
    width = len(str(of))
    val = (
        f"  val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:6.2f} %" if row["val_loss"] is not None else ""
    )
    return (
        f"epoch {row['epoch']:{width}d}/{of}  loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:6.2f} %{val}"
        f"  lr {row['lr']:.4g}  {row['samples_per_second'] or 0:,.0f} images/s  {row['seconds']:.1f} s"
        f"{'  best' if is_best else ''}"
    )


def fit_result(rows: list[Row]) -> FitResult:
    """The columns of the rows as one result."""

    def column(name: str) -> list[float]:
        return [row[name] for row in rows if row[name] is not None]

    return FitResult(
        len(rows), column("train_loss"), column("train_accuracy"), column("val_loss"), column("val_accuracy")
    )
