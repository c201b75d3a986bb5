"""A network's skeleton: its shapes, and what depends on what, without its weights and nearly without arithmetic.

Convolutions, linear layers and poolings are replaced by stand-ins whose outputs are 1 everywhere and depend on whole
windows. The model itself is left alone, and may be on the meta device.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from resnet_cli.analysis.custom_layers import check_shapes, has_same_reach, is_squeeze_excitation, owns_weight_matrix
from resnet_cli.models.layers.normalisation import NORM_LAYERS
from resnet_cli.models.layers.regularisers import DropConnectConv2d, DropConnectLinear
from resnet_cli.models.layers.windows import Windowed, as_pair, window_of

StandIn = Callable[[nn.Module], nn.Module | None]

MAX_POOL_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
NORM_LAYERS_OF_ANY_MODEL = (*NORM_LAYERS, nn.InstanceNorm2d, nn.LocalResponseNorm)


def shape_skeleton(model: nn.Module) -> nn.Sequential:
    """Return a copy of `[model]` in evaluation mode, with the shapes of `model` at every layer."""
    return _skeleton(model, _weighted_stand_in)


def reach_skeleton(model: nn.Module) -> nn.Sequential:
    """Return a copy of `[model]` in evaluation mode, in which only pixels that an output can depend on have a gradient.

    Left out is what does not move anything across the image, or looks at all of it only to scale: activations,
    normalisation and squeeze-and-excitation. Layers whose outputs depend on unknown places raise `ValueError` when they
    are called.
    """
    return _skeleton(model, _any_stand_in)


class Weighted(nn.Module):
    """Stand-in for a layer with weights; records the autograd nodes of its calls in `nodes`."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.own_weight, self.bias = layer.weight, layer.bias
        self.nodes: list[Any] = []
        self.is_weight_read = False

    @property
    def weight(self) -> Tensor:
        """Return the layer's weight for code that computes with it instead of calling the layer."""
        self.is_weight_read = True
        weight: Tensor = self.own_weight
        return weight


class Convolution(Weighted):
    """Stand-in for a convolution."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.groups, self.repeats = layer.groups, layer.out_channels // layer.groups
        self.window = Window(layer)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to ones of the convolution's output shape."""
        in_channels = self.groups * self.own_weight.shape[1]
        if features.shape[-3] != in_channels:
            raise ValueError(f"a convolution of {in_channels} channels got {features.shape[-3]}")
        outputs: Tensor = self.window(torch.unflatten(features, -3, (self.groups, -1)).mean(-3))
        self.nodes.append(outputs.grad_fn)
        return outputs.repeat_interleave(self.repeats, -3)


