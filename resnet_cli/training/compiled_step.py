"""A whole training step as compiled code: forward and loss, then clipping, update and average.

`torch.compile` compiles two functions, with the backward pass between them. Values that change from step to step, such
as learning rates and the average's weight, are tensors, so that they do not cause recompilation. On CUDA the whole step
is then recorded as a CUDA graph for each shape of batch, and a step is one launch.

Dropout draws from the device's default generator, which is seeded before each step; a CUDA graph reads the seed at each
replay. Draws are therefore a function of (seed, epoch, batch) here too, but other numbers than in eager code, since
compiled code has its own generator.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.errors import DivergedError, InputError
from resnet_cli.seeding import random_state_kept
from resnet_cli.training.backend import Batch
from resnet_cli.training.batch_shapes import Shape, noise_like, shape_of
from resnet_cli.training.cuda_graphs import StepRecorder, StepRecording
from resnet_cli.training.dynamo import parts_of
from resnet_cli.training.module_state import ModuleState
from resnet_cli.training.optimizer_state import tensors_of, with_tensors
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import StepOptions, clip_gradients, compute_loss, split_batch, total, train_step
from resnet_cli.training.stepper import Stepper

DRY_RUNS = 3  # before a recording, so that cuDNN benchmarks, Triton tunes and the allocator settles outside of it


class CompiledStepper(Stepper):
    """Takes the steps of a run as compiled code, averaging included.

    Shapes that were not warmed up are warmed up when they occur. An optimizer without state takes its first step
    uncompiled, so that it initialises its state itself, as a resumed run finds it.

    Args:
        state: The state of the run; its scaler is disabled, since the host decides which float16 steps to skip.
        model: The model.
        options: Settings of a step.
        **others: The other arguments of `Stepper`.

    Raises:
        ValueError: the device or the precision is not supported.
    """

    def __init__(self, state: TrainState, *, model: nn.Module, options: StepOptions, **others: Any) -> None:
        super().__init__(state, model=model, options=options, **others)
        device = self.device
        if device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"trainer.compile=step: not supported on {device}; use trainer.compile=model or trainer.compile=off"
            )
        if state.scaler.is_enabled():
            raise ValueError(
                "trainer.compile=step: not supported with fp16; use trainer.precision=bf16 or trainer.compile=model"
            )
        if state.freezing is not None:
            state.freezing.compiled = "the step"
        self._compiled_loss = torch.compile(self._forward_loss, dynamic=False)
        self._compiled_update = torch.compile(self._clip_step_average, dynamic=False)
        self._optimizer_steps = [_traceable_step(part) for part in parts_of(state.optimizer)]
        self._lrs = [torch.zeros((), device=device) for _ in state.optimizer.param_groups]
        self._average_weight = torch.zeros((), device=device)
        self._recordings_by_phase: dict[object, dict[Shape, StepRecording | None]] = {}  # keyed by `Freezing.phase`
        self._addresses: set[int] = set()
        self._initial_state: dict[Any, Any] = {}  # state that the step was compiled with, until the first step
        self._recorder = StepRecorder(device) if device.type == "cuda" else None

    def run_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one step on a batch that is on the device; see `Stepper.run_step`."""
        self._apply_freezing(self.state.step)
        batch = self._resized(batch)
        shape = shape_of(batch)
        if shape not in self._recordings:
            self._warm_up([batch])
        if self._initial_state:
            result = super().run_step(batch)
            self._adopt_optimizer_state()
            return result
        self._prepare_step()
        state = self.state
        for lr, group in zip(self._lrs, state.optimizer.param_groups, strict=True):
            lr.fill_(group["lr"])
        if state.average:
            self._average_weight.fill_(state.average.weight(state.step + 1))
        recording = self._recordings[shape]
        if recording is None:
            loss, correct = self._train_step(batch)
        else:
            with self.section("whole step"):
                loss, correct = recording.replay(batch)
        state.step += 1
        if state.average and not state.average.is_in_step:
            state.average.update(state.step)
        self._record_step(loss, correct, batch)
        return loss, correct

    @property
    def _recordings(self) -> dict[Shape, StepRecording | None]:
        """The recordings for the parameters that have gradients now."""
        freezing = self.state.freezing
        return self._recordings_by_phase.setdefault(freezing.phase if freezing is not None else None, {})

    def warm_up(self, batches: Iterable[Batch]) -> bool:
        """Compile, and on CUDA record, for batches of these shapes. Return False if that has been done before.

        With progressive resolution this is done for each size. Images are replaced by noise. Weights, buffers, the
        optimizer's state, averages, gradient norms and the random state are restored afterwards.

        Raises:
            InputError: the model or the optimizer cannot be compiled as one step.
        """
        return self._warm_up(batches if self.resolution is None else self.resolution.in_every_size(batches))

    def _warm_up(self, batches: Iterable[Batch]) -> bool:
        self.state.model.train()
        self._apply_freezing(self.state.step)
        self._make_capturable()
        if self._addresses != self._tensor_addresses():  # a state has been loaded since
            self._recordings_by_phase.clear()
            self._initial_state = {}
        by_shape = {shape_of(batch): batch for batch in batches}
        new = {shape: batch for shape, batch in by_shape.items() if shape not in self._recordings}
        if not new:
            return False
        with self._state_restored():
            try:
                self._compile_shapes(new)
            except (InputError, DivergedError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise InputError(self._cannot_compile(error)) from error
        self._addresses = self._tensor_addresses()
        return True

    def forget_optimizer_state(self) -> None:
        """Remove the optimizer's state; the tensors that the step was compiled with are kept for the first step."""
        state = self.state.optimizer.state
        if tensors_of(state):
            self._initial_state = dict(state)
        state.clear()

    def _compile_shapes(self, new: dict[Shape, Batch]) -> None:
        """Compile for each shape; if the optimizer has no state yet, an eager step creates it."""
        optimizer = self.state.optimizer
        own = set(with_tensors(optimizer.state))
        optimizer.state.update(self._initial_state)
        trained = {p for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        if not trained <= set(with_tensors(optimizer.state)):  # in the first step, and where parameters begin to train
            self._create_optimizer_state(noise_like(next(iter(new.values()))))
        for shape, batch in new.items():
            self._recordings[shape] = self._compile(noise_like(batch))
        created = with_tensors(optimizer.state)
        self._initial_state = {parameter: values for parameter, values in created.items() if parameter not in own}
        for parameter in [parameter for parameter in optimizer.state if parameter not in own]:
            del optimizer.state[parameter]

    def _create_optimizer_state(self, batch: Batch) -> None:
        train_step(
            batch, model=self.model, optimizer=self.state.optimizer, scaler=self.state.scaler, options=self.options,
            on_loss=self._check_loss if self.can_sync_every_step else None, on_gradients=self._on_gradients,
        )  # fmt: skip
        self._make_capturable()

    def _compile(self, batch: Batch) -> StepRecording | None:
        """Run the step until nothing new is compiled; then record it on CUDA."""
        if self._recorder is not None:
            return self._recorder.record(self._train_step, batch, dry_runs=DRY_RUNS)
        for _ in range(DRY_RUNS):
            self._train_step(batch)
        return None

    def _train_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`train_step` with compiled functions: forward and loss; clipping, update and average."""
        self.state.optimizer.zero_grad()
        losses, corrects = [], []
        for images_BCHW, labels, share in split_batch(
            batch, self.options.accumulate, self.state.micro_batch, evenly=self.state.splits_evenly
        ):
            with self.section("forward"):
                loss, correct = self._compiled_loss(images_BCHW, labels, share)
            if self.can_sync_every_step:
                self._check_loss(loss)
            with self.section("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            corrects.append(correct)
        with self.section("optimizer"):
            self._on_gradients()
            if self.state.average is not None:
                self.state.average.follow_buffers()
            with self._lrs_as_tensors():
                self._compiled_update()
        return total(losses), total(corrects)

    # The two compiled functions are plain methods: partial objects and decorated functions share one code object, by
    # which torch.compile keys its cache.
    def _forward_loss(self, images_BCHW: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        with self.options.autocast():
            logits_BK = self.model(images_BCHW)
        return compute_loss(logits_BK, images_BCHW, labels, share, self.options)

    def _clip_step_average(self) -> None:
        with torch.no_grad():
            if self.options.clip_norm is not None:
                clip_gradients(self.state.optimizer, self.options.clip_norm)
            for step, part in zip(self._optimizer_steps, parts_of(self.state.optimizer), strict=True):
                step(part)
            if self.state.average is not None:
                self.state.average.update_by(self._average_weight)

    @contextmanager
    def _lrs_as_tensors(self) -> Iterator[None]:
        """Replace the optimizer's learning rates with tensors, so that compiled code does not specialise on values."""
        groups = self.state.optimizer.param_groups
        lrs = [group["lr"] for group in groups]
        for group, lr in zip(groups, self._lrs, strict=True):
            group["lr"] = lr
        try:
            yield
        finally:
            for group, lr in zip(groups, lrs, strict=True):
                group["lr"] = lr

    def _adopt_optimizer_state(self) -> None:
        """Copy the state that the optimizer has created into the tensors that the step was compiled with."""
        state, compiled_for = self.state.optimizer.state, self._initial_state
        for parameter, values in list(state.items()):
            kept = compiled_for.setdefault(parameter, values)
            for name, value in values.items():
                if isinstance(value, Tensor) and isinstance(kept.get(name), Tensor):
                    kept[name].copy_(value)
                else:
                    kept[name] = value
            state[parameter] = kept
        self._initial_state = {}
        self.state.optimizer.zero_grad()  # recorded steps have their own gradients

    def _make_capturable(self) -> None:
        """On CUDA, make the optimizer count its steps on the device, as recorded updates require."""
        if self.device.type != "cuda":
            return
        for group in self.state.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
        for values in self.state.optimizer.state.values():
            if isinstance(values.get("step"), Tensor):
                values["step"] = values["step"].to(self.device)

    def _tensor_addresses(self) -> set[int]:
        """Return the addresses of all tensors that a step changes: recordings and compiled code refer to them."""
        return {tensor.data_ptr() for tensor in [*self._mutable_tensors(), *tensors_of(self._initial_state)]}

    def _mutable_tensors(self) -> list[Tensor]:
        return [*self.state.tensors, *tensors_of(self.state.optimizer.state)]

    @contextmanager
    def _state_restored(self) -> Iterator[None]:
        """Zero all learning rates; on exit restore them, the tensors that steps change and the random state."""
        if self.state.gradients is not None:
            self.state.gradients.find_layers()
        kept = ModuleState(self.state.model, self.state.loss)
        saved = [(tensor, tensor.detach().clone()) for tensor in self._mutable_tensors()]
        groups = self.state.optimizer.param_groups
        lrs = [group["lr"] for group in groups]
        for tensor in (*self._lrs, self._average_weight):
            tensor.zero_()
        try:
            with random_state_kept(self.device):
                for group in groups:
                    group["lr"] = 0.0
                yield
        finally:
            for group, lr in zip(groups, lrs, strict=True):
                group["lr"] = lr
            with torch.no_grad():
                for tensor, value in saved:
                    tensor.copy_(value)
            if self._recorder is None:  # recorded steps write to the tensors that a module had while they were recorded
                kept.restore()
            self.state.optimizer.zero_grad()

    def _cannot_compile(self, error: Exception) -> str:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        model, optimizer = type(self.state.model).__name__, type(self.state.optimizer).__name__
        return (
            f"trainer.compile=step: {model} with {optimizer} cannot be compiled as one step: {reason}; "
            "use trainer.compile=model"
        )


def _traceable_step(optimizer: torch.optim.Optimizer) -> Callable[[torch.optim.Optimizer], object]:
    """Return an optimizer's step; for optimizers of torch and this package without hooks, which would break graphs."""
    step = type(optimizer).step
    return inspect.unwrap(step) if type(optimizer).__module__.startswith(("torch.optim.", "resnet_cli.")) else step
