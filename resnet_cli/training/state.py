"""TrainState: everything about a run that must survive a restart, in one object."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.errors import DivergedError, PrunedError
from resnet_cli.training.averaging import ExponentialAverage
from resnet_cli.training.gradient_norms import GradientSums
from resnet_cli.training.metrics import Prune, Row, Scores, Totals

REMEDY = "try a smaller optimizer.lr, a longer schedule.warmup, trainer.clip_norm=1 or trainer.precision=fp32"


@dataclass
class TrainState:
    """The state of a training run between two steps.

    No random state is here: every draw is a function of (seed, epoch, step). `batches`, `totals` and `gradients` say
    how far the current epoch is, so that a run continues in the middle of one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    totals: Totals
    scaler: torch.amp.GradScaler
    average: ExponentialAverage | None = None
    gradients: GradientSums | None = None  # gradient norms of the current epoch, when they are recorded
    step: int = 0  # optimizer steps taken
    epoch: int = 0  # epochs finished
    batches: int = 0  # batches of the current epoch done
    seconds: float = 0.0  # training time of the current epoch so far
    best: Row | None = None  # {epoch, val_accuracy, val_loss} of the best epoch
    epochs_without_improvement: int = 0  # epochs since the best one
    rows: list[Row] = field(default_factory=list)  # one for each epoch finished
    _with_buffers: list[nn.Module] | None = field(init=False, default=None)  # found once an epoch, after its first pass

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.totals = Totals(self.totals.device)
        if self.gradients is not None:
            self.gradients.restart()
        self.batches, self.seconds, self._with_buffers = 0, 0.0, None

    def is_done(self, epochs: int, patience: int | None) -> bool:
        """Whether the run has its `epochs`, or has gone `patience` of them without a better one."""
        return self.epoch >= epochs or bool(patience and self.epochs_without_improvement >= patience)

    def is_over(self, epochs: int, patience: int | None, prune: Prune) -> bool:
        """Whether no epoch is to come. A resumed run is judged like one that was never stopped: before its epoch.

        Raises:
            PrunedError: `prune` gives up a run that is not done.
        """
        pruned, done = prune(self.rows), self.is_done(epochs, patience)
        if pruned and not done:
            raise PrunedError(f"given up after epoch {self.epoch} of {epochs}")
        return done

    def consider_best(self, row: Row) -> bool:
        """Note whether `row` is the best epoch so far: higher accuracy, then lower loss. Says whether it is."""
        if row.get("val_accuracy") is None:
            return False
        key = (row["val_accuracy"], -row["val_loss"])
        if self.best is not None and key <= (self.best["val_accuracy"], -self.best["val_loss"]):
            self.epochs_without_improvement += 1
            return False
        self.best = {name: row[name] for name in ("epoch", "val_accuracy", "val_loss")}
        self.epochs_without_improvement = 0
        return True

    def row(self, train: Scores, val: Scores | None) -> Row:
        """The row of metrics for the epoch that is now complete."""
        row: Row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "val_loss": val.loss if val else None,
            "val_accuracy": val.accuracy if val else None,
            "samples_per_second": round(train.count / self.seconds, 1) if self.seconds else None,
            "seconds": round(self.seconds, 3),
        }
        if self.gradients is not None:
            row["gradient_norms"] = self.gradients.read()
        return row

    def require_finite_loss(self, loss: float, name: str = "the loss") -> None:
        """Refuse to go on with a loss that is infinite or NaN.

        Raises:
            DivergedError: names the step and the keys that most likely help.
        """
        if not math.isfinite(loss):
            raise DivergedError(f"{name} is {loss} {self._where()}; {REMEDY}")

    def require_finite_gradients(self) -> None:
        """Refuse an update by gradients that hold an infinity or NaN, or while a buffer does: the forward pass made it.

        Gradients of float16 runs are left to their scaler, which skips the update. A look at the norms costs less than
        a thousandth of a step of ResNet-20 on a CPU; elsewhere it would make the host wait for the device.

        Raises:
            DivergedError: names the tensor, the step and the keys that most likely help.
        """
        if self._with_buffers is None:  # a walk through all modules takes longer than a look at what they hold
            self._with_buffers = [module for module in self.model.modules() if module._buffers]
        buffers = [buffer for module in self._with_buffers for buffer in module._buffers.values() if buffer is not None]
        found = [buffer for buffer in buffers if buffer.is_floating_point()]
        if not self.scaler.is_enabled():
            found += [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not found or math.isfinite(sum(norm.item() for norm in torch._foreach_norm(found))):
            return
        if not self.scaler.is_enabled():
            gradients = [
                (f"the gradient of {n}", p.grad) for n, p in self.model.named_parameters() if p.grad is not None
            ]
            self._require_finite(gradients)
        self._require_finite(list(self.model.named_buffers()))

    def require_finite_weights(self) -> None:
        """Refuse weights, buffers, averages or an optimizer's memory that hold an infinity or NaN.

        Raises:
            DivergedError: names the tensor, the step and the keys that most likely help.
        """
        memory = enumerate(self.optimizer.state_dict()["state"].values())
        named = [
            *self.model.state_dict().items(),
            *(("an average of the weights", tensor) for tensor in (self.average.tensors if self.average else ())),
            *(
                (f"the optimizer's {name} of parameter {i}", value)
                for i, kept in memory
                for name, value in kept.items()
            ),
        ]
        self._require_finite([(name, tensor) for name, tensor in named if isinstance(tensor, Tensor)])

    def _require_finite(self, named: Sequence[tuple[str, Tensor]]) -> None:
        named = [(name, tensor) for name, tensor in named if tensor.is_floating_point()]
        flags = (
            torch.stack([torch.isfinite(t).all().to(self.totals.device) for _, t in named]).tolist() if named else []
        )
        for (name, _), finite in zip(named, flags, strict=True):
            if not finite:
                raise DivergedError(f"{name} is not finite {self._where()}; {REMEDY}")

    def _where(self) -> str:
        return f"at step {self.step} (epoch {self.epoch + 1}, batch {self.batches + 1})"

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data only, readable with `torch.load(weights_only=True)`."""
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
            "stale": self.epochs_without_improvement,
            "rows": self.rows,
        }

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside this block the model holds the weights that count: the averages when averaging is on."""
        return self.average.applied() if self.average else nullcontext()

    def restart_average(self) -> None:
        """Begin the average anew at the model's present weights."""
        if self.average is not None:
            self.average = ExponentialAverage(self.model, self.average.decay)

    def load_state_dict(self, state: dict[str, Any], *, keep_options: Sequence[str] = ()) -> None:
        """The reverse of `state_dict`.

        Args:
            state: What `state_dict` gave.
            keep_options: Options of the optimizer that stay as they are instead of becoming the stored ones.

        Raises:
            RuntimeError, ValueError, KeyError: the stored state is of another model, optimizer or setting.
        """
        self.model.load_state_dict(state["model"])
        own = [{name: group[name] for name in keep_options if name in group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(self.optimizer.param_groups, own, strict=True):
            group.update(options)
            if "lr" in options:
                group["initial_lr"] = float(options["lr"])
        self._lay_out_memory()
        if (self.average is None) != (state["average"] is None):
            raise ValueError("trainer.averaging is on in one and off in the other")
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.totals.load_state_dict(state["totals"])
        if self.gradients is not None and state.get("gradients"):  # absent in states of before they were recorded
            self.gradients.load_state_dict(state["gradients"])
        for name in ("step", "epoch", "batches", "seconds", "best"):
            setattr(self, name, state[name])
        self.epochs_without_improvement = state["stale"]
        self.rows[:] = state["rows"]

    def _lay_out_memory(self) -> None:
        """Give the optimizer's memory its parameters' order in memory: fused kernels take it for granted, unasked."""
        for parameter, memory in self.optimizer.state.items():
            for name, value in memory.items():
                like = isinstance(value, Tensor) and value.shape == parameter.shape
                if like and value.stride() != parameter.stride():
                    memory[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
