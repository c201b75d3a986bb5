"""ClassifierTrainer: the training loop.

`fit` reads top to bottom: step, log, evaluate, consider best, save, stop. There are no callbacks.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from time import monotonic
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn

from resnet_cli.config.ranges import AtLeast, Below, Positive
from resnet_cli.errors import StoppedError
from resnet_cli.training.averaging import ExponentialAverage
from resnet_cli.training.batching import Batch, batch_count, batch_sizes, epoch_batches, to_device, until_stopped
from resnet_cli.training.compiled_step import CompiledStepper
from resnet_cli.training.control import RunControl
from resnet_cli.training.device import PrecisionName, backend_switches, resolve_device, resolve_precision, seed_device
from resnet_cli.training.evaluation import LossFunction, evaluate
from resnet_cli.training.gradient_norms import GradientSums
from resnet_cli.training.metrics import (
    BatchResult,
    EpochResult,
    FitResult,
    Scores,
    Totals,
    epoch_line,
    fit_result,
)
from resnet_cli.training.profiling import StepProfile
from resnet_cli.training.progress import Progress
from resnet_cli.training.saving import Saver, Saving
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import Section, Stepper, set_lr, unmarked

logger = logging.getLogger("resnet_cli")

GPU_CHECK_STEPS = 50  # between looks at the loss where each look would make the host wait for the device


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
        cpu_bf16: `auto` is bf16 on a CPU that multiplies bf16 in hardware too.
        channels_last: Keep convolution weights and images in channels-last memory order.
        compile: `model` compiles the model; `step` all of a step, on CUDA into a CUDA graph, before the first epoch.
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
        log_gradients: Record the gradient norm of each convolution and linear layer's weight, before clipping and as
            the mean over the steps of the epoch, in the epoch's row as `gradient_norms`: {layer: norm}.
        profile: Record where the time of the first few steps goes, as `profile/` in the run folder.

    Raises:
        ValueError: device or precision are not to be had, or not with `compile`; `label_smoothing` with one's own loss.
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
        compile: Literal["off", "model", "step"] = "off",  # noqa: A002
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
        log_gradients: bool = False,
        profile: bool = False,
    ) -> None:
        if loss_fn is not None and label_smoothing:
            raise ValueError("label_smoothing goes with the default loss; pass loss_fn=None or smooth in your own loss")
        first = next(model.parameters(), None)
        own = first.device if first is not None else torch.device("cpu")
        self.device = own if device is None else resolve_device(device)
        self.precision = resolve_precision(precision, self.device, cpu_bf16=cpu_bf16)
        self.channels_last = channels_last
        memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        # A graph for each size of batch: one for any size would round otherwise than the one before it, and when it
        # is made depends on which sizes came first, which a restart changes.
        self.compiled = compile != "off"
        self.forward = cast(nn.Module, torch.compile(self.model, dynamic=False)) if compile == "model" else self.model
        self.eval_loss_fn = loss_fn or nn.functional.cross_entropy
        self.loss_fn = loss_fn or partial(nn.functional.cross_entropy, label_smoothing=label_smoothing)
        self.schedule, self.seed, self.epochs = schedule, seed, epochs
        self.early_stopping, self.checkpoint_every = early_stopping, checkpoint_every
        self.max_batches, self.overfit_batches, self.profile = max_batches, overfit_batches, profile
        self.deterministic, self.section = deterministic, cast(Section, unmarked)
        self.state = TrainState(
            model=self.model,
            optimizer=optimizer,
            totals=Totals(self.device),
            scaler=torch.amp.GradScaler(self.device.type, enabled=self.precision.scales),
            average=ExponentialAverage(self.model, averaging_decay) if averaging == "ema" else None,
            gradients=GradientSums(self.model, self.device) if log_gradients else None,
        )
        stepper = CompiledStepper if compile == "step" else Stepper
        self.take_step = stepper(
            self.state, forward=self.forward, loss_fn=self.loss_fn, autocast=self.precision.autocast,
            accumulate=accumulate, clip_norm=clip_norm,
        )  # fmt: skip

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
        control: RunControl = RunControl(),  # noqa: B008  it is frozen
    ) -> FitResult:
        """Train for `num_epochs` more epochs; or, when None, until the run has the epochs that the constructor said.

        Args:
            dl_train: A loader of this package, or any iterable of (images, labels) that can be gone through again.
            dl_test: What each epoch is validated on; None keeps the last epoch instead of the best.
            num_epochs: None counts the epochs of a loaded state as done.
            early_stopping: Overrides the constructor's.
            max_batches: Overrides the constructor's.
            verbose: Show a bar inside each epoch and log a line after it.
            saver: Keeps state, best weights and metrics; None keeps nothing.
            control: Ends the run from outside: stop signals and pruning.

        Raises:
            DivergedError: the loss or a weight is not finite; nothing of that is saved.
            PrunedError, StoppedError: `control` ended the run.
            ValueError: a profile is asked for, and there is no saver to keep it.
        """
        state = self.state
        before = 0 if num_epochs is None else len(state.rows)
        last_epoch = self.epochs if num_epochs is None else state.epoch + num_epochs
        patience = self.early_stopping if early_stopping is None else early_stopping
        limit = self.max_batches if max_batches is None else max_batches
        saving = Saving(saver, self.checkpoint_every, profiled=self.profile)
        if self.overfit_batches is not None:
            dl_train = dl_test = list(epoch_batches(dl_train, epoch=0, limit=self.overfit_batches))
        with self._switches(), StepProfile(self.device) if self.profile else nullcontext() as profile:
            self.section = profile.section if profile is not None else unmarked
            if not state.is_done(last_epoch, patience):
                self._warm_up(dl_train, limit, said=verbose)
            while not state.is_over(last_epoch, patience, control.prune):
                with self._progress(dl_train, limit, last_epoch, shown=verbose) as progress:
                    clock = monotonic()
                    for images, labels in self._batches(dl_train, limit):
                        self._step(images, labels)
                        progress.step(state.totals)
                        if profile is not None and profile.step():
                            saving.write_profile(profile)
                        state.seconds += monotonic() - clock
                        if signal := control.should_stop():
                            saving.save(state)
                            raise StoppedError(signal)
                        saving.after_step(state)
                        clock = monotonic()
                    train = state.totals.read()
                    state.seconds += monotonic() - clock
                state.require_finite_loss(train.loss)
                val = self._validate(dl_test, limit, saving, control.should_stop) if dl_test is not None else None
                row = state.row(train, val)
                is_best = state.consider_best(row)
                state.rows.append(row)
                state.epoch += 1
                state.start_epoch()
                saving.after_epoch(state, is_best=is_best or dl_test is None)
                if verbose:
                    logger.info(epoch_line(row, last_epoch, is_best=is_best))
        return fit_result(state.rows[before:])

    def train_epoch(
        self, dl_train: Iterable[Batch], max_batches: int | None = None, verbose: bool = True
    ) -> EpochResult:
        """Train for one epoch, or for its first `max_batches` batches."""
        state = self.state
        state.start_epoch()
        limit = self.max_batches if max_batches is None else max_batches
        with self._switches(), self._progress(dl_train, limit, None, shown=verbose) as progress:
            self._warm_up(dl_train, limit, said=verbose)
            losses: list[Tensor] = []
            for images, labels in self._batches(dl_train, limit):
                losses.append(self._step(images, labels)[0].clone())  # a recorded step reuses its place
                progress.step(state.totals)
        accuracy = state.totals.read().accuracy
        state.epoch += 1
        state.start_epoch()
        return EpochResult(torch.stack(losses).tolist() if losses else [], accuracy)

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
        loss, correct = self._step(*to_device(batch, self.device, channels_last=self.channels_last))
        return BatchResult(loss.item(), int(correct.item()))

    def test_batch(self, batch: Batch) -> BatchResult:
        """Evaluate (images, labels) without a step."""
        scores = self.evaluate([batch])
        return BatchResult(scores.loss, round(scores.accuracy * scores.count / 100))

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Mean loss and accuracy, by the averaged weights when averaging is on."""
        with self.state.evaluated_weights(), self._switches():
            return evaluate(
                self.forward, batches, device=self.device, loss_fn=self.eval_loss_fn, autocast=self.precision.autocast
            )

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state
        if not self.forward.training:  # train() goes through all modules
            self.forward.train()
        if self.schedule is not None:
            set_lr(state.optimizer, self.schedule(state.step))
        if self.seed is not None:
            seed_device(self.device, self.seed, "step", state.epoch, state.batches)
        loss, correct = self.take_step(images, labels, self.section)
        state.totals.add(loss, correct, images.shape[0])
        state.batches += 1
        if not self.take_step.reads_are_free and state.batches % GPU_CHECK_STEPS == 0:
            scores = state.totals.peek()
            state.require_finite_loss(scores.loss if scores else 0.0)
        return loss, correct

    def _batches(self, loader: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
        """The current epoch's batches from where the state is, on the device."""
        batches = epoch_batches(loader, self.state.epoch, self.state.batches, limit)
        while True:
            with self.section("data"):
                batch = next(batches, None)
                moved = batch and to_device(batch, self.device, channels_last=self.channels_last)
            if moved is None:
                return
            yield moved

    def _warm_up(self, loader: Iterable[Batch], limit: int | None, *, said: bool) -> None:
        """Compile what the coming epochs need, before their clock starts."""
        clock = monotonic()
        sizes = batch_sizes(loader, self.state.epoch, limit)
        if self.take_step.warm_up(to_device(b, self.device, channels_last=self.channels_last) for b in sizes) and said:
            logger.info("warm-up %.1f s", monotonic() - clock)

    def _validate(
        self, loader: Iterable[Batch], limit: int | None, saving: Saving, should_stop: Callable[[], int | None]
    ) -> Scores:
        try:
            val = self.evaluate(until_stopped(islice(loader, limit), should_stop))
        except StoppedError:
            saving.save(self.state)
            raise
        self.state.require_finite_loss(val.loss, "the validation loss")
        return val

    def _switches(self) -> AbstractContextManager[None]:
        return backend_switches(self.precision, deterministic=self.deterministic, compiled=self.compiled)

    def _progress(self, loader: Iterable[Batch], limit: int | None, of: int | None, *, shown: bool) -> Progress:
        description = f"epoch {self.state.epoch + 1}" + (f"/{of}" if of else "")
        return Progress(description, batches=batch_count(loader, limit), done=self.state.batches, shown=shown)
