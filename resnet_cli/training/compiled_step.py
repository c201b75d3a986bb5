"""A whole training step as compiled code: forward, loss and backward, then clipping, update and average.

`torch.compile` makes two pieces of it, since the backward pass lies in between. What changes from step to step is data
to them: learning rates and the average's weight are tensors. On CUDA the whole step is then recorded as a CUDA graph
for each shape of batch, and a step is one launch.

Dropout draws from the device's default generator, whose seed the trainer sets before each step; a CUDA graph reads the
seed anew each time it is played. So draws are a function of (seed, epoch, batch) here too, though not the function that
they are in eager code: compiled code makes its own numbers of a seed.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.errors import DivergedError, InputError
from resnet_cli.training.batching import Batch
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import Section, Stepper, clip, unmarked

DRY_RUNS = 3  # before a recording: cuDNN measures, Triton tunes and the allocator settles in the first ones

Shape = tuple[Any, ...]


@contextmanager
def reset_compiler() -> Iterator[None]:
    """Leave nothing of torch.compile behind: it keeps graphs by code, and jobs of a sweep share theirs."""
    try:
        yield
    finally:
        if "torch._dynamo" in sys.modules:  # with nothing compiled this takes no time
            torch._dynamo.reset()


@dataclass(frozen=True)
class Recording:
    """A CUDA graph of a step, and where it reads its batch and leaves its loss and number of correct predictions."""

    graph: torch.cuda.CUDAGraph
    images_BCHW: Tensor
    labels: Tensor
    loss: Tensor
    correct: Tensor

    def play(self, images_BCHW: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The step on a batch. The next one overwrites what this returns."""
        self.images_BCHW.copy_(images_BCHW)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.loss, self.correct


