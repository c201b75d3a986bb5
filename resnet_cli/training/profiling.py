"""StepProfile: where the time of a few training steps goes, as a trace and a summary in the run folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch

from resnet_cli.errors import MachineError
from resnet_cli.files import write_atomically
from resnet_cli.training.device import device_name

SKIPPED, TIMED, TRACED = 5, 5, 5  # steps: settling; measured part by part; recorded operation by operation
ROWS = 25  # operations in the summary


class StepProfile:
    """Watches the first steps of a fit; it changes none of them.

    Parts are timed in other steps than operations are recorded in, since on a GPU each part is waited for, which a
    recording must not show.

    Args:
        device: Where the steps are taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = 0
        self._parts: dict[str, float] = {}  # seconds over all timed steps
        self._seconds = self._began = 0.0
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        # One cycle has all events either way; torch 2.11 warns without `acc_events`.
        self._trace = torch.profiler.profile(activities=activities, acc_events=True)
        self._tracing = False

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """One part of a step. The first part of each is `data`."""
        if self._tracing:
            with torch.profiler.record_function(name):
                yield
        elif SKIPPED <= self.steps < SKIPPED + TIMED:
            start = self._now()
            if name == "data":
                self._began = start
            yield
            self._parts[name] = self._parts.get(name, 0.0) + self._now() - start
        else:
            yield

    def step(self) -> bool:
        """Note that a step is done; says whether it was the last one to be watched."""
        if SKIPPED <= self.steps < SKIPPED + TIMED:
            self._seconds += self._now() - self._began
        self.steps += 1
        if self.steps == SKIPPED + TIMED:
            self._trace.start()
            self._tracing = True
        if self.steps != SKIPPED + TIMED + TRACED:
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """End the recording, if one is running."""
        if self._tracing:
            self._now()
            self._trace.stop()
            self._tracing = False

    def write(self, folder: Path) -> None:
        """`trace.json` for chrome://tracing or ui.perfetto.dev, and `summary.txt`.

        Raises:
            MachineError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{folder}: cannot be made: {error.strerror}") from None
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "trace.json"
            self._trace.export_chrome_trace(str(file))
            write_atomically(folder / "trace.json", file.read_text(encoding="utf-8"))
        write_atomically(folder / "summary.txt", self.summary())

    def summary(self) -> str:
        """The parts of a step, then its operations, by their own time."""
        whole = self._seconds / TIMED
        parts = {name: seconds / TIMED for name, seconds in self._parts.items()}
        parts["other"] = whole - sum(parts.values())
        lines = [f"{1e3 * whole:.3f} ms a step: the mean of {TIMED} on {device_name(self.device)}", ""]
        lines += [f"{'part':12} {'ms':>10} {'share':>8}"]
        lines += [f"{name:12} {1e3 * s:10.3f} {s / whole:8.1%}" for name, s in parts.items()]
        if self.device.type == "cuda":
            lines += [
                "",
                "Each part was waited for here, so steps without a profile, where parts overlap, are shorter.",
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
