"""The residual block that all network families of this package use, and its two teaching forms."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below
from resnet_cli.errors import InputError
from resnet_cli.models.checks import require_layers
from resnet_cli.models.layers.activations import Activation, ActivationSpec
from resnet_cli.models.layers.normalisation import Norm, NormSpec
from resnet_cli.models.layers.regularisers import StochasticDepth, check_stochastic_depth
from resnet_cli.models.layers.shortcuts import Gate, Paths, Shortcut, ShortcutSpec


class Residual(nn.Module):
    """`after(main_path(z) + shortcut_path(z))` with `z = before(x)` (He et al. 2015, arXiv 1512.03385, eq. 1).

    Args:
        main_path: The residual branch, F.
        shortcut_path: The path that is added to the branch, of the same output shape; None adds nothing.
        before: Layers before the split into the two paths.
        after: Layers after the sum.
        gate: g in `g * main_path + (1 - g) * shortcut_path` (arXiv 1603.05027, section 3.1, exclusive gating).
    """

    def __init__(
        self,
        main_path: nn.Module,
        shortcut_path: nn.Module | None,
        *,
        before: nn.Module | None = None,
        after: nn.Module | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self.before = nn.Identity() if before is None else before
        self.main_path = main_path
        self.shortcut_path = shortcut_path
        self.after = nn.Identity() if after is None else after
        self.gate = gate

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the shape of the main path's output."""
        inputs = self.before(inputs)
        outputs: Tensor = self.main_path(inputs)
        if self.shortcut_path is not None:
            shortcut = self.shortcut_path(inputs)
            if self.gate is not None:
                gates = self.gate(inputs)
                outputs, shortcut = gates * outputs, (1 - gates) * shortcut
            outputs = outputs + shortcut
        after: Tensor = self.after(outputs)
        return after


