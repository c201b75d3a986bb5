"""Stepper: takes the training steps of a run and updates its state."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from torch import Tensor, nn

from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.training.backend import Batch
from resnet_cli.training.batch_format import name_label_error
from resnet_cli.training.batch_norm import has_batch_norm, update_batch_norm
from resnet_cli.training.device import draws_outside_torch, reseeded_for_caller, seed_device
from resnet_cli.training.dynamo import parts_of
from resnet_cli.training.finite_checks import require_finite_gradients, require_finite_loss
from resnet_cli.training.profiling import Section, no_section
from resnet_cli.training.resolution import Resolution
from resnet_cli.training.sharpness import Batches, sharpness
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import StepOptions, base_lr, set_lr, train_step
from resnet_cli.training.stochastic_average import StochasticAverage

OVERFLOW = "without overflow"  # part of torch's error for a learning rate or weight decay outside of float32's range
GPU_CHECK_STEPS = 50  # steps between checks of the loss on a GPU, since each makes the host wait


class Stepper:
    """Takes the training steps of a run and updates its state: learning rate, seed, step, average and sums.

    Args:
        state: The state of the run.
        model: The model, or its compiled form.
        options: Settings of a step.
        schedule: Step (0-based, about to be taken) -> factor on every learning rate; None keeps them constant. It may
            have `groups` with separate factors for some parameter groups: `resnet_cli.schedules.GroupedSchedule`.
        seed: Seeds the random generators by (seed, epoch, batch) before each step; None does not seed them.

    Attributes:
        draws_outside_torch: True if the generators of Python and NumPy are among those that are seeded.
        can_sync_every_step: True if reading a number from the device does not make the host wait, so that loss and
            gradients are checked in every step.
        section: Returns the context manager that profiles a section of a step.
        resolution: Reduces the images of a step; None trains on them at full size.
        part: Number of samples in a batch -> the samples that this process trains on; None is all.
        step_function: `train_step`, or a function of the same arguments.
        ranks: The ranks that take the steps together; one by itself here.
    """

    ranks: Ranks = ALONE

    def __init__(
        self,
        state: TrainState,
        *,
        model: nn.Module,
        options: StepOptions,
        schedule: Callable[[int], float] | None = None,
        seed: int | None = None,
    ) -> None:
        if schedule is not None and not callable(schedule):
            raise InputError(f"schedule: a {type(schedule).__name__} is not a function of the step")
        self.state, self.model, self.options = state, model, options
        self.schedule, self.seed = schedule, seed
        self.device = state.totals.device
        self.draws_outside_torch = draws_outside_torch(state.model, state.loss, *parts_of(state.optimizer))
        self.can_sync_every_step = self.device.type == "cpu"
        self.section: Section = no_section
        self.resolution: Resolution | None = None
        self.part: Callable[[int], slice] | None = None
        self.step_function: Callable[..., tuple[Tensor, Tensor]] = train_step
        if state.freezing is not None and model is not state.model:
            state.freezing.compiled = "the model"

    def run_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one step on a batch that is on the device.

        Returns:
            Mean loss and number of correct predictions, scalars on the device that are valid until the next step.

        Raises:
            DivergedError: a check found that the loss or a gradient is not finite; nothing has been updated.
        """
        loss, correct = self._take_step(batch)
        self._record_step(loss, correct, batch)
        return loss, correct

    @property
    def watches_gradients(self) -> bool:
        """True if the gradients are inspected before the update."""
        return self.can_sync_every_step or self.state.gradients is not None

    def _take_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Update the weights and the average; see `run_step`."""
        state, scaler = self.state, self.state.scaler
        batch = self._resized(batch)
        self._prepare_step()
        options = self.options
        if state.micro_batch is not None or not state.splits_evenly:
            options = replace(options, micro_batch=state.micro_batch, splits_evenly=state.splits_evenly)
        scale = scaler.get_scale() if scaler.is_enabled() else 1.0
        try:
            loss, correct = self.step_function(
                batch, model=self.model, optimizer=state.optimizer, scaler=scaler, options=options,
                on_loss=self._check_loss if self.can_sync_every_step else None,
                on_gradients=self._on_gradients if self.watches_gradients else None,
                section=self.section,
            )  # fmt: skip
        except IndexError as error:
            raise name_label_error(error, batch[1]) from error
        except RuntimeError as error:
            if OVERFLOW not in str(error):
                raise
            raise DivergedError(
                f"step {state.step} (epoch {state.epoch + 1}, batch {state.batches + 1}) needs a number beyond the "
                "range of float32: try a smaller optimizer.lr, optimizer.weight_decay or factor of the schedule"
            ) from error
        is_skipped = scaler.is_enabled() and scaler.get_scale() < scale
        if not is_skipped:  # an overflow in float16 changes no weight, so neither schedule nor average advances
            state.step += 1
            if state.average is not None:
                state.average.update(state.step)
        return loss, correct

    def start_epoch(self, num_epochs: float, num_batches: int | None = None) -> None:
        """Begin or continue the current epoch of a run of `num_epochs`, each of `num_batches` if that is known.

        Raises:
            InputError: the run is too short for its weight average.
        """
        # Before the progress bar, since its log line would break the bar. A resumed epoch continues with the freezing
        # of its last step: if all its steps are done, batch-norm statistics and sharpness are computed with it.
        self._apply_freezing(self.state.step - 1 if self.state.batches else self.state.step)
        if self.state.average is not None:
            self.state.average.start_epoch(self.state.epoch, num_epochs, self.state.step, num_batches)

    def finish_epoch(self, batches: Iterable[Batch]) -> None:
        """Add the weights of the epoch to the average, if epochs are averaged, and compute its batch-norm statistics.

        A second call for the same epoch, as after an interruption, has no effect.

        Args:
            batches: The batches of the epoch again, on the device; iterated only if they are needed.
        """
        average, state = self.state.average, self.state
        if not isinstance(average, StochasticAverage) or not average.add_epoch(state.epoch):
            return
        if not has_batch_norm(state.model):
            return
        self.seed_draws("batch norm", state.epoch)
        with average.applied():
            frozen = state.freezing.frozen_layers if state.freezing is not None else ()
            update_batch_norm(state.model, batches, autocast=self.options.autocast, frozen=frozen)
            average.set_buffers()

    def sharpness(self, batches: Batches) -> float | None:
        """Return the sharpness of the training loss on an epoch's batches, which are on the device.

        As in the last step, images have its size, frozen layers are in evaluation mode, and the loss includes the
        teacher.
        """
        state, options = self.state, self.options
        resolution, last_step = self.resolution, max(0, state.step - 1)

        def resized() -> Iterator[Batch]:
            for images_BCHW, labels in batches():
                yield images_BCHW if resolution is None else resolution.resize(images_BCHW, last_step), labels

        frozen = state.freezing.frozen_layers if state.freezing is not None else ()
        return sharpness(
            state.model, options.loss_fn, resized, frozen=frozen, teacher=options.teacher, ranks=self.ranks
        )

    def lr_factor(self) -> float | None:
        """Return the factor on every learning rate in the next step; None keeps them as they are."""
        if self._tail_lr is not None:
            return self._tail_lr / base_lr(self.state.optimizer)
        return None if self.schedule is None else self.schedule(self._schedule_step())

    @property
    def _tail_lr(self) -> float | None:
        """The learning rate of all steps of the averaged tail, if it is set and the next step is in the tail."""
        average = self.state.average
        return average.lr if isinstance(average, StochasticAverage) and average.first_step is not None else None

    def _own_lr_factors(self) -> dict[str, float]:
        """Return the factors of groups with schedules of their own; none in a tail with its own learning rate."""
        schedules: Mapping[str, Callable[[int], float]] = getattr(self.schedule, "groups", {})
        if not schedules or self._tail_lr is not None:
            return {}
        step = self._schedule_step()
        return {name: schedule(step) for name, schedule in schedules.items()}

    def _schedule_step(self) -> int:
        """Return the step to evaluate the schedule at: the next one, or in a constant tail always its first."""
        average, step = self.state.average, self.state.step
        first_step = average.first_step if isinstance(average, StochasticAverage) else None
        return first_step or step  # a tail that is the whole run would keep the rate of the warm-up

    def warm_up(self, batches: Iterable[Batch]) -> bool:
        """Return False: an uncompiled step needs no warm-up. Subclasses compile for batches of these shapes."""
        return False

    def forget_optimizer_state(self) -> None:
        """Remove optimizer state that measuring steps have created, before the first step of a run."""
        self.state.optimizer.state.clear()

    def _resized(self, batch: Batch) -> Batch:
        """Return a batch with images in the size of the next step."""
        return batch if self.resolution is None else (self.resolution.resize(batch[0], self.state.step), batch[1])

    def _prepare_step(self) -> None:
        """Set training mode, learning rates and the seed of the step."""
        state = self.state
        if not self.model.training:  # `train` visits all modules
            self.model.train()
        self._apply_freezing(state.step)
        state.take_planned_halvings()
        factor = self.lr_factor()
        if factor is not None:
            set_lr(state.optimizer, factor, self._own_lr_factors())
        self.seed_draws("step", state.epoch, state.batches)

    def seed_draws(self, *parts: int | str) -> None:
        """Seed the random generators by the run's seed and `parts`, if it has one."""
        if self.seed is not None:
            seed_device(self.device, self.seed, *parts, python=self.draws_outside_torch)

    def reseeded_for_caller(self) -> AbstractContextManager[None]:
        """Return a context manager after whose block the caller's draws do not depend on the run's seed."""
        if self.seed is None:
            return nullcontext()
        return reseeded_for_caller(self.device, python=self.draws_outside_torch)

    def _apply_freezing(self, step: int) -> bool:
        """Freeze what is frozen in a step, and unfreeze the rest. Return True if that changes anything."""
        state = self.state
        if state.freezing is None:
            return False
        if state.gradients is not None:
            state.gradients.find_layers()  # before any are frozen
        return state.freezing.apply(max(step, 0), state.optimizer)

    def _record_step(self, loss: Tensor, correct: Tensor, batch: Batch) -> None:
        """Add the batch to the sums of the epoch; on a GPU, check their loss every `GPU_CHECK_STEPS` steps."""
        state = self.state
        state.totals.add(loss, correct, batch[0].shape[0])
        state.batches += 1
        if not self.can_sync_every_step and state.batches % GPU_CHECK_STEPS == 0:
            scores = state.totals.peek()
            require_finite_loss(state, scores.loss if scores else 0.0)

    def _check_loss(self, loss: Tensor) -> None:
        require_finite_loss(self.state, loss.item())

    def _on_gradients(self) -> None:
        if self.can_sync_every_step:
            require_finite_gradients(self.state)
        if self.state.gradients is not None:
            self.state.gradients.add()
