"""The device and the precision that a run's config asks for, on this machine."""

import torch

from resnet_cli.config.run_config import Node
from resnet_cli.errors import InputError
from resnet_cli.training.device import resolve_device, resolve_precision


def device_of(trainer: Node) -> torch.device:
    """Return the device of a run.

    Args:
        trainer: The config of the trainer.

    Raises:
        InputError: There is no such device on this machine.
    """
    try:
        return resolve_device(trainer.get("device"))
    except ValueError as error:
        raise InputError(str(error)) from None


def precision_of(trainer: Node, device: torch.device, *, cpu_bf16: bool = False) -> str:
    """Return the precision of a run on a device: fp32, tf32, bf16 or fp16.

    Args:
        trainer: The config of the trainer.
        device: The device.
        cpu_bf16: As `trainer.cpu_bf16`.

    Raises:
        InputError: The device does not support it.
    """
    try:
        return resolve_precision(trainer.get("precision") or "fp32", device, cpu_bf16=cpu_bf16)
    except ValueError as error:
        raise InputError(str(error)) from None
