"""The teaching networks: `CNN`, and `ResNet`, which has residual blocks in place of convolutions.

Layers are built, and their weights drawn, in the order in which they are applied. Feature sizes are computed by formula
rather than by a forward pass.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below
from resnet_cli.errors import InputError
from resnet_cli.models.checks import check_choice, image_size, make_layer, require_layers
from resnet_cli.models.initialisation.schemes import Init, Initialised, initialise
from resnet_cli.models.layers.activations import Activation, ActivationSpec
from resnet_cli.models.layers.blocks import ResidualBlock, ResidualBottleneckBlock
from resnet_cli.models.layers.normalisation import Norm, NormSpec
from resnet_cli.models.layers.regularisers import add_drop_connect, check_stochastic_depth, linear_rates
from resnet_cli.models.layers.shortcuts import Shortcut
from resnet_cli.models.layers.windows import Windowed, as_pair, window_of
from resnet_cli.models.mlp import MLP, classifier_head

Pooling = Literal["max", "avg"]
Width = Annotated[int, AtLeast(1)]


class FeaturesThenMLP(Initialised):
    """Images `[B, C, H, W]` -> `feature_extractor` -> flatten -> `mlp` -> class scores `[B, K]`."""

    def __init__(self, feature_extractor: nn.Sequential, mlp: MLP) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.mlp = mlp

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.mlp(self.feature_extractor(images).flatten(1))
        return scores


class CNN(FeaturesThenMLP):
    """`[(CONV -> ACT)*P -> POOL]*(N/P) -> (FC -> ACT)*M -> FC`: N convolutions, M hidden linear layers.

    A pool follows every P-th convolution; N mod P convolutions at the end have none. With the regularisers, each
    `CONV -> ACT` is `CONV -> NORM -> ACT -> DROPOUT2D` and each hidden `FC -> ACT` is `FC -> ACT -> DROPOUT`.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        channels: Units of each convolution (N of them), which are its output channels unless the activation is maxout.
        pool_every: P, the convolutions between poolings.
        hidden_dims: Features of each hidden linear layer (M of them, or none).
        conv_params: Arguments of every `nn.Conv2d`; without a `kernel_size`, 3 with padding 1.
        activation_type: The nonlinearity.
        activation_params: Its keyword arguments.
        pooling_type: The kind of pooling.
        pooling_params: Arguments of every pooling layer; without a `kernel_size`, 2.
        norm: The normalisation after each convolution.
        norm_params: Its keyword arguments.
        spatial_dropout: Probability of dropping a channel after each convolution's activation.
        hidden_dropout: Probability of dropping a unit after each hidden linear layer's activation.
        drop_connect: Probability of dropping a weight of a convolution or linear layer.
        init: How weights are drawn.

    Raises:
        InputError: a layer reduces the image to less than one pixel, or an argument cannot be used.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Width,
        channels: Sequence[Width],
        pool_every: Annotated[int, AtLeast(1)],
        hidden_dims: Sequence[Width],
        conv_params: Mapping[str, Any] = {},
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        pooling_type: Pooling = "max",
        pooling_params: Mapping[str, Any] = {},
        *,
        norm: Norm = "none",
        norm_params: Mapping[str, Any] = {},
        spatial_dropout: Annotated[float, Below(0, 1)] = 0.0,
        hidden_dropout: Annotated[float, Below(0, 1)] = 0.0,
        drop_connect: Annotated[float, Below(0, 1)] = 0.0,
        init: Init = "default",
    ) -> None:
        require_layers("channels", channels)
        activation, norm_spec = ActivationSpec(activation_type, activation_params), NormSpec(norm, norm_params)
        conv_params = conv_params if "kernel_size" in conv_params else {"kernel_size": 3, "padding": 1, **conv_params}
        width_in, *size = image_size(in_size)
        features = nn.Sequential()
        for i, width in enumerate(channels, start=1):
            conv = make_layer(
                "conv_params", nn.Conv2d, width_in, activation.out_channels_before(width), params=conv_params
            )
            size = _size_after(conv, size, f"convolution {i}")
            dropout = nn.Dropout2d(spatial_dropout) if spatial_dropout > 0 else None
            layers = [conv, norm_spec.maps(conv.out_channels), activation.layer(), dropout]
            features.extend(layer for layer in layers if layer is not None)
            if i % pool_every == 0:
                pool = _pooling(pooling_type, pooling_params)
                size = _size_after(pool, size, f"pooling {i // pool_every}")
                features.append(pool)
            width_in = activation.in_channels_after(width)
        in_dim = width_in * size[0] * size[1]
        head = classifier_head(in_dim, hidden_dims, out_classes, activation, hidden_dropout)
        super().__init__(features, head)
        initialise(self, init)
        add_drop_connect(self, drop_connect)


