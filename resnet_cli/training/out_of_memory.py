"""Undo steps that run out of memory, and repeat them in smaller micro-batches (`trainer.on_oom=halve`)."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from resnet_cli.errors import is_out_of_memory
from resnet_cli.training.backend import Batch, CompileMode
from resnet_cli.training.batch_norm import has_batch_norm
from resnet_cli.training.compiled_step import CompiledStepper
from resnet_cli.training.module_state import ModuleState
from resnet_cli.training.optimizer_state import copy_values, restore_values
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import clear_gradients
from resnet_cli.training.stepper import Stepper

logger = logging.getLogger("resnet_cli")

OnOutOfMemory = Literal["raise", "halve"]

LEAST_WITH_BATCH_NORM = 3  # even parts of at most 3 images have 2 or more: batch norm cannot train on a single one


class StepBackup:
    """A copy of everything that a step changes, to undo a step that fails halfway.

    Buffers and sums are small and are copied before the step; parameters, the optimizer's state and averages only
    before the update, when the memory of the activations is free again.

    Args:
        state: The state before the step.
    """

    def __init__(self, state: TrainState) -> None:
        self.state, self.step = state, state.step
        sums: Iterable[Tensor] = ()
        self._modules = ModuleState(state.model, state.loss)
        if state.gradients is not None:
            state.gradients.find_layers()
            sums = state.gradients.tensors
        self._tensors = _copies(sums)
        self._scaler = state.scaler.state_dict()  # empty if it is disabled
        self._groups: list[dict[str, Any]] = []
        self._values: dict[Tensor, dict[str, Any]] | None = None

    def before_update(self) -> None:
        """Copy what the update of the weights changes."""
        state = self.state
        averages = state.average.tensors if state.average is not None else []
        self._tensors += _copies([*state.model.parameters(), *averages])
        self._groups = [copy_values(group, without=("params",)) for group in state.optimizer.param_groups]
        self._values = {parameter: copy_values(values) for parameter, values in state.optimizer.state.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the step has done, and free its gradients."""
        state = self.state
        self._modules.restore()
        for tensor, value in self._tensors:
            tensor.copy_(value)
        if self._values is not None:
            self._restore_optimizer(self._values)
        clear_gradients(state.optimizer)
        state.step = self.step
        if self._scaler:  # loading the state also clears the record of unscaled gradients and overflows
            state.scaler.scale(torch.zeros((), device=state.totals.device))  # creates the scale before a first step
            state.scaler.update(self._scaler["scale"])
            state.scaler.load_state_dict(self._scaler)  # and the count of steps without an overflow

    def _restore_optimizer(self, saved: dict[Tensor, dict[str, Any]]) -> None:
        optimizer = self.state.optimizer
        for group, options in zip(optimizer.param_groups, self._groups, strict=True):
            restore_values(group, options, kept=("params",))
        for parameter in [parameter for parameter in optimizer.state if parameter not in saved]:
            del optimizer.state[parameter]
        for parameter, values in saved.items():
            restore_values(optimizer.state[parameter], values)


class HalvingStepper(Stepper):
    """Takes the steps of a run, and repeats one that runs out of memory in micro-batches of half the size.

    The gradient is that of the whole batch, up to rounding, unless the model normalises over the batch.
    """

    _backup: StepBackup | None = None

    @property
    def watches_gradients(self) -> bool:
        """True: what an update changes is copied before it."""
        return True

    def _take_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        while True:
            backup = None
            try:
                self._backup = backup = StepBackup(self.state)
                return super()._take_step(batch)
            except RuntimeError as error:
                size = self._next_size(batch) if is_out_of_memory(error) else None
                if size is None:
                    raise
            finally:
                self._backup = None
            # Outside of `except` the error is gone, and with it the references to the activations of the step.
            if backup is not None:
                backup.restore()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(size)

    def _on_gradients(self) -> None:
        super()._on_gradients()
        if self._backup is not None:
            self._backup.before_update()

    def _next_size(self, batch: Batch) -> int | None:
        """Return the largest micro-batch to try next; None if it cannot be smaller."""
        images = len(batch[0])
        present = min(-(-images // self.options.accumulate), self.state.micro_batch or images)
        least = LEAST_WITH_BATCH_NORM if has_batch_norm(self.state.model) else 1
        size = max((present + 1) // 2, least)
        return size if size < present else None

    def _halve(self, size: int) -> None:
        state = self.state
        state.halvings.append({"epoch": state.epoch + 1, "step": state.step + 1, "micro_batch": size})
        state.is_save_due = True
        differs = (
            "; batch norm normalises over these, so results differ from those of whole batches"
            if has_batch_norm(state.model)
            else ""
        )
        logger.warning(
            "out of memory in epoch %d, step %d: repeating it in micro-batches of at most %d images, also in later "
            "steps; the batch size is unchanged%s",
            state.epoch + 1, state.step + 1, size, differs,
        )  # fmt: skip


def _copies(tensors: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(tensor, tensor.detach().clone()) for tensor in tensors]


def stepper_class(compile: CompileMode, on_oom: OnOutOfMemory) -> type[Stepper]:  # noqa: A002
    """Return the class of the stepper; raise `ValueError` if the two settings exclude one another."""
    if compile == "step" and on_oom == "halve":
        raise ValueError(
            "trainer.on_oom=halve: not supported with trainer.compile=step, which records steps of one size; "
            "use trainer.compile=model"
        )
    return CompiledStepper if compile == "step" else HalvingStepper if on_oom == "halve" else Stepper
