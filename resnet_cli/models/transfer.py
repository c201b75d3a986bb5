"""Fit the weights of one net to another: other classes, other input channels, other image sizes.

Names and shapes decide. The head is new where the classes are others; the first convolution is adapted to the channels
of the images, and tables of positions to their size; whatever else has another shape is new.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cli.config.suggestions import nearest_name
from resnet_cli.models.head import head_parameters

POSITION_NAMES = ("pos_embed", "pos_emb", "position_embed", "positional_embed", "relative_position_bias_table")
MOST_PREFIX_TOKENS = 2  # tokens in front of the patches: class and distillation
ENDS = 3  # names at both ends of a net by which a common prefix is looked for


@dataclass(frozen=True)
class Transfer:
    """What of a file's weights a net takes.

    Args:
        tensors: Values to load, by the net's own names.
        adapted: How some of them were changed, by name.
        new: Why the net's other tensors are not among them, by name.
        left: Names in the file that the net does not have.
        fraction: Part of the parameters that were found, not counting those that other classes or image sizes explain.
    """

    tensors: Mapping[str, Tensor]
    adapted: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, str] = field(default_factory=dict)
    left: Sequence[str] = ()
    fraction: float = 0.0


def transfer(
    model: nn.Module, stored: Mapping[str, Tensor], *, in_channels: int, num_classes: int, other_classes: bool = False
) -> Transfer:
    """Fit stored weights to a model, which stays as it is.

    Args:
        model: The net that receives them.
        stored: Weights by name; all names may have a prefix in common that the model's lack, or the other way round.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        other_classes: The weights are of as many classes, but of others: the head is new.
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
    """Describe the first parameter that a file lacks, and what in it has the most similar name."""
    own = dict(model.named_parameters())
    sources = _matched_names(own, stored)
    name = next((name for name in own if name in found.new), next(iter(own), ""))
    near = sources.get(name) or nearest_name(name, stored) or next(iter(stored), "")
    shape = list(own[name].shape) if name else []
    return f"the model's {name} {shape} has nearest to it {near} {list(stored[near].shape) if near else []}"


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution for other input channels, whose outputs are about as large as before.

    For one channel the weights are summed over theirs, so that a grey image gives what it gives as a colour image; for
    more they are repeated and scaled down in proportion. So does timm.
    """
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / before), 1, 1)[:, :channels]
    return repeated * (before / channels)


def _has_other_rows(found: Tensor, value: Tensor) -> bool:
    return found.ndim == value.ndim and found.shape[0] != value.shape[0] and found.shape[1:] == value.shape[1:]


def _has_other_columns(found: Tensor, value: Tensor) -> bool:
    """Return whether a linear layer reads another number of values, as after flattening images of another size."""
    return found.ndim == value.ndim == 2 and found.shape[0] == value.shape[0]


def _matched_names(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the stored name of each own name, with the prefixes taken off by which the most values agree."""
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
    """Return the prefixes of own and stored names that can be in one of them alone, such as `module.`; first none."""
    found = {("", ""): None}
    for names, others, is_own in ((own, stored, True), (stored, own, False)):
        ends = [*list(others)[:ENDS], *list(others)[-ENDS:]]
        for end in ends:
            heads = [name.removesuffix(end) for name in names if name.endswith(f".{end}")]
            found |= {((head, "") if is_own else ("", head)): None for head in heads}
    return found


def _adapt(name: str, found: Tensor, value: Tensor, *, is_first: bool) -> tuple[Tensor, str] | None:
    """Return a stored tensor in the shape of the net's, and how it was changed; None if it cannot be."""
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
    """Interpolate a table of positions: tokens [1, N, D], a map [1, H, W, D], or offsets in a window [N, heads]."""
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