class ResNet(FeaturesThenMLP):
    """`CNN` with each P 3x3 convolutions replaced by a residual block and a pool; a remainder has no pool.

    With `bottleneck`, a group of at least three convolutions whose input channels equal its last channels becomes a
    bottleneck over its middle channels.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        channels: Output channels of each convolution (N of them).
        pool_every: P, the convolutions of a block.
        hidden_dims: Features of each hidden linear layer (M of them, or none).
        batchnorm: Use batch norm between the convolutions of a block.
        dropout: Probability of dropping a channel between the convolutions of a block.
        bottleneck: Use bottlenecks where they fit.
        activation_type: The nonlinearity inside blocks and between linear layers; sums go through a ReLU.
        activation_params: Its keyword arguments.
        pooling_type: The kind of pooling.
        pooling_params: Arguments of every pooling layer; without a `kernel_size`, 2.
        residual: False leaves all shortcuts out.
        shortcut: The path that is added to each block's branch; see docs/howto/model.md.
        gate_bias: Initial bias of gated shortcuts; the lower, the more of the shortcut is kept.
        norm: The normalisation in blocks, which overrides `batchnorm`; None follows `batchnorm`.
        norm_params: Its keyword arguments.
        hidden_dropout: Probability of dropping a unit after each hidden linear layer's activation.
        drop_connect: Probability of dropping a weight of a convolution or linear layer.
        stochastic_depth: Probability of dropping the branch of the last block; it grows linearly over the blocks.
        init: How weights are drawn.

    Raises:
        InputError: a pool reduces the image to less than one pixel, an identity joins unequal channels, stochastic
            depth is used without shortcuts, or an argument cannot be used.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Width,
        channels: Sequence[Width],
        pool_every: Annotated[int, AtLeast(1)],
        hidden_dims: Sequence[Width],
        batchnorm: bool = False,
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        bottleneck: bool = False,
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        pooling_type: Pooling = "max",
        pooling_params: Mapping[str, Any] = {},
        *,
        residual: bool = True,
        shortcut: Shortcut = "B",
        gate_bias: float = -6.0,
        norm: Norm | None = None,
        norm_params: Mapping[str, Any] = {},
        hidden_dropout: Annotated[float, Below(0, 1)] = 0.0,
        drop_connect: Annotated[float, Below(0, 1)] = 0.0,
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        init: Init = "default",
    ) -> None:
        require_layers("channels", channels)
        check_stochastic_depth(stochastic_depth, shortcuts=residual and shortcut != "none")
        groups = [list(channels[i : i + pool_every]) for i in range(0, len(channels), pool_every)]
        width_in, *size = image_size(in_size)
        features = nn.Sequential()
        for i, (group, rate) in enumerate(zip(groups, linear_rates(len(groups), stochastic_depth), strict=True)):
            narrow = bottleneck and len(group) >= 3 and width_in == group[-1]
            block = ResidualBottleneckBlock if narrow else ResidualBlock
            inner = group[1:-1] if narrow else group
            features.append(
                block(
                    width_in, inner, [3] * len(inner), batchnorm, dropout, activation_type, activation_params,
                    residual=residual, norm=norm, norm_params=norm_params, shortcut=shortcut, gate_bias=gate_bias,
                    stochastic_depth=rate, map_size=size,
                )
            )  # fmt: skip
            if len(group) == pool_every:
                pool = _pooling(pooling_type, pooling_params)
                size = _size_after(pool, size, f"pooling {i + 1}")
                features.append(pool)
            width_in = group[-1]
        in_dim = width_in * size[0] * size[1]
        activation = ActivationSpec(activation_type, activation_params)
        head = classifier_head(in_dim, hidden_dims, out_classes, activation, hidden_dropout)
        super().__init__(features, head)
        initialise(self, init)
        add_drop_connect(self, drop_connect)


def _pooling(pooling_type: Pooling, params: Mapping[str, Any]) -> nn.MaxPool2d | nn.AvgPool2d:
    check_choice("pooling_type", pooling_type, get_args(Pooling))
    params = {"kernel_size": 2, **params}
    if pooling_type == "max":
        return make_layer("pooling_params", nn.MaxPool2d, params=params)
    return make_layer("pooling_params", nn.AvgPool2d, params=params)


def _size_after(layer: Windowed, size: Sequence[int], name: str) -> list[int]:
    """Return the height and width after `layer` for an input of `size`, by the formula in PyTorch's documentation.

    Raises:
        InputError: the result has less than one pixel, or the padding is too large for the pooling.
    """
    kernel, stride, dilation = window_of(layer)
    ceil_mode = getattr(layer, "ceil_mode", False)
    after = []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1)
        if isinstance(layer.padding, str):
            pad = reach if layer.padding == "same" else 0
        else:
            pad = 2 * as_pair(layer.padding)[axis]
        if not isinstance(layer, nn.Conv2d) and pad > kernel[axis]:
            raise InputError(f"{name}: its padding {layer.padding} is more than half of its kernel {layer.kernel_size}")
        windows, rest = divmod(size[axis] + pad - reach - 1, stride[axis])
        # the last window of ceil_mode must start on the image or its near padding
        extra = ceil_mode and rest > 0 and (windows + 1) * stride[axis] < size[axis] + pad // 2
        after.append(windows + 1 + extra)
    if min(after) < 1:
        raise InputError(
            f"{name}: leaves {after[0]}x{after[1]} pixels of {size[0]}x{size[1]} "
            f"(kernel {kernel[0]}x{kernel[1]}, stride {stride[0]}x{stride[1]}): "
            f"the network shrinks its images too often; use a larger pool_every or fewer channels"
        )
    return after
