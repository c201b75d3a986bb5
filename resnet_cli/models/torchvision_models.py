"""Any of torchvision's image classifiers, by name."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, NotEmpty
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError, first_line
from resnet_cli.models.checks import image_size, refusal, require_plain
from resnet_cli.models.meta_device import meta_twin, run_twin
from resnet_cli.models.patches import nearest_multiple
from resnet_cli.models.transfer import with_channels

RESERVED_OPTIONS = ("weights", "progress", "num_classes")  # set here
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
RGB = 3  # channels


@validate_arguments
def torchvision_model(
    in_size: Sequence[int],
    out_classes: Annotated[int, AtLeast(1)],
    *,
    name: str = "resnet18",
    weights: Annotated[str, NotEmpty()] | None = None,
    options: Mapping[str, Any] = {},
) -> nn.Module:
    """Create a classifier of `torchvision.models`: images `[B, C, H, W]` -> class scores `[B, K]`.

    Auxiliary heads are left out. Networks with a fixed image size (`vit_*`, `maxvit_t`) are built for the size in
    `in_size`. If images are not RGB, the first convolution is adapted to their channels.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        name: One of `torchvision.models.list_models(module=torchvision.models)`.
        weights: Published weights that a run starts from: `DEFAULT`, a name such as `IMAGENET1K_V1`, or a file. The net
            is built for them; they are loaded when a run starts (`resnet_cli.session.pretrained`) and not here, since
            a resumed or evaluated run has its own weights.
        options: Further arguments of the network that are plain values, such as `dropout` or `zero_init_residual`.

    Raises:
        InputError: the name is unknown (the message has the nearest), or the network cannot take the images or options.
    """
    from torchvision import models  # slow to import, and needed only here

    names = models.list_models(module=models)
    if name not in names:
        raise InputError(f"name={name!r}: torchvision has no such classifier{did_you_mean(name, names)}")
    channels, height, width = image_size(in_size)
    reserved = [key for key in options if key in RESERVED_OPTIONS]
    if reserved:
        raise InputError(
            f"options.{reserved[0]}: cannot be set; weights are model.weights, and the data give the classes"
        )
    require_plain("options", options)
    if name in WITH_AUXILIARY_HEADS:
        if options.get("aux_logits"):
            raise InputError(f"options.aux_logits=true: must be false; {name} must return only the class scores")
        options = {"aux_logits": False, "init_weights": True, **options}
        if weights is not None and channels == RGB:  # published weights expect a normalisation inside the net
            options = {"transform_input": True, **options}
    own: dict[str, Any] = {}
    if name.startswith("vit_") and "image_size" not in options:
        own = {"image_size": height}
        patch = int(name.rpartition("_")[2])
        if height % patch:
            such = f"a multiple of {patch}, such as {nearest_multiple(height, patch)}"
            raise InputError(f"in_size={list(in_size)}: torchvision's {name} needs {such}")
    elif name.startswith("maxvit_") and "input_size" not in options:
        own = {"input_size": (height, width)}
    try:
        model: nn.Module = models.get_model(name, weights=None, num_classes=out_classes, **own, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise refusal(f"torchvision's {name}", options, in_size if own else None, error) from error
    if channels != RGB:
        _adapt_input_channels(model, channels)
    try:
        run_twin(meta_twin(model), in_size)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"in_size={list(in_size)}: torchvision's {name} cannot take such images: {first_line(error)}"
        ) from error
    return model


def _adapt_input_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for other input channels, with adapted weights and no random draws."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = channels
    first.weight = nn.Parameter(with_channels(first.weight.detach(), channels))
