"""The machine that a plan is made on."""

import gc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from resnet_cli.config.run_config import Node
from resnet_cli.errors import InputError
from resnet_cli.runs.environment import cpu_name
from resnet_cli.session.device import device_of, precision_of
from resnet_cli.training.backend import Backend
from resnet_cli.training.device import device_name

CPU = torch.device("cpu")
ELSEWHERE = (
    "a plan for trainer.time_budget times nets on this machine, and the jobs may run on others: to plan there, type "
    "resnet-info --copy plan={level} with these settings there, and sweep with experiment=my_{level} in place of plan"
)
UNCOMPILED = "nets were timed with trainer.compile=off; how much faster trainer.compile={mode} is was not measured"


@dataclass(frozen=True)
class Machine:
    """The device and the precision that nets are measured with.

    Args:
        device: The device on this machine.
        precision: fp32, tf32, bf16 or fp16.
        chooses_precision: The precision is `auto`.
        device_type: The type of the device of the runs, which may be on another machine.
        channels_last: As `trainer.channels_last`.
        deterministic: As `trainer.deterministic`.
        compile: As `trainer.compile`.
    """

    device: torch.device
    precision: str
    chooses_precision: bool
    device_type: str
    channels_last: bool = True
    deterministic: bool = False
    compile: str = "off"

    @staticmethod
    def of(trainer: Node, typed: Mapping[str, Any]) -> "Machine":
        """Return the device and the precision of a run; an untyped precision is bf16 on a CPU where that is fast.

        Raises:
            InputError: The device is not on this machine, or cannot compute with the precision.
        """
        device = device_of(trainer)
        precision = precision_of(trainer, device, cpu_bf16=bool(typed.get("trainer.cpu_bf16", True)))
        return Machine(
            device, precision, trainer.get("precision", "auto") == "auto", device.type,
            channels_last=bool(trainer.get("channels_last")), deterministic=bool(trainer.get("deterministic")),
            compile=str(trainer.get("compile") or "off"),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The processor, device and precision, in words: rates depend on them as well as on the net."""
        processor, switches = f"{cpu_name()}, " if self.device.type == "cpu" else "", ""
        if self.device.type == "cuda":
            switches = f", channels_last={self.channels_last}, deterministic={self.deterministic}"
        return f"{processor}{device_name(self.device)}, {self.precision}{switches}, torch {torch.__version__}"

    @property
    def notes(self) -> list[str]:
        """Lines about what was not timed as it is in the run."""
        is_slower = self.device.type == "cuda" and self.compile != "off"
        return [UNCOMPILED.format(mode=self.compile)] if is_slower else []

    def switches(self) -> AbstractContextManager[None]:
        """Return the context in which a card computes steps as in a run: its algorithms and float32."""
        if self.device.type != "cuda":
            return nullcontext()
        return Backend(self.device, self.precision, self.channels_last, self.deterministic).switches()

    def free_memory(self) -> None:
        """Free the memory of a card that measuring nets took: another process may train there."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def find_machine(level: str, trainer: Node, typed: Mapping[str, Any], *, is_local: bool) -> Machine:
    """Return the device and the precision of the runs.

    Without a budget nothing is measured, and jobs that run elsewhere may be for a device that is not here.

    Raises:
        InputError: The device is not on this machine, or cannot compute with the precision.
    """
    try:
        return Machine.of(trainer, typed)
    except InputError as error:
        name = str(trainer.get("device")).partition(":")[0]
        if is_local or name not in ("auto", "cuda", "mps"):
            raise
        if trainer.get("time_budget") is not None:
            raise InputError(f"{error}; {ELSEWHERE.format(level=level)}") from None
        return Machine(CPU, "fp32", False, "cuda" if name == "auto" else name)
