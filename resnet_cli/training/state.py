"""TrainState: everything about a run that must survive a restart, in one object."""

import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.config.selection import DEFAULT, SelectBy, ranking
from resnet_cli.errors import PrunedError
from resnet_cli.training.freezing import Freezing
from resnet_cli.training.gradient_norms import GradientSums
from resnet_cli.training.metrics import Prune, Row, Scores, Totals, epoch_row
from resnet_cli.training.optimizer_state import restore_dtypes
from resnet_cli.training.step import lrs_by_group
from resnet_cli.training.weight_average import WeightAverage

BEST_KEYS = ("epoch", "val_accuracy", "val_loss", "val_balanced_accuracy", "val_map", "val_macro_f1")
LABELS = ("name", "schedule")  # entries of parameter groups by which the config finds them: never from a checkpoint


@dataclass
class BestTracker:
    """The best epoch so far.

    Attributes:
        best: `epoch`, the validation scores and `select_by` of the best epoch.
        epochs_without_improvement: Epochs since the best one.
    """

    best: Row | None = None
    epochs_without_improvement: int = 0
    select_by: SelectBy = DEFAULT  # ties are broken by another metric: see `ranking`

    def reset(self) -> None:
        """Forget the best epoch."""
        self.best, self.epochs_without_improvement = None, 0

    def update(self, row: Row, thresholds: Sequence[float] | None = None) -> bool:
        """Record an epoch. Return True if it is the best so far; an epoch without validation never is.

        Args:
            row: Its row of metrics.
            thresholds: Threshold of each class, chosen on the validation images, if images have several labels.
        """
        if row.get("val_accuracy") is None:
            return False
        best = self.best
        if best is not None and ranking(row, self.select_by) <= ranking(best, self.select_by):
            self.epochs_without_improvement += 1
            return False
        self.take(row, thresholds)
        return True

    def take(self, row: Row, thresholds: Sequence[float] | None = None) -> None:
        """Make an epoch the best one, whatever its scores; missing ones rank last. The arguments are `update`'s."""
        self.best = {name: row[name] for name in BEST_KEYS if name in row} | {"select_by": self.select_by}
        if thresholds is not None:
            self.best["thresholds"] = list(thresholds)
        self.epochs_without_improvement = 0


