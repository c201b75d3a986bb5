"""Any of timm's image classifiers, by name."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any

from torch import nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, NotEmpty
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError, first_line
from resnet_cli.models.checks import image_size, refusal, require_plain
from resnet_cli.models.meta_device import meta_twin, run_twin

# Options that are set here, or that would make timm read files, fetch configs or build other models than classifiers.
RESERVED_OPTIONS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "pretrained_model_args", "checkpoint_path", "cache_dir", "num_classes", "in_chans", "features_only", "feature_cfg",
    "model_cfg", "scriptable", "exportable", "no_jit", "device", "dtype",
)  # fmt: skip


@validate_arguments
def timm_model(
    in_size: Sequence[int],
    out_classes: Annotated[int, AtLeast(1)],
    *,
    name: Annotated[str, NotEmpty()] = "resnet18",
    pretrained: bool = False,
    options: Mapping[str, Any] = {},
) -> nn.Module:
    """Create a classifier of timm: images `[B, C, H, W]` -> class scores `[B, K]`.

    Networks with a fixed image size, such as `vit_*`, are built for the size in `in_size`.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        name: One of `timm.list_models()`, with or without the tag of its weights: `resnet18.a1_in1k`.
        pretrained: Start a run from the published weights. They are loaded when the run starts
            (`resnet_cli.session.pretrained`) and not here, since a resumed or evaluated run has its own weights.
        options: Further arguments of the network that are plain values, such as `drop_path_rate`.

    Raises:
        InputError: timm is not installed, the name is unknown (the message has the nearest), or the network cannot take
            the images or options.
    """
    size = image_size(in_size)
    require_timm_name(name)
    reserved = [key for key in options if key in RESERVED_OPTIONS]
    if reserved:
        raise InputError(f"options.{reserved[0]}: cannot be set")
    require_plain("options", options)
    import timm

    config = timm.get_pretrained_cfg(name)
    is_sized = config is not None and config.fixed_input_size and "img_size" not in options
    own: dict[str, Any] = {"img_size": size[1:]} if is_sized else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=out_classes, in_chans=size[0], **own, **options
        )  # fmt: skip
    except Exception as error:  # timm's many networks may raise anything
        raise refusal(f"timm's {name}", options, in_size if own else None, error) from error
    try:
        run_twin(meta_twin(model), in_size)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"in_size={list(in_size)}: timm's {name} cannot take such images: {first_line(error)}"
        ) from error
    return model


def require_timm_name(name: str) -> None:
    """Raise an `InputError` if timm is not installed, or does not have the classifier or the tag of its weights."""
    if find_spec("timm") is None:
        raise InputError("model=timm: needs the package timm: pip install 'resnet-cli[timm]'")
    import timm
    from timm.models import get_arch_pretrained_cfgs

    net, _, tag = name.partition(".")
    names = timm.list_models()
    if net not in names:
        raise InputError(f"model.name={name}: timm has no such classifier{did_you_mean(net, names)}")
    known = [full for full in get_arch_pretrained_cfgs(net) if "." in full]
    if tag and name not in known:
        there = f"; there are {', '.join(known)}" if known else ""
        raise InputError(f"model.name={name}: timm has no such weights{did_you_mean(name, known) or there}")
