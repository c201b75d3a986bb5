"""Learning rates by depth: `optimizer.layer_decay` and `optimizer.head_lr`.

The blocks of any network are found in the order of its `named_parameters`:

- The head is found by `resnet_cli.heads.find_head`.
- A container (`Sequential`, `ModuleList`, `ModuleDict`) is not a block but holds blocks. So does a module that has a
  container of two or more modules of one class with several weights each: a stage of ConvNeXt, a transformer's
  encoder, a wrapper of a network.
- Every other module with a weight of two or more dimensions is a block: a residual block, or a layer outside of one.
- A module without such a weight, such as the norm after a convolution, belongs to the block before it, or to the first
  block if there is none before. So do direct parameters of modules that hold blocks, such as position embeddings.

ResNet-20 thus has its stem, nine residual blocks and the head; a ViT-B/16 its embeddings, twelve blocks and the head.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from resnet_cli.heads import find_head

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def depths(model: nn.Module, num_classes: int | None = None) -> dict[Tensor, int]:
    """Return the number of blocks from the head to each parameter: 0 in the head, 1 in the block before it."""
    blocks = find_blocks(model, num_classes)
    found = {p: len(blocks) - index for index, block in enumerate(blocks) for p in block}
    return found | {parameter: 0 for layer in find_head(model, num_classes) for parameter in layer.parameters()}


def find_blocks(model: nn.Module, num_classes: int | None = None) -> list[list[Tensor]]:
    """Return the parameters of each block, in the order of `named_parameters`; those of the head are left out."""
    outside: set[Tensor] = {parameter for layer in find_head(model, num_classes) for parameter in layer.parameters()}
    blocks: list[list[Tensor]] = [[]]
    has_weight = False
    for is_module, parameters in _parts(model):
        own = [parameter for parameter in parameters if parameter not in outside]
        if not own:
            continue
        starts = is_module and any(parameter.ndim > 1 for parameter in own)
        if starts and has_weight:
            blocks.append([])
        has_weight = has_weight or starts
        blocks[-1] += own
        outside.update(own)  # a shared parameter belongs to its first block
    return [block for block in blocks if block]


def _parts(module: nn.Module) -> Iterator[tuple[bool, list[nn.Parameter]]]:
    """Yield (is_whole_module, parameters) for each module that is not split further, in order."""
    own = list(module.parameters(recurse=False))
    if own:
        yield False, own
    for child in module.children():
        if isinstance(child, CONTAINERS) or _holds_blocks(child):
            yield from _parts(child)
        else:
            yield True, list(child.parameters())


def _holds_blocks(module: nn.Module) -> bool:
    """Return True if a module has a container, at any depth, with two blocks of one class."""
    for child in module.children():
        if not isinstance(child, CONTAINERS):
            if _holds_blocks(child):
                return True
            continue
        kinds = [type(block) for block in child.children() if _is_block(block)]
        if len(kinds) > len(set(kinds)) or _holds_blocks(child):
            return True
    return False


def _is_block(module: nn.Module) -> bool:
    """Return True for a module of two or more weighted layers that is not a container."""
    weights = sum(parameter.ndim > 1 for parameter in module.parameters())
    return weights > 1 and not isinstance(module, CONTAINERS)


def with_rates_by_depth(
    groups: list[dict[str, Any]],
    model: nn.Module,
    layer_decay: float | None,
    head_lr: float | None,
    num_classes: int | None = None,
) -> list[dict[str, Any]]:
    """Split parameter groups by depth, and scale the learning rate of each part; the head may have its own rate.

    Args:
        groups: Parameter groups. One with an `lr` or an `lr_scale` of its own keeps it.
        model: The model whose blocks determine the depths.
        layer_decay: The factor is `layer_decay ** depth`; None is 1.
        head_lr: Learning rate of the head; None is that of the optimizer.
        num_classes: Number of classes, by which the head is found; None if it is unknown.

    Returns:
        The groups, from the head backwards with `layer_decay`; with `head_lr` the head comes last. The rows of metrics
        record the learning rate of the first group.
    """
    if layer_decay is None and head_lr is None:
        return groups
    depth_of = depths(model, num_classes)
    last = 1 + max(depth_of.values(), default=0)
    split: dict[tuple[int, int], dict[str, Any]] = {}
    for index, group in enumerate(groups):
        has_own_rate = "lr" in group or "lr_scale" in group
        for parameter in group["params"]:
            depth, position = depth_of[parameter], 0
            options: dict[str, Any] = {}
            if not has_own_rate and depth == 0 and head_lr is not None:
                options, position = {"lr": head_lr}, last
            elif not has_own_rate and layer_decay is not None:
                options, position = {"lr_scale": layer_decay**depth}, depth
            if options:
                options["name"] = f"{group['name']}, {f'depth {depth}' if depth else 'head'}"
            split.setdefault((position, index), {**group, **options, "params": []})["params"].append(parameter)
    return [split[key] for key in sorted(split)]
