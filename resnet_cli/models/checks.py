"""Checks of constructor arguments; errors name the argument, its value, what is allowed and the nearest name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError, ModelTooLargeError, first_line

Layer = TypeVar("Layer", bound=nn.Module)

# Arguments of torch layers that do not affect the architecture.
NON_ARCHITECTURE_ARGUMENTS = ("device", "dtype", "return_indices")
WINDOW = {"kernel_size": 1, "stride": 1, "dilation": 1, "padding": 0}  # options of layers -> minimum


def check_choice(key: str, value: object, allowed: Sequence[str]) -> None:
    """Raise if the `value` of argument `key` is not in `allowed`.

    Raises:
        InputError: the value is not allowed; the message has the nearest allowed name.
    """
    if value not in allowed:
        raise InputError(f"{key}={value!r}: must be one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


def require_layers(key: str, values: Sequence[int]) -> None:
    """Raise an `InputError` if a list with a number for each layer is empty."""
    if len(values) == 0:
        raise InputError(f"{key}=[]: must name at least one layer")


def image_size(in_size: Sequence[int], *, halvings: int = 0, hint: str = "") -> tuple[int, int, int]:
    """Return `in_size` as (channels, height, width), for a network that halves height and width `halvings` times.

    Raises:
        InputError: not three positive numbers, or the halvings would leave less than one pixel.
    """
    if len(in_size) != 3 or min(in_size) < 1:
        raise InputError(f"in_size={list(in_size)}: must be channels, height and width, each 1 or more")
    channels, height, width = in_size
    least = 2**halvings
    if min(height, width) < least:
        raise InputError(
            f"in_size={list(in_size)}: this network halves its images {halvings} times, "
            f"so height and width must be {least} or more{hint}"
        )
    return channels, height, width


def check_window(key: str, value: object, least: int) -> None:
    """Raise unless a value is a number of pixels of at least `least`, or a pair of them for height and width.

    None and texts are left to the layer: an option that is not given, or `padding=same`.

    Raises:
        InputError: the value is neither.
    """
    if value is None or isinstance(value, str):
        return
    pair = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or any(type(number) is not int or not least <= number < 2**31 for number in pair):
        raise InputError(f"{key}={value!r}: must be a whole number {least} or more, or two of them")


def make_layer(key: str, layer: Callable[..., Layer], *args: int, params: Mapping[str, Any]) -> Layer:
    """Create `layer(*args, **params)`; `params` are the user's, under `key`.

    Raises:
        InputError: an argument that the layer does not have, with the nearest name, or a value that it rejects.
    """
    name = getattr(layer, "__name__", str(layer))
    named = [p.name for p in inspect.signature(layer).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    takes = [option for option in named[len(args) :] if option not in NON_ARCHITECTURE_ARGUMENTS]
    for unknown in sorted(set(params) - set(takes)):
        allowed = ", ".join(takes) or "no options"
        raise InputError(f"{key}.{unknown}: {name} takes {allowed}{did_you_mean(unknown, takes)}")
    for option, least in WINDOW.items():
        check_window(f"{key}.{option}", params.get(option, least), least)
    try:
        return layer(*args, **params)
    except ModelTooLargeError:  # concerns the whole network rather than this layer's arguments
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(f"{key}={dict(params)}: {name} refuses it: {str(error).splitlines()[0]}") from error


def require_plain(key: str, options: Mapping[str, Any]) -> None:
    """Raise an `InputError` if an option names a class or function by `_target_`, which is not built there."""
    for name, value in options.items():
        if isinstance(value, Mapping) and "_target_" in value:
            raise InputError(f"{key}.{name}: takes a plain value; for another class, write a model that builds the net")


def refusal(name: str, options: Mapping[str, Any], in_size: Sequence[int] | None, error: Exception) -> InputError:
    """Return the error for a network of another library that cannot be built.

    Args:
        name: The network.
        options: The user's options.
        in_size: Channels, height and width of the images if the network is built for them.
        error: What the library raised.
    """
    if in_size is None:
        return InputError(f"options={dict(options)}: {name} refuses them: {first_line(error)}")
    if not options:
        return InputError(f"in_size={list(in_size)}: {name} cannot be built for such images: {first_line(error)}")
    size = "x".join(map(str, in_size[1:]))
    return InputError(f"options={dict(options)}: {name} refuses them for images of {size}: {first_line(error)}")