class Pooling(nn.Module):
    """Stand-in for max or average pooling."""

    def __init__(self, layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.window = Window(layer)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to ones of the pooling's output shape (with `ceil_mode`, of at least that)."""
        ones: Tensor = self.window(features)
        return ones


class Linear(Weighted):
    """Stand-in for a linear layer."""

    def forward(self, features: Tensor) -> Tensor:
        """Map `[..., in]` to ones `[..., out]`."""
        out_features, in_features = self.own_weight.shape
        if features.shape[-1] != in_features:
            raise ValueError(f"a linear layer of {in_features} features got {features.shape[-1]}")
        outputs = _ones(features.mean(-1, keepdim=True))
        self.nodes.append(outputs.grad_fn)
        return outputs.expand(*features.shape[:-1], out_features).clone()  # some layers write into their input


class PoolingFunctions(TorchFunctionMode):
    """Makes the outputs of max pooling as a function depend on whole windows, not on the first of equal values."""

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or the stand-in for max pooling."""
        options = {**dict(zip(MAX_POOL_ARGUMENTS, args, strict=False)), **(kwargs or {})}
        if func not in (F.max_pool2d, torch.max_pool2d) or options.get("return_indices"):
            return func(*args, **(kwargs or {}))
        return Window(nn.MaxPool2d(**{name: options[name] for name in options if name != "input"}))(options["input"])


class Unknown(nn.Module):
    """Stand-in for a layer whose outputs depend on unknown places."""

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """Raise `ValueError`."""
        raise ValueError("the operations of this layer cannot be followed")


class Window(nn.Module):
    """Ones that depend on the windows of a convolution or pooling, channel by channel.

    `cut` becomes true, along the height or the width, when a gradient comes back through a window over that border.
    """

    def __init__(self, layer: Windowed) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = window_of(layer)
        self.reach = [dilation * (kernel - 1) for dilation, kernel in zip(self.dilation, self.kernel, strict=True)]
        if isinstance(layer.padding, str):
            before, after = [r // 2 for r in self.reach], [r - r // 2 for r in self.reach]
            before, after = (before, after) if layer.padding == "same" else ([0, 0], [0, 0])
        else:
            before = after = list(as_pair(layer.padding))
        if getattr(layer, "ceil_mode", False):
            after = [a + stride - 1 for a, stride in zip(after, self.stride, strict=True)]
        self.before, self.after = before, after
        self.cut = [False, False]

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to a 1 for each window."""
        *_, channels, height, width = features.shape
        kernels = features.new_ones(channels, 1, *self.kernel)
        padded = F.pad(features, (self.before[1], self.after[1], self.before[0], self.after[0]))
        ones = _ones(F.conv2d(padded, kernels, None, self.stride, 0, self.dilation, channels))
        if ones.requires_grad:
            ones.register_hook(lambda gradient: self._record_cut(gradient, (height, width)))  # type: ignore[no-untyped-call]
        return ones

    def _record_cut(self, gradient: Tensor, size: tuple[int, int]) -> None:
        for axis, side in zip((-2, -1), size, strict=True):
            first = -(-self.before[axis] // self.stride[axis])
            end = (side - 1 + self.before[axis] - self.reach[axis]) // self.stride[axis] + 1
            over = [gradient.narrow(axis, 0, min(first, gradient.shape[axis]))]
            over.append(gradient.narrow(axis, max(end, 0), gradient.shape[axis] - max(end, 0)))
            self.cut[axis] |= any(bool(part.any()) for part in over)


def _ones(reached: Tensor) -> Tensor:
    """Return ones that depend on what `reached` depends on.

    Gradients are made 1 or 0 on their way back, so that no depth makes them vanish or overflow.
    """
    ones = reached - reached.detach() + 1
    if ones.requires_grad:
        ones.register_hook(lambda gradient: gradient.ne(0).to(gradient.dtype))  # type: ignore[no-untyped-call]
    return ones


def _skeleton(model: nn.Module, stand_in: StandIn) -> nn.Sequential:
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        ones = torch.ones((), dtype=parameter.dtype).expand(parameter.shape)  # positive, and without storage
        memo[id(parameter)] = nn.Parameter(ones, requires_grad=False)
    for buffer in model.buffers():
        fill = 1 if buffer.is_floating_point() else 0
        memo[id(buffer)] = torch.full((), fill, dtype=buffer.dtype).expand(buffer.shape)
    root = nn.Sequential(copy.deepcopy(model, memo).eval())
    made: dict[nn.Module, nn.Module | None] = {}
    for parent in list(root.modules()):
        for name, layer in parent._modules.items():  # not named_children: that lists a shared layer once
            if layer is not None and layer not in made:
                made[layer] = stand_in(layer)
            if layer is not None and made[layer] is not None:
                parent._modules[name] = made[layer]
    return root


def _weighted_stand_in(layer: nn.Module) -> Weighted | None:
    """Return the stand-in for a layer with PyTorch's own `forward`; None for others, which may compute anything."""
    if isinstance(layer, nn.Conv2d) and type(layer).forward in (nn.Conv2d.forward, DropConnectConv2d.forward):
        return Convolution(layer)
    if isinstance(layer, nn.Linear) and type(layer).forward in (nn.Linear.forward, DropConnectLinear.forward):
        return Linear(layer)
    return None


def _any_stand_in(layer: nn.Module) -> nn.Module | None:
    is_activation = type(layer).__module__ == nn.ReLU.__module__ and next(layer.children(), None) is None
    if is_activation or isinstance(layer, NORM_LAYERS_OF_ANY_MODEL) or is_squeeze_excitation(layer):
        return nn.Identity()
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return Pooling(layer) if type(layer).forward in (nn.MaxPool2d.forward, nn.AvgPool2d.forward) else Unknown()
    own = _weighted_stand_in(layer)
    if own is not None:
        return own
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return _stand_in_of_subclass(layer)
    return Unknown() if owns_weight_matrix(layer) else None


def _stand_in_of_subclass(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Return the stand-in for a layer with a `forward` of its own, such as one that standardises its weights."""
    stand_in = Convolution(layer) if isinstance(layer, nn.Conv2d) else Linear(layer)
    if not has_same_reach(layer, stand_in):
        return Unknown()
    stand_in.nodes.clear()  # of the calls that compared the layers
    check_shapes(stand_in, layer)
    return stand_in