class ResidualBlock(Residual):
    """Convolutions of stride 1 with a shortcut around them; the sum goes through a ReLU.

    `main_path`: for each convolution but the last, convolution (bias, same padding), `Dropout2d` if any, normalisation
    if any, activation; nothing follows the last convolution. `shortcut_path` for `shortcut="B"`: the identity (an empty
    `nn.Sequential`), or one 1x1 convolution without bias where the channel counts differ.

    Args:
        in_channels: Channels of the input `[B, in_channels, H, W]`.
        channels: Output channels of each convolution; the output is `[B, channels[-1], H, W]`.
        kernel_sizes: Side of each convolution's kernel, in pixels; odd.
        batchnorm: Normalise between convolutions.
        dropout: Probability of dropping a channel between convolutions.
        activation_type: Nonlinearity between convolutions.
        activation_params: Its keyword arguments.
        residual: False leaves the shortcut out.
        norm: The normalisation between convolutions, which overrides `batchnorm`; None follows `batchnorm`.
        norm_params: Its keyword arguments.
        shortcut: The path that is added to the branch; see `shortcuts.paths`.
        gate_bias: Initial bias of a gated shortcut; the lower, the more of the shortcut is kept.
        stochastic_depth: Probability of dropping the branch for a sample in training.
        map_size: H, W if known, for error messages.

    Raises:
        InputError: `channels` and `kernel_sizes` have unequal lengths, a width is below 1, a kernel is even, an
            identity joins unequal channels, or stochastic depth is used without a shortcut.
    """

    @validate_arguments
    def __init__(
        self,
        in_channels: Annotated[int, AtLeast(1)],
        channels: Sequence[Annotated[int, AtLeast(1)]],
        kernel_sizes: Sequence[int],
        batchnorm: bool = False,
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        *,
        residual: bool = True,
        norm: Norm | None = None,
        norm_params: Mapping[str, Any] = {},
        shortcut: Shortcut = "B",
        gate_bias: float = -6.0,
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        map_size: Sequence[int] = (),
    ) -> None:
        _check_layout(channels, kernel_sizes)
        shortcut = shortcut if residual else "none"
        check_stochastic_depth(stochastic_depth, shortcuts=shortcut != "none")
        activation = ActivationSpec(activation_type, activation_params)
        norm_spec = NormSpec(norm or ("batch" if batchnorm else "none"), norm_params)
        main_path = nn.Sequential()
        width_in = in_channels
        for width, side in zip(channels[:-1], kernel_sizes[:-1], strict=True):
            wide = activation.out_channels_before(width)
            main_path.append(nn.Conv2d(width_in, wide, side, padding=side // 2))
            between = [nn.Dropout2d(dropout) if dropout > 0 else None, norm_spec.maps(wide), activation.layer()]
            main_path.extend(layer for layer in between if layer is not None)
            width_in = activation.in_channels_after(width)
        main_path.append(nn.Conv2d(width_in, channels[-1], kernel_sizes[-1], padding=kernel_sizes[-1] // 2))
        paths = _stride_1_paths(ShortcutSpec(shortcut, gate_bias), in_channels, channels[-1], map_size)
        if paths.branch_end is not None:
            main_path.add_module("scale", paths.branch_end)
        if stochastic_depth > 0:
            main_path.add_module("stochastic_depth", StochasticDepth(stochastic_depth))
        super().__init__(main_path, paths.shortcut, after=nn.ReLU(), gate=paths.gate)


class ResidualBottleneckBlock(ResidualBlock):
    """A residual block with fewer channels inside (He et al. 2015, figure 5, right).

    A 1x1 convolution to `inner_channels[0]`, the inner convolutions, a 1x1 convolution back to `in_out_channels`; the
    other arguments are those of `ResidualBlock`.

    Args:
        in_out_channels: Channels of the input and of the output.
        inner_channels: Output channels of each inner convolution.
        inner_kernel_sizes: Side of each inner convolution's kernel, in pixels; odd.
        batchnorm: Normalise between convolutions.
        dropout: Probability of dropping a channel between convolutions.
        activation_type: Nonlinearity between convolutions.
        activation_params: Its keyword arguments.
        residual: False leaves the shortcut out.
        norm: The normalisation between convolutions, which overrides `batchnorm`; None follows `batchnorm`.
        norm_params: Its keyword arguments.
        shortcut: The path that is added to the branch; see `shortcuts.paths`.
        gate_bias: Initial bias of a gated shortcut.
        stochastic_depth: Probability of dropping the branch for a sample in training.
        map_size: H, W if known, for error messages.

    Raises:
        InputError: as in `ResidualBlock`.
    """

    @validate_arguments
    def __init__(
        self,
        in_out_channels: Annotated[int, AtLeast(1)],
        inner_channels: Sequence[Annotated[int, AtLeast(1)]],
        inner_kernel_sizes: Sequence[int],
        batchnorm: bool = False,
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        *,
        residual: bool = True,
        norm: Norm | None = None,
        norm_params: Mapping[str, Any] = {},
        shortcut: Shortcut = "B",
        gate_bias: float = -6.0,
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        map_size: Sequence[int] = (),
    ) -> None:
        require_layers("inner_channels", inner_channels)
        super().__init__(
            in_out_channels,
            [inner_channels[0], *inner_channels, in_out_channels],
            [1, *inner_kernel_sizes, 1],
            batchnorm,
            dropout,
            activation_type,
            activation_params,
            residual=residual,
            norm=norm,
            norm_params=norm_params,
            shortcut=shortcut,
            gate_bias=gate_bias,
            stochastic_depth=stochastic_depth,
            map_size=map_size,
        )


def _check_layout(channels: Sequence[int], kernel_sizes: Sequence[int]) -> None:
    require_layers("channels", channels)
    if len(channels) != len(kernel_sizes):
        raise InputError(f"kernel_sizes={list(kernel_sizes)}: must be one for each of channels={list(channels)}")
    for i, side in enumerate(kernel_sizes):
        if side < 1 or side % 2 == 0:
            raise InputError(f"kernel_sizes[{i}]={side}: must be odd, so that the padding keeps the image's size")


def _stride_1_paths(shortcut: ShortcutSpec, in_channels: int, out_channels: int, map_size: Sequence[int]) -> Paths:
    """Create the shortcut of a block of stride 1."""
    if shortcut.name != "B":
        return shortcut.between_maps((in_channels, *map_size), out_channels, 1)
    path = nn.Sequential()  # notebooks rely on B as a sequence without named parts
    if in_channels != out_channels:
        path.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
    return Paths(path)
