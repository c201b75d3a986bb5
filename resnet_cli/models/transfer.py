"""Transfer of weights to a net with other classes, input channels or image sizes.

Tensors are matched by name and shape. If the classes differ, the head stays as initialised. The first convolution is
adapted to the channels of the images, and position tables to their size. Other tensors whose shapes differ stay as
initialised.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cli.config.suggestions import nearest_name
from resnet_cli.heads import head_parameters

POSITION_NAMES = ("pos_embed", "pos_emb", "position_embed", "positional_embed", "relative_position_bias_table")
MOST_PREFIX_TOKENS = 2  # tokens before those of the patches: class and distillation
ENDS = 3  # names at either end of a net that are searched for a common prefix


@dataclass(frozen=True)
class Transfer:
    """The weights of a file that a net can take.

    Args:
        tensors: Values to load, by the net's own names.
        adapted: How adapted tensors were changed, by name.
        new: Why the net's other tensors are not loaded, by name.
        left: Names in the file that the net does not have.
        fraction: Fraction of the parameters that are loaded, not counting those that differ by classes or image size.
    """

    tensors: Mapping[str, Tensor]
    adapted: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, str] = field(default_factory=dict)
    left: Sequence[str] = ()
    fraction: float = 0.0


def transfer(
    model: nn.Module, stored: Mapping[str, Tensor], *, in_channels: int, num_classes: int, other_classes: bool = False
) -> Transfer:
    """Match stored weights to a model without changing the model.

    Args:
        model: The net that will receive the weights.
        stored: Weights by name; either these names or the model's may have an additional common prefix.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        other_classes: Whether the weights are for different classes, even if their number is equal: the head is new.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    head = head_parameters(model, num_classes)
    first = next((name for name, p in parameters.items() if p.ndim == 4 and p.shape[1] == in_channels), None)
    sources = _matched_names(own, stored)
    taken: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    new: dict[str, str] = {}
    explained = 0  # parameters that differ because classes or image sizes do
    for name, value in own.items():
        found = stored.get(sources.get(name, ""))
        if found is None or found.is_floating_point() != value.is_floating_point():
            if name in parameters:
                new[name] = "not in the file"
        elif name in head and (other_classes or _has_other_rows(found, value)):
            new[name] = f"{found.shape[0]} other classes" if other_classes else f"{found.shape[0]} classes in the file"
            explained += value.numel()
        elif found.shape == value.shape:
            taken[name] = found
        elif (change := _adapt(name, found, value, is_first=name == first)) is not None:
            taken[name], adapted[name] = change
        else:
            new[name] = f"{list(value.shape)}, {list(found.shape)} in the file"
            explained += value.numel() if _has_other_columns(found, value) else 0
    counted = sum(p.numel() for p in parameters.values()) - explained
    fraction = sum(taken[name].numel() for name in parameters if name in taken) / max(counted, 1)
    known = set(sources.values())
    left = [name for name in stored if name not in known and not name.endswith("num_batches_tracked")]
    return Transfer(taken, adapted, new, left, fraction)


def nearest_mismatch(model: nn.Module, stored: Mapping[str, Tensor], found: Transfer) -> str:
    """Describe the first parameter that a file lacks, and the tensor in it with the most similar name."""
    own = dict(model.named_parameters())
    sources = _matched_names(own, stored)
    name = next((name for name in own if name in found.new), next(iter(own), ""))
    near = sources.get(name) or nearest_name(name, stored) or next(iter(stored), "")
    shape = list(own[name].shape) if name else []
    found_shape = list(stored[near].shape) if near else []
    return f"the model has {name} {shape}, the file's most similar tensor is {near} {found_shape}"


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weight of a first convolution for other input channels, with outputs of a similar scale.

    For one channel the weights are summed over the input channels, so that a grey image gives the same output as its
    colour version; for more channels they are repeated and scaled down in proportion, as in timm.
    """
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / before), 1, 1)[:, :channels]
    return repeated * (before / channels)


def _has_other_rows(found: Tensor, value: Tensor) -> bool:
    return found.ndim == value.ndim and found.shape[0] != value.shape[0] and found.shape[1:] == value.shape[1:]


def _has_other_columns(found: Tensor, value: Tensor) -> bool:
    """Return whether a linear layer has another number of inputs, as after flattening images of another size."""
    return found.ndim == value.ndim == 2 and found.shape[0] == value.shape[0]


def _matched_names(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the stored name of each own name, after removing the prefixes with which most values match."""
    best: dict[str, str] = {}
    most = (-1, -1)
    for here, there in _prefixes(own, stored):
        names = {
            name: source
            for name in own
            if name.startswith(here) and (source := there + name.removeprefix(here)) in stored
        }
        agree = sum(own[name].numel() for name, source in names.items() if own[name].shape == stored[source].shape)
        if (agree, len(names)) > most:
            best, most = names, (agree, len(names))
    return best


def _prefixes(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[tuple[str, str], None]:
    """Return pairs of prefixes to remove from own and stored names, such as `module.`; the first pair is empty."""
    found = {("", ""): None}
    for names, others, is_own in ((own, stored, True), (stored, own, False)):
        ends = [*list(others)[:ENDS], *list(others)[-ENDS:]]
        for end in ends:
            heads = [name.removesuffix(end) for name in names if name.endswith(f".{end}")]
            found |= {((head, "") if is_own else ("", head)): None for head in heads}
    return found


def _adapt(name: str, found: Tensor, value: Tensor, *, is_first: bool) -> tuple[Tensor, str] | None:
    """Return a stored tensor in the shape of the net's, and how it was changed; None if it cannot be adapted."""
    same_but_channels = found.ndim == value.ndim == 4 and (found.shape[0], *found.shape[2:]) == (
        value.shape[0],
        *value.shape[2:],
    )
    if is_first and same_but_channels:
        return with_channels(found.float(), value.shape[1]), f"{found.shape[1]} -> {value.shape[1]} channels"
    if any(part in name for part in POSITION_NAMES):
        resized = _resize_positions(found.float(), value.shape)
        if resized is not None:
            return resized, f"{list(found.shape)} -> {list(value.shape)} interpolated"
    return None


def _resize_positions(table: Tensor, shape: torch.Size) -> Tensor | None:
    """Interpolate a position table: tokens [1, N, D], a map [1, H, W, D], or offsets in a window [N, heads]."""
    if table.ndim != len(shape) or table.shape[-1] != shape[-1]:
        return None
    if table.ndim == 4 and table.shape[0] == shape[0] == 1:
        return _resize_map(table, (shape[1], shape[2]))
    rows = table if table.ndim == 2 else table[0]
    before, after = len(rows), shape[-2]
    for tokens in range(MOST_PREFIX_TOKENS + 1 if table.ndim == 3 else 1):
        old, new = math.isqrt(max(before - tokens, 0)), math.isqrt(max(after - tokens, 0))
        if old and new and old * old + tokens == before and new * new + tokens == after:
            grid = rows[tokens:].reshape(1, old, old, -1)
            resized = _resize_map(grid, (new, new)).reshape(new * new, -1)
            return torch.cat([rows[:tokens], resized]).reshape(shape)
    return None


def _resize_map(grid_BHWD: Tensor, size: tuple[int, int]) -> Tensor:
    planes = grid_BHWD.permute(0, 3, 1, 2)
    return F.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False).permute(0, 2, 3, 1)
