"""Nets that cut their images into patches, and leave out what does not fill one."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.models.layers.windows import window_of
from resnet_cli.models.meta_device import meta_twin, run_twin


def nearest_multiple(side: int, patch: int) -> int:
    """Return the multiple of `patch` that is nearest to `side`, and not 0."""
    return max(1, round(side / patch)) * patch


def require_whole_patches(model: nn.Module, in_size: Sequence[int], name: str) -> None:
    """Raise an `InputError` if a patch embedding would leave out pixels at the border of the images.

    Such embeddings are those of timm: a module with a `patch_size`, whose convolution `proj` has it as kernel and
    stride. Images that the net pads or resizes before, and feature maps, are not judged.

    Args:
        model: The net, which can run on such images.
        in_size: Channels, height and width of the images.
        name: Name of the net, for the message.
    """
    if all(_projection(module) is None for module in model.modules()):
        return
    patches: list[tuple[int, int]] = []

    def note(projection: Any, inputs: tuple[Any, ...]) -> None:
        if tuple(inputs[0].shape[1:]) == tuple(in_size):
            patches.append(projection.kernel_size)

    twin = meta_twin(model)
    for projection in filter(None, map(_projection, twin.modules())):
        projection.register_forward_pre_hook(note)
    run_twin(twin, in_size)
    for patch in patches:
        sides = list(zip(in_size[1:], patch, strict=True))
        if any(side % length for side, length in sides):
            patch_text = str(patch[0]) if patch[0] == patch[1] else f"{patch[0]} and {patch[1]}"
            nearest = [nearest_multiple(side, length) for side, length in sides]
            size = str(nearest[0]) if nearest[0] == nearest[1] else f"{nearest[0]}x{nearest[1]}"
            raise InputError(
                f"in_size={list(in_size)}: {name} sees only whole patches: use a multiple of {patch_text}, such as "
                f"{size}, or set model.options.patch_size"
            )


def _projection(module: nn.Module) -> nn.Conv2d | None:
    """Return the convolution of a patch embedding; None for other modules."""
    projection = getattr(module, "proj", None)
    if not hasattr(module, "patch_size") or not isinstance(projection, nn.Conv2d) or projection.padding != (0, 0):
        return None
    kernel, stride, _ = window_of(projection)
    return projection if kernel == stride else None
