"""Residual networks for small images: 6n+2 layers (arXiv 1512.03385, section 4.2), and their successors."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between
from resnet_cli.errors import InputError
from resnet_cli.models.checks import image_size
from resnet_cli.models.initialisation.schemes import Init, Initialised, initialise
from resnet_cli.models.layers.activations import Activation, ActivationSpec
from resnet_cli.models.layers.normalisation import Norm, NormSpec
from resnet_cli.models.layers.regularisers import add_drop_connect, check_stochastic_depth
from resnet_cli.models.layers.shortcuts import Shortcut, ShortcutSpec
from resnet_cli.models.layers.units import Block, Order, ResidualStageBuilder, conv

STEM = 16  # channels after the first convolution, whatever the width
WIDTHS = (16, 32, 64)


class CifarResNet(Initialised):
    """3x3 convolution, three stages of n units each, global average pooling, linear classifier.

    `depth` is 6n+2 with basic units and 9n+2 with bottlenecks: the number of layers excluding shortcuts. The name of a
    Wide ResNet also counts two shortcut convolutions: WRN-28-10 is depth=26, width=10, order=preactivation, shortcut=B
    (arXiv 1605.07146).

    Args:
        in_size: Channels, height and width of the images; height and width at least 4.
        out_classes: Number of classes, K.
        depth: Layers: 8, 14, 20, 26, 32 ... with basic units, 11, 20, 29 ... with bottlenecks.
        width: Factor on the channels 16, 32, 64 of the three stages.
        shortcut: The path added to each branch, see docs/howto/model.md. A: parameter-free. B: 1x1 convolution where
            the shape changes. C: 1x1 convolution everywhere.
        gate_bias: Initial bias of gated shortcuts; the lower, the more of the shortcut is kept.
        residual: False leaves the shortcuts out: the plain network.
        order: Where normalisation and activation go (arXiv 1603.05027, figure 4).
        block: Two 3x3 convolutions, or a bottleneck 1x1, 3x3, 1x1 with four times the channels at its end.
        norm: The normalisation.
        norm_params: Its keyword arguments.
        activation_type: The activation; where `maxout` or `crelu` would change the number of channels of a residual
            sum, ReLU replaces them, see `resnet_cli.models.layers.units.ResidualStageBuilder`.
        activation_params: Its keyword arguments.
        dropout: Probability of dropping an activation before the last convolution of a unit.
        spatial_dropout: Probability of dropping a channel before the last convolution of a unit.
        drop_connect: Probability of dropping a weight of a convolution or linear layer.
        stochastic_depth: Probability of dropping the branch of the last unit; it grows linearly over the units.
        branch_scale: Initial value of a learned scalar that multiplies each branch: 0 is SkipInit (arXiv 2002.10444)
            and ReZero (arXiv 2003.04887), with which a net without normalisation starts as its shortcuts; None has no
            such scalar.
        se_ratio: Reduction of squeeze-and-excitation (16 in arXiv 1709.01507); None leaves it out.
        init: How weights are drawn. `fixup` adds Fixup's scalars; it needs order=original, norm=none and shortcuts.

    Raises:
        InputError: a depth of another form, with the nearest valid ones; images too small; options that cannot be
            combined.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Annotated[int, AtLeast(1)],
        *,
        depth: Annotated[int, Between(8, 10_000)] = 20,
        width: Annotated[int, Between(1, 1000)] = 1,
        shortcut: Shortcut = "A",
        gate_bias: float = -6.0,
        residual: bool = True,
        order: Order = "original",
        block: Block = "basic",
        norm: Norm = "batch",
        norm_params: Mapping[str, Any] = {},
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        spatial_dropout: Annotated[float, Below(0, 1)] = 0.0,
        drop_connect: Annotated[float, Below(0, 1)] = 0.0,
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        branch_scale: float | None = None,
        se_ratio: Annotated[int, AtLeast(1)] | None = None,
        init: Init = "he",
    ) -> None:
        super().__init__()
        size = image_size(in_size, halvings=2)
        units = _units_per_stage(depth, block)
        has_shortcuts = residual and shortcut != "none"
        check_stochastic_depth(stochastic_depth, shortcuts=has_shortcuts)
        if init == "fixup":
            _check_fixup(order, norm, has_shortcuts=has_shortcuts)
        _check_branch_scale(branch_scale, init, has_shortcuts=has_shortcuts)
        builder = ResidualStageBuilder(
            block=block,
            order=order,
            norm=NormSpec(norm, norm_params),
            activation=ActivationSpec(activation_type, activation_params),
            shortcut=ShortcutSpec(shortcut, gate_bias),
            residual=residual,
            dropout=dropout,
            spatial_dropout=spatial_dropout,
            stochastic_depth=stochastic_depth,
            se_ratio=se_ratio,
            fixup=init == "fixup",
            branch_scale=branch_scale,
            stride_first=True,  # as in the reference code of arXiv 1603.05027
        )
        widths = [width * w for w in WIDTHS]
        self.stem = builder.stem(conv(size[0], STEM, 3))
        self.stages = builder.stages((STEM, *size[1:]), widths, [units] * len(widths))
        self.head = builder.head(builder.out_channels(widths[-1]), out_classes)
        initialise(self, init)
        add_drop_connect(self, drop_connect)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.head(self.stages(self.stem(images)))
        return scores


def _check_fixup(order: Order, norm: Norm, *, has_shortcuts: bool) -> None:
    wrong = []
    if order != "original":
        wrong.append(f"init=fixup: its scalars are placed for the original order; order={order}: set original")
    if norm != "none":
        wrong.append(f"init=fixup: replaces normalisation; norm={norm}: set none")
    if not has_shortcuts:
        wrong.append("init=fixup: branches start at zero, so shortcuts are needed; set residual=true and shortcut=A")
    if wrong:
        raise InputError(*wrong)


def _check_branch_scale(branch_scale: float | None, init: Init, *, has_shortcuts: bool) -> None:
    if branch_scale is None:
        return
    if not has_shortcuts:
        raise InputError(
            f"branch_scale={branch_scale}: scales what is added to a shortcut; set residual=true and shortcut=A, or "
            f"branch_scale=null"
        )
    if init == "fixup" or (init == "zero_gamma" and branch_scale == 0):
        why = "its branches have a scale already" if init == "fixup" else "neither of two scales of zero could learn"
        raise InputError(
            f"branch_scale={branch_scale}: cannot be combined with init={init}: {why}; set branch_scale=null or init=he"
        )


def _units_per_stage(depth: int, block: Block) -> int:
    per_unit = 6 if block == "basic" else 9
    units, rest = divmod(depth - 2, per_unit)
    if rest == 0 and units > 0:
        return units
    below, above = max(units, 1) * per_unit + 2, max(units + 1, 1) * per_unit + 2
    nearest = f"is {below}" if below >= depth else f"are {below} and {above}"
    problem = f"depth={depth}: must be {per_unit}n+2 with block={block}; the nearest {nearest}"
    if block == "basic" and rest == 2 and units > 0:
        problem += f" (a WRN-{depth} is depth={depth - 2} here: its name counts two shortcut convolutions)"
    raise InputError(problem)
