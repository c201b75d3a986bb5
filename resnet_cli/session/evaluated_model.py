"""The model of a checkpoint with the weights that its run evaluates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from resnet_cli.config.run_config import Node
from resnet_cli.errors import InputError
from resnet_cli.runs.weight_files import checkpoint_weights
from resnet_cli.session import build
from resnet_cli.training.averaging import load_averages


def build_evaluated_model(
    payload: Mapping[str, Any], file: Path, node: Node, *, in_size: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Build the model of a checkpoint; its weights are the averages where the run averages.

    Args:
        payload: The content of the checkpoint.
        file: The checkpoint, for messages.
        node: The checked node of group `model` of its config.
        in_size: Size (C, H, W) of its images.
        num_classes: Number of its classes.

    Raises:
        InputError: The weights do not fit the node, or the model cannot be built.
    """
    weights = checkpoint_weights(payload, file)
    model = build.model(node, in_size=in_size, num_classes=num_classes, seed=0)
    try:
        model.load_state_dict({**weights.tensors, **weights.extra})
        average = payload["state"].get("average")
        if average:  # the whole state of a run that averages; `best.pt` holds the averages as the weights
            load_averages(model, average)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: its weights do not fit its config: {str(error).splitlines()[-1].strip()}") from error
    return model
