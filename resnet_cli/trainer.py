"""ClassifierTrainer: the training loop.

`fit` reads top to bottom: step, log, evaluate, consider best, save, stop. There are no callbacks.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from time import monotonic
from typing import Annotated, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from resnet_cli.averaging import ExponentialAverage
from resnet_cli.device import PrecisionName, backend_switches, resolve_device, resolve_precision, seed_device
from resnet_cli.errors import DivergedError, StoppedError
from resnet_cli.evaluation import LossFunction, evaluate
from resnet_cli.metrics import (
    BatchResult,
    EpochResult,
    FitResult,
    Row,
    Scores,
    Totals,
    epoch_line,
    fit_result,
)
from resnet_cli.optim import set_lr
from resnet_cli.progress import Progress
from resnet_cli.ranges import AtLeast, Below, Positive
from resnet_cli.state import TrainState
from resnet_cli.step import train_step

logger = logging.getLogger("resnet_cli")

Batch = tuple[Tensor, Tensor]
GPU_CHECK_STEPS = 50  # between looks at the loss where each look would make the host wait for the device


class Saver(Protocol):
    """Where `fit` keeps what must survive: see `resnet_cli.build.RunSaver`."""

    def last(self, state: TrainState) -> None:
        """Save the whole state."""

    def best(self, state: TrainState) -> None:
        """Save the weights of the best epoch so far."""

    def rows(self, rows: list[Row]) -> None:
        """Write the metrics."""


class ClassifierTrainer:
    """Trains and evaluates a classifier.

    Args:
        model: Images [B, C, H, W] -> logits [B, K]. It is moved to `device`.
        loss_fn: (logits [B, K], labels [B] or [B, K]) -> mean loss; None is cross-entropy with `label_smoothing`.
        optimizer: Over the model's parameters.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps` or a device; None leaves the model where it is.
        schedule: Step (0-based, about to be taken) -> factor on every learning rate; None leaves them alone.
        seed: Makes dropout and the like a function of (seed, epoch, batch); None draws from the global stream.
        epochs: How many epochs `fit` trains for when it is not told.
        precision: `auto` is bf16 on CUDA cards that have it, fp16 with a gradient scaler on older ones, and fp32
            elsewhere.
        cpu_bf16: `auto` is bf16 on a CPU with bf16 matrix units too.
        channels_last: Keep convolution weights and images in channels-last memory order.
        compile: `model` runs the model through torch.compile.
        accumulate: Parts that a batch is run through the model in, for batches that do not fit into memory.
        clip_norm: The largest norm of all gradients together; null does not clip.
        label_smoothing: Probability spread evenly over all classes (Szegedy et al. 2016, section 7).
        averaging: `ema` evaluates and keeps an exponential moving average of the weights.
        averaging_decay: Weight of the past in the average, a step.
        early_stopping: Stop after this many epochs without a better validation accuracy; null never does.
        checkpoint_every: Steps between saves inside an epoch; null saves after each epoch and every five minutes.
        max_batches: Use only the first batches of each epoch, and of each evaluation, to try things out.
        overfit_batches: Train on the first batches of the first epoch again and again, and validate on them too.
        deterministic: Only operations that repeat exactly on one machine; slower on CUDA.

    Raises:
        ValueError: the device or precision is not to be had here, or `label_smoothing` goes with a loss of one's own.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None,
        optimizer: torch.optim.Optimizer,
        device: str | torch.device | None = None,
        *,
        schedule: Callable[[int], float] | None = None,
        seed: int | None = None,
        epochs: Annotated[int, AtLeast(1)] = 20,
        precision: PrecisionName = "fp32",
        cpu_bf16: bool = False,
        channels_last: bool = False,
        compile: Literal["off", "model"] = "off",  # noqa: A002
        accumulate: Annotated[int, AtLeast(1)] = 1,
        clip_norm: Annotated[float, Positive()] | None = None,
        label_smoothing: Annotated[float, Below(0, 1)] = 0.0,
        averaging: Literal["none", "ema"] = "none",
        averaging_decay: Annotated[float, Below(0, 1)] = 0.999,
        early_stopping: Annotated[int, AtLeast(1)] | None = None,
        checkpoint_every: Annotated[int, AtLeast(1)] | None = None,
        max_batches: Annotated[int, AtLeast(1)] | None = None,
        overfit_batches: Annotated[int, AtLeast(1)] | None = None,
        deterministic: bool = False,
    ) -> None:
        if loss_fn is not None and label_smoothing:
            raise ValueError("label_smoothing goes with the default loss; pass loss_fn=None or smooth in your own loss")
        first = next(model.parameters(), None)
        own = first.device if first is not None else torch.device("cpu")
        self.device = own if device is None else resolve_device(device)
        self.precision = resolve_precision(precision, self.device, cpu_bf16=cpu_bf16)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.forward = cast(nn.Module, torch.compile(self.model)) if compile == "model" else self.model
        self.loss_fn = loss_fn or nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.eval_loss_fn = loss_fn or nn.functional.cross_entropy
        self.schedule, self.seed, self.epochs = schedule, seed, epochs
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.early_stopping, self.checkpoint_every = early_stopping, checkpoint_every
        self.max_batches, self.overfit_batches = max_batches, overfit_batches
        self.deterministic = deterministic
        self.state = TrainState(
            model=self.model,
            optimizer=optimizer,
            totals=Totals(self.device),
            scaler=torch.amp.GradScaler(self.device.type, enabled=self.precision.scales),
            average=ExponentialAverage(self.model, averaging_decay) if averaging == "ema" else None,
        )

    def fit(
        self,
        dl_train: Iterable[Batch],
        dl_test: Iterable[Batch] | None,
        num_epochs: int | None = None,
        *,
        early_stopping: int | None = None,
        max_batches: int | None = None,
        verbose: bool = True,
        saver: Saver | None = None,
        should_stop: Callable[[], int | None] = lambda: None,
    ) -> FitResult:
        """Train until `num_epochs` epochs are done, those of an earlier call or a loaded state included.

        Args:
            dl_train: A loader of this package, or any iterable of (images, labels) that can be gone through again.
            dl_test: What each epoch is validated on; None keeps the last epoch instead of the best.
            num_epochs: As many as the constructor said when None.
            early_stopping: Overrides the constructor's.
            max_batches: Overrides the constructor's.
            verbose: Show a bar inside each epoch and log a line after it.
            saver: Keeps state, best weights and metrics; None keeps nothing.
            should_stop: Asked after each step; a signal's number ends the run with its state saved.

        Raises:
            DivergedError: the loss or a weight is not finite; nothing of that is saved.
            StoppedError: `should_stop` gave a signal.
        """
        state = self.state
        num_epochs = self.epochs if num_epochs is None else num_epochs
        patience = self.early_stopping if early_stopping is None else early_stopping
        limit = self.max_batches if max_batches is None else max_batches
        if self.overfit_batches is not None:
            dl_train = dl_test = list(islice(_epoch(dl_train, 0, 0), self.overfit_batches))
        save_due = self._save_clock()
        with backend_switches(self.precision, deterministic=self.deterministic):
            while state.epoch < num_epochs and not (patience and state.stale >= patience):
                progress = self._progress(dl_train, limit, num_epochs, shown=verbose)
                for images, labels in self._batches(dl_train, limit):
                    started = monotonic()
                    self._step(images, labels)
                    state.seconds += monotonic() - started
                    progress.step(state.totals)
                    signal = should_stop()
                    if saver and (signal or save_due()):
                        self._save(saver)
                    if signal:
                        progress.close()
                        raise StoppedError(signal)
                progress.close()
                train = state.totals.read()
                self._refuse_non_finite(train.loss)
                val = self._evaluate(dl_test, limit, saver, should_stop) if dl_test is not None else None
                row = self._row(train, val)
                is_best = state.consider_best(row) or dl_test is None
                state.rows.append(row)
                state.epoch += 1
                state.start_epoch()
                if saver:
                    if is_best:
                        saver.best(state)
                    self._save(saver)
                    saver.rows(state.rows)
                if verbose:
                    logger.info(epoch_line(row, num_epochs, is_best=is_best and dl_test is not None))
        return fit_result(state.rows)

    def train_epoch(
        self, dl_train: Iterable[Batch], max_batches: int | None = None, verbose: bool = True
    ) -> EpochResult:
        """Train for one epoch, or for its first `max_batches` batches."""
        self.state.start_epoch()
        losses: list[Tensor] = []
        limit = self.max_batches if max_batches is None else max_batches
        progress = self._progress(dl_train, limit, None, shown=verbose)
        with backend_switches(self.precision, deterministic=self.deterministic):
            for images, labels in self._batches(dl_train, limit):
                losses.append(self._step(images, labels)[0])
                progress.step(self.state.totals)
        progress.close()
        scores = self.state.totals.read()
        self.state.epoch += 1
        self.state.start_epoch()
        return EpochResult(torch.stack(losses).tolist() if losses else [], scores.accuracy)

    def test_epoch(self, dl_test: Iterable[Batch], max_batches: int | None = None, verbose: bool = True) -> EpochResult:
        """Evaluate on all of `dl_test`, or on its first `max_batches` batches."""
        losses, correct, count = [], 0, 0
        for batch in islice(dl_test, max_batches):
            result = self.test_batch(batch)
            losses.append(result.loss)
            correct += result.num_correct
            count += len(batch[1])
        accuracy = 100.0 * correct / max(count, 1)
        if verbose and losses:
            logger.info("test loss %.4f, accuracy %.2f %%", sum(losses) / len(losses), accuracy)
        return EpochResult(losses, accuracy)

    def train_batch(self, batch: Batch) -> BatchResult:
        """Take one optimizer step on (images, labels)."""
        loss, correct = self._step(*self._to_device(*batch))
        return BatchResult(loss.item(), int(correct.item()))

    def test_batch(self, batch: Batch) -> BatchResult:
        """Evaluate (images, labels) without a step."""
        scores = self.evaluate([batch])
        return BatchResult(scores.loss, round(scores.accuracy * scores.count / 100))

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Mean loss and accuracy, by the averaged weights when averaging is on."""
        with self.state.evaluated_weights():
            return evaluate(
                self.forward, batches, device=self.device, loss_fn=self.eval_loss_fn, autocast=self.precision.autocast
            )

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state
        self.forward.train()
        if self.schedule is not None:
            set_lr(state.optimizer, self.schedule(state.step))
        if self.seed is not None:
            seed_device(self.device, self.seed, "step", state.epoch, state.batches)
        scale = state.scaler.get_scale() if state.scaler.is_enabled() else 1.0
        loss, correct = train_step(
            self.forward, images, labels, loss_fn=self.loss_fn, optimizer=state.optimizer, scaler=state.scaler,
            autocast=self.precision.autocast, accumulate=self.accumulate, clip_norm=self.clip_norm,
            check=self._refuse_loss if self.device.type == "cpu" else None,
        )  # fmt: skip
        skipped = state.scaler.is_enabled() and state.scaler.get_scale() < scale
        if not skipped:  # float16 overflowed: no weight changed, so neither schedule nor average moves
            state.step += 1
            if state.average:
                state.average.update(state.step)
        state.totals.add(loss, correct, len(images))
        state.batches += 1
        if self.device.type != "cpu" and state.batches % GPU_CHECK_STEPS == 0:
            self._refuse_non_finite(state.totals.read().loss)
        return loss.detach(), correct

    def _batches(self, loader: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
        """The current epoch's batches from where the state is, on the device."""
        start = self.state.batches
        stop = None if limit is None else max(limit - start, 0)
        for images, labels in islice(_epoch(loader, self.state.epoch, start), stop):
            yield self._to_device(images, labels)

    def _to_device(self, images: Tensor, labels: Tensor) -> Batch:
        images = images.to(self.device, non_blocking=True)
        if images.ndim == 4 and self.memory_format is torch.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels.to(self.device, non_blocking=True)

    def _evaluate(
        self, loader: Iterable[Batch], limit: int | None, saver: Saver | None, should_stop: Callable[[], int | None]
    ) -> Scores:
        def stoppable() -> Iterator[Batch]:
            for batch in islice(loader, limit):
                yield batch
                signal = should_stop()
                if signal:
                    raise StoppedError(signal)

        try:
            return self.evaluate(stoppable())
        except StoppedError:
            if saver:
                self._save(saver)
            raise

    def _save(self, saver: Saver) -> None:
        bad = self.state.non_finite()
        if bad:
            raise DivergedError(f"{bad[0]} is not finite {self._where()}; {_REMEDY}")
        saver.last(self.state)

    def _save_clock(self) -> Callable[[], bool]:
        """Says after each step whether a save inside the epoch is due."""
        last = monotonic()

        def due() -> bool:
            nonlocal last
            if self.checkpoint_every is not None:
                return self.state.step % self.checkpoint_every == 0
            if monotonic() - last < 300.0:
                return False
            last = monotonic()
            return True

        return due

    def _refuse_loss(self, loss: Tensor) -> None:
        self._refuse_non_finite(loss.item())

    def _refuse_non_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} {self._where()}; {_REMEDY}")

    def _where(self) -> str:
        state = self.state
        return f"at step {state.step} (epoch {state.epoch + 1}, batch {state.batches + 1})"

    def _row(self, train: Scores, val: Scores | None) -> Row:
        state = self.state
        return {
            "epoch": state.epoch + 1,
            "step": state.step,
            "lr": state.optimizer.param_groups[0]["lr"],
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "val_loss": val.loss if val else None,
            "val_accuracy": val.accuracy if val else None,
            "samples_per_second": round(train.count / state.seconds, 1) if state.seconds else None,
            "seconds": round(state.seconds, 3),
        }

    def _progress(self, loader: Iterable[Batch], limit: int | None, of: int | None, *, shown: bool) -> Progress:
        batches = len(loader) if isinstance(loader, Sized) else 0
        batches = batches if limit is None else min(limit, batches) if batches else limit
        description = f"epoch {self.state.epoch + 1}" + (f"/{of}" if of else "")
        return Progress(description, batches=batches, done=self.state.batches, shown=shown)


_REMEDY = "try a smaller optimizer.lr, a longer schedule.warmup, trainer.clip_norm=1 or trainer.precision=fp32"


def _epoch(loader: Iterable[Batch], epoch: int, start: int) -> Iterator[Batch]:
    """Batch `start` and later of an epoch: by number from our own loaders, by counting from any other."""
    by_number = getattr(loader, "epoch", None)
    if callable(by_number):
        batches: Iterator[Batch] = by_number(epoch, start)
        return batches
    return islice(iter(loader), start, None)
