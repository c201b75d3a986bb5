"""Recording of a training step as a CUDA graph, and its replay on other batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from resnet_cli.training.backend import Batch

Step = Callable[[Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepRecording:
    """A CUDA graph of a step, with the tensors that it reads its batch from and writes its results to."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor
    correct: Tensor

    def replay(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the step on a batch; return loss and number of correct predictions, valid until the next replay."""
        for recorded, new in zip(self.batch, batch, strict=True):
            recorded.copy_(new)
        self.graph.replay()
        return self.loss, self.correct


class StepRecorder:
    """Records steps on a separate stream. All recordings share a memory pool, since none reads another's results.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()

    def record(self, step: Step, batch: Batch, *, dry_runs: int) -> StepRecording:
        """Run a step on a batch, which the recording keeps, `dry_runs` times; then record it."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(dry_runs):
                step(batch)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use CUDA meanwhile, such as a loader's thread that pins memory.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                loss, correct = step(batch)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return StepRecording(graph, batch, loss, correct)