@dataclass
class TrainState:
    """The state of a training run between two steps.

    It holds no random state: every draw is a function of (seed, epoch, step). `batches`, `totals` and `gradients` are
    the progress within the current epoch, so that a run can resume in the middle of an epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    totals: Totals
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    gradients: GradientSums | None = None  # gradient norms of the current epoch, if they are recorded
    freezing: Freezing | None = None  # a function of the step, and so not part of what is saved
    # A module's buffers that training changes are saved; those that keep their first value are settings.
    loss: object = None
    step: int = 0  # optimizer steps taken
    epoch: int = 0  # epochs finished
    batches: int = 0  # batches of the current epoch done
    seconds: float = 0.0  # training time of the current epoch so far
    best_tracker: BestTracker = field(default_factory=BestTracker)
    rows: list[Row] = field(default_factory=list)  # one for each finished epoch
    # Where steps ran out of memory: `epoch` and `step` from 1, and the largest `micro_batch` from there on.
    halvings: list[dict[str, int]] = field(default_factory=list)
    # Those of a run that is reproduced, whose steps are split as they were there.
    planned_halvings: Sequence[dict[str, int]] = ()
    splits_evenly: bool = True  # see `split_batch`; runs begun by versions up to 0.2.0 keep their micro-batches
    is_save_due: bool = False  # a step has changed settings that a resumed run must take over
    in_single_steps: bool = False  # the current epoch has steps that belong to no epoch of `fit`
    in_steps: bool = False  # `fit` has begun the steps of the current epoch here, and not finished or stopped them
    # Cache of `require_finite_gradients`, filled after the first forward pass of each epoch.
    modules_with_buffers: list[nn.Module] | None = field(init=False, default=None)
    _initial_loss: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._initial_loss = {name: tensor.clone() for name, tensor in self.loss_tensors.items()}
        align_state(self.optimizer)
        if self.freezing is not None and self.gradients is not None:
            self.gradients.skipped = self.freezing.never_trained

    @property
    def best(self) -> Row | None:
        """`epoch`, the validation scores and `select_by` of the best epoch so far."""
        return self.best_tracker.best

    @property
    def micro_batch(self) -> int | None:
        """The largest number of images in a micro-batch after steps ran out of memory; None if no step has."""
        return self.halvings[-1]["micro_batch"] if self.halvings else None

    def take_planned_halvings(self) -> None:
        """Split the next step, and those after it, as the run that is reproduced did."""
        for item in self.planned_halvings:
            if item["step"] <= self.step + 1 and (self.micro_batch or math.inf) > item["micro_batch"]:
                self.halvings.append(dict(item))

    @property
    def tensors(self) -> list[Tensor]:
        """What steps change in place in the model, the loss, averages and gradient norms; not the optimizer's state."""
        found: list[Tensor] = [*self.model.parameters(), *self.model.buffers(), *self.loss_tensors.values()]
        found += self.average.tensors if self.average is not None else ()
        found += self.gradients.tensors if self.gradients is not None else ()
        return found

    def start_epoch(self) -> None:
        """Reset the sums and the clock of the current epoch."""
        self.totals = Totals(self.totals.device)
        if self.gradients is not None:
            self.gradients.reset()
        self.batches, self.seconds, self.modules_with_buffers, self.in_steps = 0, 0.0, None, False

    def finish_epoch(self, row: Row) -> None:
        """Append the row of the completed epoch, and start the next one."""
        self.rows.append(row)
        self.epoch += 1
        self.start_epoch()

    def is_done(self, epochs: float, patience: int | None) -> bool:
        """Return True after `epochs` epochs, or `patience` epochs without an improvement."""
        return self.epoch >= epochs or bool(patience and self.best_tracker.epochs_without_improvement >= patience)

    def is_over(self, epochs: int, patience: int | None, prune: Prune) -> bool:
        """Return True if no epoch is left. It is called before each epoch, so resumed and uninterrupted runs agree.

        Raises:
            PrunedError: `prune` returns True and epochs are left.
        """
        pruned, done = prune(self.rows), self.is_done(epochs, patience)
        if pruned and not done:
            raise PrunedError(f"pruned after epoch {self.epoch} of {epochs}")
        return done

    def build_row(self, train: Scores, val: Scores | None) -> Row:
        """Return the row of metrics of the current epoch after its last step."""
        return epoch_row(
            epoch=self.epoch + 1,
            step=self.step,
            lr=self.optimizer.param_groups[0]["lr"],
            lrs=lrs_by_group(self.optimizer),
            train=train,
            val=val,
            seconds=self.seconds,
            gradient_norms=self.gradients.compute() if self.gradients is not None else None,
        ) | (self.average.facts() if self.average is not None else {})

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain data only, which `torch.load(weights_only=True)` can read."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "scaler": self.scaler.state_dict(),
            "totals": self.totals.state_dict(),
            "gradients": self.gradients.state_dict() if self.gradients is not None else None,
            "step": self.step,
            "epoch": self.epoch,
            "batches": self.batches,
            "seconds": self.seconds,
            "best": self.best,
            "stale": self.best_tracker.epochs_without_improvement,
            "rows": self.rows,
            **({"halvings": self.halvings} if self.halvings else {}),
            **({"splits_evenly": True} if self.splits_evenly else {}),
            **({"in_single_steps": True} if self.in_single_steps else {}),
            **({"loss": loss} if (loss := self._changed_loss_tensors()) else {}),
        }

    def load_state_dict(self, state: dict[str, Any], *, keep_options: Collection[str] = ()) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: A return value of `state_dict`.
            keep_options: Options of the optimizer that keep their current values.

        Raises:
            RuntimeError, ValueError, KeyError: the stored state belongs to another model, optimizer or setting.
        """
        self.model.load_state_dict(state["model"])
        self._load_optimizer(state["optimizer"], keep_options)
        if (self.average is None) != (state["average"] is None):
            raise ValueError("trainer.averaging is on in one state and off in the other")
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.totals.load_state_dict(state["totals"])
        if self.gradients is not None and state.get("gradients"):  # older states have none
            self.gradients.load_state_dict(state["gradients"])
        for name in ("step", "epoch", "batches", "seconds"):
            setattr(self, name, state[name])
        self.best_tracker = BestTracker(state["best"], state["stale"], self.best_tracker.select_by)
        self.rows[:] = state["rows"]
        self.splits_evenly = bool(state.get("splits_evenly", False))
        self.in_single_steps, self.in_steps = bool(state.get("in_single_steps", False)), False
        for name, own in self.loss_tensors.items():
            stored = state.get("loss", {}).get(name)
            if stored is not None and stored.shape == own.shape:
                own.copy_(stored)
        self.halvings = [{key: int(value) for key, value in item.items()} for item in state.get("halvings") or ()]

    @property
    def loss_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of a loss that is a module, by name."""
        found = self.loss.state_dict() if isinstance(self.loss, nn.Module) else {}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def _changed_loss_tensors(self) -> dict[str, Tensor]:
        initial = self._initial_loss
        return {name: value for name, value in self.loss_tensors.items() if not torch.equal(value, initial[name])}

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Return a context manager in which the model holds the weights to evaluate: the averages if there are any."""
        return self.average.applied() if self.average else nullcontext()

    def restart_average(self) -> None:
        """Restart the average from the model's current weights."""
        if self.average is not None:
            self.average.restart()

    def _with_own_step_counts(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state with this optimizer's `capturable`: recorded steps set it, and it needs CUDA."""
        stored, own = state["param_groups"], self.optimizer.param_groups
        if len(stored) != len(own):
            return state  # the optimizer refuses it
        kept = [{"capturable": group["capturable"]} if "capturable" in group else {} for group in own]
        return {**state, "param_groups": [group | mine for group, mine in zip(stored, kept, strict=True)]}

    def _load_optimizer(self, state: dict[str, Any], keep_options: Collection[str]) -> None:
        names = {*keep_options, *LABELS}
        kept = [{name: group[name] for name in names if name in group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(self._with_own_step_counts(state))
        restore_dtypes(self.optimizer, state)
        for group, options in zip(self.optimizer.param_groups, kept, strict=True):
            group.update(options)
            for name in LABELS:
                if name not in options:
                    group.pop(name, None)
            if "lr" in options:
                group["initial_lr"] = float(options["lr"])
        align_state(self.optimizer)


def align_state(optimizer: torch.optim.Optimizer) -> None:
    """Give tensors of an optimizer's state the device and the memory format of their parameters.

    Fused kernels assume this without a check. Optimizers like Adagrad create their state in the constructor, before the
    model is moved, and a checkpoint may come from a run with another memory format.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape or name == "step":
                continue  # steps are counted where the optimizer has put them
            if value.device != parameter.device or value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
