"""ClassifierTrainer: the training loop. `fit` reads top to bottom, without callbacks: step, evaluate, save, stop."""

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Annotated

import torch
from torch import nn

from resnet_cli.config.arguments import require_arguments, validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Bounds, Positive
from resnet_cli.config.selection import SelectBy
from resnet_cli.errors import InputError
from resnet_cli.training.averaging import Averaging, make_average
from resnet_cli.training.backend import Backend, Batch, CompileMode
from resnet_cli.training.batch_format import checked_batches
from resnet_cli.training.batching import NO_BATCH, EpochIterator, overfit_loaders
from resnet_cli.training.control import RunControl
from resnet_cli.training.device import PrecisionName, device_of_model
from resnet_cli.training.epoch_lines import log_early_stop, log_epoch
from resnet_cli.training.evaluation import LossFunction, evaluate, smoothing_off
from resnet_cli.training.finite_checks import require_finite_loss
from resnet_cli.training.freezing import Freezing
from resnet_cli.training.gradient_norms import GradientSums
from resnet_cli.training.gradient_scaler import GradientScaler
from resnet_cli.training.lookahead import LookaheadOptions
from resnet_cli.training.metrics import FitResult, Scores, Totals, count_correct, fit_result
from resnet_cli.training.monitor import FitMonitor
from resnet_cli.training.multi_label import LabelTotals, count_exact
from resnet_cli.training.out_of_memory import OnOutOfMemory, stepper_class
from resnet_cli.training.saving import SavePolicy, Saver
from resnet_cli.training.single_epochs import SingleEpochs
from resnet_cli.training.state import BestTracker, TrainState
from resnet_cli.training.step import StepOptions, training_loss
from resnet_cli.training.teacher import Teacher, prepare_teacher
from resnet_cli.training.tta import Tta

logger = logging.getLogger("resnet_cli")


