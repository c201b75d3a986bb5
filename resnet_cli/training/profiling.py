"""StepProfile: a profile of a few training steps, as a trace and a summary in the run folder."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from resnet_cli.errors import MachineError
from resnet_cli.files import write_atomically
from resnet_cli.training.device import device_name

# Numbers of steps: warm-up; timed section by section; traced operation by operation.
SKIPPED, TIMED, TRACED = 5, 5, 5
ROWS = 25  # operations in the summary

Section = Callable[[str], AbstractContextManager[Any]]  # name -> context manager around a section of a step

_NO_SECTION = nullcontext()


def no_section(_: str) -> AbstractContextManager[Any]:
    """Return a context manager without effect: the section of a step that is not profiled."""
    return _NO_SECTION


class StepProfile:
    """Profiles the first steps of a fit without changing its results.

    Sections and operations are timed in separate steps: on a GPU, timing a section waits for its end, which would
    distort the trace of operations.

    Args:
        device: Device of the steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = 0
        self._sections: dict[str, float] = {}  # seconds over all timed steps
        self._seconds = self._step_start = 0.0
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        # There is one cycle, so `acc_events` changes nothing; torch 2.11 warns without it.
        self._trace = torch.profiler.profile(activities=activities, acc_events=True)
        self._tracing = False

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Profile a section of a step. The first section of each step is `data`."""
        if self._tracing:
            with torch.profiler.record_function(name):
                yield
        elif SKIPPED <= self.steps < SKIPPED + TIMED:
            start = self._now()
            if name == "data":
                self._step_start = start
            yield
            self._sections[name] = self._sections.get(name, 0.0) + self._now() - start
        else:
            yield

    def step(self) -> bool:
        """Record that a step is done. Return True if it was the last one to profile."""
        if SKIPPED <= self.steps < SKIPPED + TIMED:
            self._seconds += self._now() - self._step_start
        self.steps += 1
        if self.steps == SKIPPED + TIMED:
            self._trace.start()
            self._tracing = True
        if self.steps != SKIPPED + TIMED + TRACED:
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """Stop the trace if it is running."""
        if self._tracing:
            self._now()
            self._trace.stop()
            self._tracing = False

    def write(self, folder: Path) -> None:
        """Write `trace.json` for chrome://tracing or ui.perfetto.dev, and `summary.txt`.

        Raises:
            MachineError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{folder}: cannot be created: {error.strerror or error}") from None
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "trace.json"
            self._trace.export_chrome_trace(str(file))
            write_atomically(folder / "trace.json", file.read_text(encoding="utf-8"))
        write_atomically(folder / "summary.txt", self.summary())

    def summary(self) -> str:
        """Return the time of each section of a step, then of its operations, sorted by self time, as text."""
        whole = self._seconds / TIMED
        sections = {name: seconds / TIMED for name, seconds in self._sections.items()}
        sections["other"] = whole - sum(sections.values())
        lines = [f"{1e3 * whole:.3f} ms a step: the mean of {TIMED} on {device_name(self.device)}", ""]
        lines += [f"{'section':12} {'ms':>10} {'share':>8}"]
        lines += [f"{name:12} {1e3 * s:10.3f} {s / whole:8.1%}" for name, s in sections.items()]
        if self.device.type == "cuda":
            lines += [
                "",
                "Timing waits for the end of each section. Without a profile, sections overlap and steps are shorter.",
            ]
        averages = self._trace.key_averages()
        orders = ["self_cpu_time_total", *(["self_device_time_total"] if self.device.type == "cuda" else [])]
        for order in orders:
            table = averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=60)
            lines += ["", f"{TRACED} other steps, operations by {order}", table]
        return "\n".join(lines) + "\n"

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()
