"""Load the state in a checkpoint into a run whose config may have changed since."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.signatures import signature
from resnet_cli.config.stored import Difference, without_replaced_arguments
from resnet_cli.errors import InputError
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.training.state import TrainState

# Optimizer state with the shape of its parameter. torch loads it in any shape, and broadcasts.
PARAMETER_SHAPED_STATE = (
    "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg",
)  # fmt: skip
MISMATCH_ERRORS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)
LARGEST_LIST = 3  # changes that an error names


class UnforceableChangeError(InputError):
    """An accepted change of the config that the saved state does not fit, in whichever checkpoint it is."""


def restore(
    state: TrainState, file: Path, stored: dict[str, Any], changes: Sequence[Difference], config: RunConfig
) -> None:
    """Load a checkpoint's state; if options of the optimizer have changed, all keep the values of the config.

    Args:
        state: The state, which is changed.
        file: The checkpoint, for error messages.
        stored: Its state.
        changes: Accepted differences between its config and the present one.
        config: The present one.

    Raises:
        UnforceableChangeError: the state does not fit because of the changes.
        InputError: the state does not fit this model and optimizer.
    """
    keys = [change.key for change in changes if change.key.startswith("optimizer.")]
    try:
        state.load_state_dict(stored, keep_options=_optimizer_options(config) if keys else ())
        _check_state_shapes(state.optimizer)
        if any(key.endswith("._target_") for key in keys):
            _try_step(state.optimizer)
    except MISMATCH_ERRORS as error:
        if refusal := _refused_changes(state, file, stored, changes):
            raise UnforceableChangeError(refusal) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise InputError(f"{file}: does not fit this model and optimizer: {reason}") from error


def _refused_changes(
    state: TrainState, file: Path, stored: Mapping[str, Any], changes: Sequence[Difference]
) -> str | None:
    """Return the line about the changes that a state does not fit; None if none of them explains it."""
    run = file.parent.parent
    new_run = f"start a new run from its weights with init_from={run}"
    prefixes: tuple[str, ...]
    if _shapes_of(stored.get("model")) != _shapes_of(state.model.state_dict()):
        prefixes, held, remedy = ("model.", "data"), "the weights of the former model", "start a new run"
    elif (state.average is None) != (stored.get("average") is None):
        held = "no averaged weights" if stored.get("average") is None else "averaged weights"
        prefixes, remedy = ("trainer.averaging",), new_run
    else:
        prefixes, remedy = ("optimizer.", "trainer.averaging", "trainer.freeze"), new_run
        held = "the state of the former settings"
    refused = [change for change in without_replaced_arguments(changes) if change.key.startswith(prefixes)]
    if not refused:
        return None
    shown = ", ".join(map(str, refused[:LARGEST_LIST]))
    others = f" and {len(refused) - LARGEST_LIST} more" if len(refused) > LARGEST_LIST else ""
    return f"{shown}{others}: cannot be forced: {run} holds {held}; {remedy}"


def _shapes_of(weights: object) -> dict[str, torch.Size] | None:
    if not isinstance(weights, Mapping):
        return None
    return {name: tensor.shape for name, tensor in state_tensors(weights).items()}


def _optimizer_options(config: RunConfig) -> set[str]:
    """Return the options of parameter groups that the config determines and that training does not change for good."""
    groups = (config.optimizer.get("groups") or {}).values()
    nodes = [config.optimizer, *(group["optimizer"] for group in groups if group.get("optimizer"))]
    own = {name for node in nodes for name in signature(node["_target_"]).parameters}
    return {"lr", "lr_scale", "use_muon", *own, *(name for group in groups for name in group)} - {"params"}


def _try_step(optimizer: torch.optim.Optimizer) -> None:
    """Take a step of a copy, which fails if the state is that of another optimizer."""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    trial.step()


def _check_state_shapes(optimizer: torch.optim.Optimizer) -> None:
    for parameter, values in optimizer.state.items():
        for name in PARAMETER_SHAPED_STATE:
            if isinstance(values.get(name), torch.Tensor) and values[name].shape != parameter.shape:
                raise ValueError(f"{name} of shape {list(values[name].shape)} for {list(parameter.shape)} weights")
