"""Run a model on shapes alone: a copy on PyTorch's meta device, whose tensors have shapes but no data.

The model's weights, buffers and mode and the random state are not changed, and networks of any size can be run.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def meta_twin(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in evaluation mode, with parameters and buffers that have no storage."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).eval()


def run_twin(twin: nn.Module, in_size: Sequence[int]) -> None:
    """Pass one image of `in_size` (channels, height, width) through a twin, to run its hooks or find errors."""
    dtype = next((p.dtype for p in twin.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad(), torch.device("meta"):
        twin(torch.empty(1, *in_size, dtype=dtype))