class ClassifierTrainer(SingleEpochs):
    """Trains and evaluates a classifier.

    Args:
        model: Images [B, C, H, W] -> logits [B, K]. It is moved to `device`.
        loss_fn: (logits [B, K], labels [B] or [B, K]) -> mean loss; None is cross-entropy with `label_smoothing`. One
            with an attribute `label_smoothing` is evaluated without it.
        optimizer: Over the model's parameters.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps` or a device; None leaves the model where it is.
        schedule: Step (0-based, about to be taken) -> factor on every learning rate; None keeps them constant.
        seed: Makes dropout and the like a function of (seed, epoch, batch); None draws from the global random state.
            What the caller draws afterwards does not depend on it.
        epochs: Number of epochs that `fit` trains for by default; 9.9 ends the tenth after nine tenths of its steps.
        precision: `auto` is bf16 on CUDA GPUs that support it, fp16 with a gradient scaler on older ones, and fp32
            elsewhere.
        cpu_bf16: Let `auto` also choose bf16 on a CPU that multiplies bf16 in hardware.
        channels_last: Keep convolution weights and images in channels-last memory format.
        compile: `model` compiles the model; `step` the whole step, on CUDA into a CUDA graph, before the first epoch.
        accumulate: Number of micro-batches that a batch is split into, for batches that do not fit into memory.
        on_oom: `halve` repeats a step that runs out of memory in micro-batches of half the size, and keeps that size;
            the batch stays the same. The weights are copied before each update, to undo one that fails.
        clip_norm: Maximum norm of all gradients together; None does not clip.
        label_smoothing: Probability spread evenly over all classes (Szegedy et al. 2016, section 7).
        averaging: `ema` evaluates and saves an exponential moving average of the weights; `swa` their mean over the
            epochs of a tail with a constant learning rate, with batch-norm statistics from an extra pass over an epoch;
            `lookahead` slow weights that move towards the trained ones every few steps and replace them.
        averaging_decay: Weight of the previous average in each step of `ema`.
        swa_start: Beginning of the tail: a fraction of the epochs if below 1, else a number of epochs.
        swa_lr: Learning rate of the tail, other groups' in proportion; None keeps the schedule's at its beginning.
        early_stopping: Stop after this many epochs without an improvement; None does not stop early.
        select_by: What makes an epoch the best: the lowest validation loss, or the highest accuracy, balanced accuracy
            (mean recall over the classes that occur) or, with several labels, mean average precision or macro F1.
        checkpoint_every: Steps between saves inside an epoch; None saves after each epoch and every five minutes.
        max_batches: Use only the first batches of each epoch and each evaluation, to try things out.
        steps_per_epoch: End each epoch after this many steps, and evaluate on all batches; None ends it with the data.
        overfit_batches: Train repeatedly on this many batches from the start of the first epoch; validate on them too.
        deterministic: Use only operations that are reproducible on one machine; slower on CUDA.
        log_gradients: Record the gradient norm of each convolution and linear layer's weight, before clipping and as
            the mean over the steps of the epoch, in the epoch's row as `gradient_norms`: {layer: norm}.
        log_sharpness: Every this many epochs, record the largest eigenvalue of the Hessian of the training loss over
            the epoch's batches as `sharpness` in its row; None never does. It takes as long as several epochs.
        profile: Profile the first few steps, and write `profile/` in the run folder.
        multi_label: Images have several labels, floats [B, K] of 0 and 1. Accuracy is subset accuracy: the share of
            images for which every label is predicted correctly at a threshold of 0.5. Evaluations have mean average
            precision and macro F1.
        lookahead: Settings of `averaging="lookahead"`.
        teacher: A trained network whose predictions the training loss includes.
        freezing: What is frozen and in which steps.

    Raises:
        TypeError: `teacher` is another module.
        InputError: An argument has a wrong value, or two of them cannot be combined.
        ValueError: device or precision are not available, or not with `compile`; `label_smoothing` is set with a loss
            function other than the default.
    """

    @validate_arguments
    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None,
        optimizer: torch.optim.Optimizer,
        device: str | torch.device | None = None,
        *,
        schedule: Callable[[int], float] | None = None,
        seed: int | None = None,
        epochs: Annotated[float, Bounds(gt=0, le=1_000_000_000)] = 20,
        precision: PrecisionName = "fp32",
        cpu_bf16: bool = False,
        channels_last: bool = False,
        compile: CompileMode = "off",  # noqa: A002
        accumulate: Annotated[int, AtLeast(1)] = 1,
        on_oom: OnOutOfMemory = "raise",
        clip_norm: Annotated[float, Positive()] | None = None,
        label_smoothing: Annotated[float, Below(0, 1)] = 0.0,
        averaging: Averaging = "none",
        averaging_decay: Annotated[float, Below(0, 1)] = 0.999,
        swa_start: Annotated[float, AtLeast(0)] = 0.75,
        swa_lr: Annotated[float, Positive()] | None = None,
        early_stopping: Annotated[int, AtLeast(1)] | None = None,
        select_by: SelectBy = "val_accuracy",
        checkpoint_every: Annotated[int, AtLeast(1)] | None = None,
        max_batches: Annotated[int, AtLeast(1)] | None = None,
        steps_per_epoch: Annotated[int, AtLeast(1)] | None = None,
        overfit_batches: Annotated[int, AtLeast(1)] | None = None,
        deterministic: bool = False,
        log_gradients: bool = False,
        log_sharpness: Annotated[int, AtLeast(1)] | None = None,
        profile: bool = False,
        multi_label: bool = False,
        lookahead: LookaheadOptions = LookaheadOptions(),  # noqa: B008  it is frozen
        teacher: Teacher | None = None,
        freezing: Freezing | None = None,
    ) -> None:
        make_stepper = stepper_class(compile, on_oom)
        self.backend = Backend.resolve(
            device_of_model(model) if device is None else device, precision, cpu_bf16=cpu_bf16,
            channels_last=channels_last, deterministic=deterministic, compile=compile,
        )  # fmt: skip
        self.model = self.backend.prepare_model(model)
        self.forward = self.backend.compile_model(self.model)
        train_loss_fn = training_loss(loss_fn, label_smoothing, self.device)
        self.eval_loss_fn = loss_fn or nn.functional.cross_entropy
        self.epochs, self.early_stopping, self.checkpoint_every = epochs, early_stopping, checkpoint_every
        self.max_batches, self.steps_per_epoch, self.overfit_batches = max_batches, steps_per_epoch, overfit_batches
        self.profile, self.multi_label, self.log_sharpness = profile, multi_label, log_sharpness
        self.state = TrainState(
            model=self.model, optimizer=optimizer, totals=Totals(self.device),
            scaler=GradientScaler(self.device.type, enabled=self.backend.scales_gradients),
            average=make_average(averaging, self.model, averaging_decay, swa_start, swa_lr, lookahead),
            gradients=GradientSums(self.model, self.device) if log_gradients else None,
            best_tracker=BestTracker(select_by=select_by), freezing=freezing, loss=loss_fn,
        )  # fmt: skip
        counted = count_exact if multi_label else count_correct
        teacher = prepare_teacher(teacher, self.backend)
        options = StepOptions(train_loss_fn, self.backend.autocast, accumulate, clip_norm, counted, teacher)
        self.stepper = make_stepper(self.state, model=self.forward, options=options, schedule=schedule, seed=seed)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.backend.device

    @property
    def precision(self) -> str:
        """The precision in use, with `auto` resolved."""
        return self.backend.precision

    def fit(
        self,
        dl_train: Iterable[Batch],
        dl_test: Iterable[Batch] | None,
        num_epochs: Annotated[float, AtLeast(0)] | None = None,
        *,
        early_stopping: Annotated[int, AtLeast(0)] | None = None,
        max_batches: Annotated[int, AtLeast(1)] | None = None,
        verbose: bool = True,
        saver: Saver | None = None,
        control: RunControl = RunControl(),  # noqa: B008  it is frozen
    ) -> FitResult:
        """Train for `num_epochs` more epochs, or, if None, until the run has the constructor's number of epochs.

        The model is left in training mode: call `model.eval()` before you predict with it. If this call is interrupted
        in the middle of an epoch, the next one begins this epoch anew, or continues it with a loader of this package.

        Args:
            dl_train: A loader of this package, or any iterable of (images, labels) that can be iterated repeatedly.
            dl_test: Validation batches of each epoch; None saves the last epoch instead of the best.
            num_epochs: Number of further epochs; None trains up to the constructor's number, counting a loaded state's.
            early_stopping: Overrides the constructor's; 0 does not stop early.
            max_batches: Overrides the constructor's.
            verbose: Show a progress bar in each epoch and log a line after it; if logging is not configured, print it.
            saver: Saves state, best weights and metrics; None saves nothing.
            control: Ends the run from outside: stop signals and pruning.

        Returns:
            `FitResult` with `num_epochs` and, for each epoch, `train_loss`, `test_loss` (means), `train_acc` and
            `test_acc` (percent): those of this call or, if `num_epochs` is None, all epochs of the run so far.

        Raises:
            DivergedError: the loss or a weight is not finite; that state is not saved.
            InputError: a number is out of range.
            PrunedError, StoppedError: `control` has ended the run.
            ValueError: the trainer's `profile` is true, and there is no saver to write it.
        """
        given = {"num_epochs": num_epochs, "early_stopping": early_stopping, "max_batches": max_batches}
        require_arguments(ClassifierTrainer.fit, **given)
        self.drop_unfinished_steps(dl_train)
        state, saving = self.state, SavePolicy(saver, self.checkpoint_every)
        first_row = 0 if num_epochs is None else len(state.rows)
        length = self.epochs if num_epochs is None else state.epoch + num_epochs
        last_epoch = math.ceil(length)
        patience = self.early_stopping if early_stopping is None else early_stopping
        limit = self.max_batches if max_batches is None else max_batches
        dl_train, dl_test = overfit_loaders(dl_train, dl_test, self.overfit_batches)
        profiled = self.device if self.profile else None
        monitor = FitMonitor(state, saving, control, profiled_device=profiled, verbose=verbose)
        with self.called(is_run=saver is not None, verbose=verbose), self.backend.switches(), monitor:
            self.stepper.section = monitor.section
            train_limit = self.train_limit(max_batches)
            of_run = partial(EpochIterator, dl_train, limit=train_limit, epochs=length, backend=self.backend)
            batches, again = of_run(section=monitor.section, part=self.stepper.part), of_run(control=control)
            if not state.is_done(last_epoch, patience):
                self.warm_up(batches, verbose=verbose)
            elif num_epochs and verbose:
                log_early_stop(state.best_tracker)
            while not state.is_over(last_epoch, patience, control.prune):
                self.stepper.start_epoch(length, batches.num_batches)
                monitor.start_epoch(last_epoch, batches.limit_of(state.epoch) or batches.num_batches)
                state.in_steps = True
                for batch in batches.iterate(state.epoch, start=state.batches):
                    self.stepper.run_step(batch)
                    monitor.after_step()
                state.in_steps = False
                train = monitor.finish_epoch()
                require_finite_loss(state, train.loss)
                with saving.saved_when_stopped(state):
                    self.stepper.finish_epoch(again.iterate(state.epoch))
                    val = self._validate(dl_test, limit, control) if dl_test is not None else None
                    facts = self._measure_sharpness(again)
                row = state.build_row(train, val) | facts
                is_best = state.best_tracker.update(row, val.labels.thresholds if val and val.labels else None)
                state.finish_epoch(row)
                saving.after_epoch(state, is_best=is_best or dl_test is None)
                if verbose:
                    by, left = state.best_tracker.select_by, monitor.time_left(last_epoch)
                    log_epoch(row, last_epoch, is_best=is_best, select_by=by, seconds_left=left)
        return fit_result(state.rows[first_row:])

    def set_length(self, epochs: float, steps_per_epoch: int | None, schedule: Callable[[int], float] | None) -> None:
        """Set the length of a run that has not begun, and its schedule."""
        self.epochs, self.steps_per_epoch, self.stepper.schedule = epochs, steps_per_epoch, schedule

    def train_limit(self, max_batches: int | None = None) -> int | None:
        """Return the maximum number of batches in a training epoch; None if it ends with the data."""
        limit = self.max_batches if max_batches is None else max_batches
        return min([number for number in (limit, self.steps_per_epoch) if number is not None], default=None)

    def evaluate(self, batches: Iterable[Batch], *, thresholds: list[float] | None = None, tta: Tta = "none") -> Scores:
        """Return mean loss and accuracy, with the averaged weights if averaging is on.

        Args:
            batches: (images, labels) pairs.
            thresholds: Probability threshold of each class, for images with several labels.
            tta: Test-time augmentation, whose scores are added as `Scores.tta`.

        Raises:
            InputError: There are no batches, or one is malformed.
        """
        label_totals = LabelTotals(thresholds) if self.multi_label else None
        with self.state.evaluated_weights(), self.backend.switches(), smoothing_off(self.eval_loss_fn):
            scores = evaluate(
                self.forward, checked_batches(batches), device=self.device, loss_fn=self.eval_loss_fn,
                autocast=self.evaluation_autocast, label_totals=label_totals, tta=tta, ranks=self.ranks,
            )  # fmt: skip
        if not scores.count:
            raise InputError(NO_BATCH)
        return scores

    def warm_up(self, batches: EpochIterator, *, verbose: bool) -> None:
        """Compile what the next epochs need, before their clock starts."""
        clock = monotonic()
        if self.stepper.warm_up(batches.iterate_sizes(self.state.epoch)) and verbose:
            logger.info("warm-up %.1f s", monotonic() - clock)

    def _measure_sharpness(self, batches: EpochIterator) -> dict[str, float | None]:
        """Return the sharpness after the current epoch, as a row entry; empty if this epoch does not record it."""
        epoch, every = self.state.epoch, self.log_sharpness
        if every is None or (epoch + 1) % every:
            return {}
        return {"sharpness": self.stepper.sharpness(lambda: batches.iterate(epoch))}

    def _validate(self, loader: Iterable[Batch], limit: int | None, control: RunControl) -> Scores:
        """Evaluate on the validation batches."""
        val = self.evaluate_loader(loader, limit, control)
        require_finite_loss(self.state, val.loss, "the validation loss")
        return val