class CompiledStepper(Stepper):
    """Takes the steps of a run, averaging included. Float16 is not for it: its skipped steps are the host's business.

    Shapes that a warm-up has not seen are warmed up when they come. An optimizer without memory takes its first step
    uncompiled: how memory begins is the optimizer's own affair, and a restart finds it begun.

    Args:
        state: The run's; its scaler is disabled.
        forward: The model.
        options: The others of `Stepper`.

    Raises:
        ValueError: not on this device, or not in this precision.
    """

    def __init__(self, state: TrainState, *, forward: nn.Module, **options: Any) -> None:
        super().__init__(state, forward=forward, **options)
        self.device = device = state.totals.device
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"trainer.compile=step: not on {device}; use trainer.compile=model or off")
        if state.scaler.is_enabled():
            raise ValueError("trainer.compile=step: not with fp16; use trainer.precision=bf16 or trainer.compile=model")
        self._forward = torch.compile(self._part, dynamic=False)
        self._optimizer_step = _plain_step(state.optimizer)
        self._finish = torch.compile(self._clip_update_average, dynamic=False)
        self._rates = [torch.zeros((), device=device) for _ in state.optimizer.param_groups]
        self._weight = torch.zeros((), device=device)
        self._shapes: dict[Shape, Recording | None] = {}
        self._addresses: set[int] = set()
        self._begun: dict[Any, Any] = {}  # the optimizer's memory as it was compiled for, until it has one
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()  # shared: no recording needs what another one left

    def __call__(self, images_BCHW: Tensor, labels: Tensor, section: Section = unmarked) -> tuple[Tensor, Tensor]:
        """Mean loss and number of correct predictions; on CUDA they hold until the next step."""
        shape = _shape(images_BCHW, labels)
        if shape not in self._shapes:
            self.warm_up([(images_BCHW, labels)])
        if self._begun:
            result = super().__call__(images_BCHW, labels, section)
            self._take_over()
            return result
        for rate, group in zip(self._rates, self.state.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        if self.state.average:
            self._weight.fill_(self.state.average.weight(self.state.step + 1))
        recording = self._shapes[shape]
        if recording is None:
            result = self._run(images_BCHW, labels, section)
        else:
            with section("whole step"):
                result = recording.play(images_BCHW, labels)
        self.state.step += 1
        return result

    def warm_up(self, batches: Iterable[Batch]) -> bool:
        """Compile, and on CUDA record, for batches of these shapes; says whether there was anything to do.

        Noise takes the place of the images. Weights, buffers, the optimizer's memory, averages, gradient norms and the
        random state are afterwards what they were.

        Raises:
            InputError: the model or optimizer cannot be compiled like this.
        """
        self.state.model.train()
        self._prepare_memory()
        if self._addresses != self._tensors_at():  # something was loaded
            self._shapes.clear()
            self._begun = {}
        new = {_shape(*batch): batch for batch in batches}
        new = {shape: batch for shape, batch in new.items() if shape not in self._shapes}
        if not new:
            return False
        optimizer = self.state.optimizer
        with self._untouched():
            begins = not _tensors(optimizer.state) and not self._begun
            optimizer.state.update(self._begun)
            try:
                if begins:
                    super().__call__(*_noise(*next(iter(new.values()))))
                    self._prepare_memory()
                for shape, batch in new.items():
                    self._shapes[shape] = self._compile(*_noise(*batch))
            except (InputError, DivergedError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"trainer.compile=step: {type(self.state.model).__name__} with {type(optimizer).__name__} cannot "
                    f"be compiled as one step: {reason}; use trainer.compile=model"
                ) from error
            if begins or self._begun:
                self._begun = dict(optimizer.state) if _tensors(optimizer.state) else {}
                optimizer.state.clear()
        self._addresses = self._tensors_at()
        return True

    def _compile(self, images_BCHW: Tensor, labels: Tensor) -> Recording | None:
        """Run the step until nothing new is compiled; then record it where it can be."""
        if self._stream is None:
            for _ in range(DRY_RUNS):
                self._run(images_BCHW, labels)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            for _ in range(DRY_RUNS):
                self._run(images_BCHW, labels)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on with CUDA meanwhile: a loader's, that pins memory.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                loss, correct = self._run(images_BCHW, labels)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return Recording(graph, images_BCHW, labels, loss, correct)

    def _run(self, images_BCHW: Tensor, labels: Tensor, section: Section = unmarked) -> tuple[Tensor, Tensor]:
        return self.take(images_BCHW, labels, self._forward, self._update, section)

    def _update(self) -> None:
        self.after_backward()
        groups = self.state.optimizer.param_groups
        own = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        try:
            self._finish()
        finally:
            for group, lr in zip(groups, own, strict=True):
                group["lr"] = lr

    # Both are plain functions: torch compiles partial objects and decorated functions by way of one that they share.
    def _part(self, images_BCHW: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        return self.forward(images_BCHW, targets, share)

    def _clip_update_average(self) -> None:
        with torch.no_grad():
            if self.clip_norm is not None:
                clip(self.state.optimizer, self.clip_norm)
            self._optimizer_step(self.state.optimizer)
            if self.state.average is not None:
                self.state.average.move(self._weight)

    def _take_over(self) -> None:
        """Put the memory that the optimizer has begun with into the tensors that the step was compiled for."""
        state, begun = self.state.optimizer.state, self._begun
        for parameter, memory in list(state.items()):
            kept = begun.setdefault(parameter, memory)
            for name, value in memory.items():
                if isinstance(value, Tensor) and isinstance(kept.get(name), Tensor):
                    kept[name].copy_(value)
                else:
                    kept[name] = value
            state[parameter] = kept
        self._begun = {}
        self.state.optimizer.zero_grad(set_to_none=True)  # recorded steps have gradients of their own

    def _prepare_memory(self) -> None:
        """On CUDA, a recorded update counts its steps on the device."""
        if self.device.type != "cuda":
            return
        for group in self.state.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
        for memory in self.state.optimizer.state.values():
            if isinstance(memory.get("step"), Tensor):
                memory["step"] = memory["step"].to(self.device)

    def _tensors_at(self) -> set[int]:
        """Where everything is that a step changes: recordings and compiled code hold on to these places."""
        begun = _tensors(self._begun) if self._begun else []
        return {tensor.data_ptr() for tensor in [*self._changing(), *begun]}

    def _changing(self) -> list[Tensor]:
        state = self.state
        return [
            *state.model.parameters(), *state.model.buffers(), *_tensors(state.optimizer.state),
            *(state.average.tensors if state.average else ()),
            *(state.gradients.tensors if state.gradients is not None else ()),
        ]  # fmt: skip

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Whatever steps are taken inside, with learning rates of zero, leave no trace but compiled code."""
        if self.state.gradients is not None:
            self.state.gradients.begin()
        kept = [(tensor, tensor.detach().clone()) for tensor in self._changing()]
        groups = self.state.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        devices = [self.device] if self.device.type == "cuda" else []
        step = self.state.step
        for tensor in (*self._rates, self._weight):
            tensor.zero_()
        try:
            with torch.random.fork_rng(devices=devices):
                for group in groups:
                    group["lr"] = 0.0
                yield
        finally:
            for group, lr in zip(groups, rates, strict=True):
                group["lr"] = lr
            with torch.no_grad():
                for tensor, value in kept:
                    tensor.copy_(value)
            self.state.optimizer.zero_grad(set_to_none=True)
            self.state.step = step


def _plain_step(optimizer: torch.optim.Optimizer) -> Callable[[torch.optim.Optimizer], object]:
    """An optimizer's step; of those known here without the hooks around it, at which compiled code would break."""
    step = type(optimizer).step
    return inspect.unwrap(step) if type(optimizer).__module__.startswith(("torch.optim.", "resnet_cli.")) else step


def _shape(images_BCHW: Tensor, labels: Tensor) -> Shape:
    return images_BCHW.shape, images_BCHW.stride(), images_BCHW.dtype, labels.shape, labels.dtype


def _noise(images_BCHW: Tensor, labels: Tensor) -> Batch:
    """A batch of the same shape, type and memory order."""
    noise = torch.empty_strided(
        images_BCHW.shape, images_BCHW.stride(), dtype=images_BCHW.dtype, device=images_BCHW.device
    )
    return (noise.normal_() if noise.is_floating_point() else noise.zero_()), labels.clone()


def _tensors(memory: dict[Any, dict[str, Any]]) -> list[Tensor]:
    """The tensors of an optimizer's memory."""
    return [value for kept in memory.values() for value in kept.values() if isinstance(value, Tensor)]
