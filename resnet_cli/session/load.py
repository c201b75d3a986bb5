"""Find the checkpoint that a path names, and load its weights into a model (`init_from=RUN`)."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir, find_run

logger = logging.getLogger("resnet_cli")

MAX_IMAGE_VALUES = 1 << 26  # channels * height * width that a checkpoint may declare


def load_weights(model: nn.Module, path: str) -> list[str]:
    """Load the weights of another run into a model as far as names and shapes agree (`init_from=RUN`).

    Args:
        model: Keeps its own weights where the other run has none that fit, such as a head for other classes.
        path: A run folder, or a checkpoint.

    Returns:
        The names of the tensors that were not loaded.

    Raises:
        InputError: no such run, or none of its weights fit.
    """
    file = resolve_checkpoint(path)
    stored = model_weights(checkpoints.load(file), file)
    own = model.state_dict()
    fitting = {name: value for name, value in stored.items() if name in own and own[name].shape == value.shape}
    if not any(name in fitting for name, _ in model.named_parameters()):
        raise InputError(f"init_from: {file} is of another model: none of its {len(stored)} tensors fits this one")
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def load_initial_weights(model: nn.Module, run: RunDir, init_from: str | None, place: str | None) -> str | None:
    """Load the weights that a run starts from, and return what it calls them; None if it starts from scratch.

    Args:
        model: Receives the weights.
        run: The run folder. A run that was stopped before its first checkpoint starts from the weights in its record.
        init_from: The run or checkpoint that the user names, if any.
        place: Where that is today, if it is not where the name leads from here.

    Raises:
        InputError: no such run, or none of its weights fit.
    """
    if init_from is None:
        start = run.read_record().get("start")
        if not isinstance(start, str) or start == "scratch" or re.match(r"epoch \d", start):
            return None
        init_from = start
    missing = load_weights(model, place or init_from)
    if missing:
        logger.info("init_from: no weights for %s; initialised randomly", ", ".join(missing))
    return init_from


def resolve_checkpoint(path: str) -> Path:
    """Return the checkpoint that a path names: the file itself, or the best (else the last) one of a run folder."""
    file = expand_home(path)
    if file.suffix == ".pt" and file.is_file():  # also one that was copied out of its run folder
        return file
    run = find_run(path)
    if file.is_dir():
        return run.best if run.best.exists() else run.last
    return file


def model_weights(payload: Mapping[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """Return the model's state dict in a checkpoint.

    Raises:
        InputError: it is something else.
    """
    found = payload["state"].get("model")
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"{file}: not a checkpoint of resnet-cli: state.model holds no weights")
    return found


def data_sizes(payload: Mapping[str, Any], file: Path) -> tuple[tuple[int, int, int], int]:
    """Return the size of the images (C, H, W) and the number of classes in a checkpoint's description of its data.

    Raises:
        InputError: they are no sizes, or larger than any image.
    """
    size, names = payload["data"].get("in_size"), payload["data"].get("class_names")
    is_size = isinstance(size, list) and len(size) == 3 and all(type(n) is int and n > 0 for n in size)
    if not is_size or size[0] * size[1] * size[2] > MAX_IMAGE_VALUES:
        raise InputError(f"{file}: data.in_size: {format_value(size)} is not an image size")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: data.class_names: {format_value(names)} are not a list of names")
    channels, height, width = size
    return (channels, height, width), len(names)
