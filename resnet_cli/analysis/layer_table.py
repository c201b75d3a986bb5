"""Cost and extent of a model: parameters, multiply-adds and shapes layer by layer, depth, receptive field.

All of it is found with a skeleton of the model: the model, which may be on the meta device, and the random state do
not change.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from resnet_cli.analysis.custom_layers import is_matrix
from resnet_cli.analysis.operator_counts import OperatorCounter, count_operators
from resnet_cli.analysis.shape_tracing import (
    NORM_LAYERS_OF_ANY_MODEL,
    PoolingFunctions,
    Weighted,
    Window,
    reach_skeleton,
    shape_skeleton,
)
from resnet_cli.models.inspection import count_trainable

WEIGHTED = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LARGEST_CANVAS = 1024  # pixels of a side
# Names of parameters that are added: position embeddings, tables of biases, tokens.
ADDED = re.compile(r"(^|_)((pos|position|bias|biases)(_|$)|(emb|embed|embedding|token)s?$)")

Call = tuple[nn.Module, Any]  # a module and what it gave


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer; shapes are without the batch.

    `multiply_adds` counts one image's forward pass and only convolutions, linear layers and products of matrices, which
    attention has, as papers do.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def count_multiply_adds(model: nn.Module, in_size: Sequence[int]) -> int:
    """Count the multiply-adds of all layers for one image of `in_size` (channels, height, width)."""
    return sum(row.multiply_adds for row in layer_table(model, in_size))


def layer_table(model: nn.Module, in_size: Sequence[int]) -> list[LayerRow]:
    """Return the layers of `model` in the order of their calls on an image of `in_size` (channels, height, width).

    Listed are layers that own weights, multiply matrices or change the shape. A layer called twice has two rows, its
    weights in the first.
    """
    try:
        return _rows(model, shape_skeleton(model), in_size)
    except Exception:  # a user's forward may need real values; and the model itself reports best what is wrong
        return _rows(model, nn.Sequential(copy.deepcopy(model).eval()), in_size)


def _rows(model: nn.Module, twin: nn.Sequential, in_size: Sequence[int]) -> list[LayerRow]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]), count_operators() as operators:
        recorder = _Recorder(operators)
        for name, layer in model.named_modules():
            recorder.watch(name, layer, twin[0].get_submodule(name))
        first = next(twin.parameters(), torch.ones(()))
        twin(torch.ones(1, *in_size, dtype=first.dtype, device=first.device))
    return recorder.rows


class _Recorder:
    """Adds a row for each call when it ends."""

    def __init__(self, operators: OperatorCounter) -> None:
        self.rows: list[LayerRow] = []
        self._operators = operators
        self._counted: set[nn.Parameter] = set()

    def watch(self, name: str, layer: nn.Module, twin: nn.Module) -> None:
        """Record the calls of a layer's twin.

        Args:
            name: Name of the layer.
            layer: The layer, whose type and weights are recorded.
            twin: The module that is called in its place.
        """
        twin.register_forward_pre_hook(lambda *_: self._operators.start_call(name))
        twin.register_forward_hook(
            lambda _, inputs, options, outputs: self._record(name, layer, (*inputs, *options.values()), outputs),
            with_kwargs=True,
        )

    def _record(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        products = self._operators.count_call(name)
        if isinstance(layer, WEIGHTED):  # the operators may be those of a stand-in
            self._operators.attribute(products)
            products = 0
        # Weights that no layer has used so far belong to the products: attention calls none of its linear layers.
        own = [p for p in layer.parameters(recurse=products > 0) if p not in self._counted]
        given, made = _first_tensor(inputs), _first_tensor(outputs)
        if given is None or made is None:
            self._counted.update(layer.parameters(recurse=False))
            return
        self._counted.update(own)
        is_leaf = next(layer.children(), None) is None
        changes = is_leaf and (given.shape != made.shape or next(layer.parameters(), None) is not None)
        if own or products or changes:
            self._operators.attribute(products)
            shapes = tuple(given.shape[1:]), tuple(made.shape[1:])
            multiply_adds = products + _multiply_adds(layer, made)
            self.rows.append(LayerRow(name, type(layer).__name__, *shapes, count_trainable(own), multiply_adds))


def _first_tensor(values: Any) -> Tensor | None:
    """Return a tensor, or the first of several values if that is a tensor; else None."""
    value = values[0] if isinstance(values, tuple | list) and values else values
    return value if isinstance(value, Tensor) else None


def depth(model: nn.Module, in_size: Sequence[int]) -> int | None:
    """Count the convolutions and linear layers on the longest path through `model`, as papers do: 20 for ResNet-20.

    Those of squeeze-and-excitation, which only scale, are not counted.

    Returns:
        The number; None for a model whose operations cannot be followed, or that multiplies by weights itself.
    """
    skeleton = reach_skeleton(model)
    try:
        calls = _calls(skeleton, torch.ones(1, *in_size, requires_grad=True), [])
        if _uses_weights_itself(model, skeleton, in_size):
            return None
    except Exception:  # a user's forward can fail in any way on numbers that are not its own
        return None
    end = calls[-1][1]
    nodes = {node for layer in skeleton.modules() if isinstance(layer, Weighted) for node in layer.nodes}
    return _longest_path(end.grad_fn, nodes) if isinstance(end, Tensor) else None


def receptive_field(model: nn.Module, in_size: Sequence[int]) -> tuple[int, int] | None:
    """Return the height and width in pixels of the region that one place of the last feature map can depend on.

    The last feature map is the last output of a layer that is a map [B, C, H, W], before any adaptive pooling. By
    convention normalisation and squeeze-and-excitation, which look at the whole image only to scale, do not count.

    Args:
        model: Images [B, C, H, W] -> anything.
        in_size: Channels, height and width of the images.

    Returns:
        Height and width, those of the image where the field covers it; None for a model without feature maps, with
        tokens after them, whose operations cannot be followed, or that multiplies by weights itself.
    """
    skeleton = reach_skeleton(model)
    try:
        with torch.no_grad():
            last = _last_map(_calls(skeleton, torch.ones(1, *in_size), []))
        if last is None or _uses_weights_itself(model, skeleton, in_size):
            return None
        return _field(skeleton, in_size, last)
    except Exception:  # a user's forward can fail in any way on images of another size
        return None


def _uses_weights_itself(model: nn.Module, skeleton: nn.Module, in_size: Sequence[int]) -> bool:
    """Return whether a model multiplies by weights outside of the calls of layers, so that these are not followed.

    It may read the weight of a layer that it does not call, or own a weight under any name.

    Args:
        model: The model.
        skeleton: Its `reach_skeleton`, which has been called.
        in_size: Channels, height and width of the images.
    """
    layers = [layer for layer in skeleton.modules() if isinstance(layer, Weighted)]
    if any(layer.is_weight_read and not layer.nodes for layer in layers):
        return True
    others = {
        parameter
        for module in model.modules()
        if not isinstance(module, (*get_args(WEIGHTED), *NORM_LAYERS_OF_ANY_MODEL))
        for name, parameter in module._parameters.items()
        if parameter is not None and is_matrix(parameter) and not ADDED.search(name)
    }
    rows = layer_table(model, in_size) if others else []
    computing = [model.get_submodule(row.name) for row in rows if row.multiply_adds]
    return any(not others.isdisjoint(module.parameters()) for module in computing if not isinstance(module, WEIGHTED))


def _calls(skeleton: nn.Module, images: Tensor, calls: list[Call]) -> list[Call]:
    """Append the modules to `calls` in the order in which their calls end, with their outputs."""
    handles = [layer.register_forward_hook(lambda m, _, o: calls.append((m, o))) for layer in skeleton.modules()]
    try:
        with torch.random.fork_rng(devices=[]), PoolingFunctions():
            skeleton(images.clone())  # some layers write into their input
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _last_map(calls: Sequence[Call]) -> int | None:
    """Return the index of the call that returns the last feature map."""
    last = None
    pooled: list[Tensor] = []
    for i, (layer, outputs) in enumerate(calls):
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            pooled.append(outputs)
        elif isinstance(outputs, Tensor) and not any(outputs is one for one in pooled):
            last = {4: i, 3: None}.get(outputs.ndim, last)  # three dimensions are tokens, which may look anywhere
    return last


def _field(skeleton: nn.Module, in_size: Sequence[int], last: int) -> tuple[int, int] | None:
    """Return the receptive field of a central position, on a canvas that grows until it holds the whole field.

    None where no canvas holds it, as with a model that crops its images to a fixed size, or the gradient vanishes.
    """
    channels, *image = in_size
    canvas = [2 * side for side in image]
    windows = [layer for layer in skeleton.modules() if isinstance(layer, Window)]
    while max(canvas) <= max(LARGEST_CANVAS, 2 * max(image)):
        for window in windows:
            window.cut = [False, False]
        pixels = torch.ones(1, channels, *canvas, requires_grad=True)
        calls: list[Call] = []
        try:
            _calls(skeleton, pixels, calls)
        except Exception:  # after the map there may be a classifier for maps of another size
            if len(calls) <= last:
                raise
        features = calls[last][1]
        _, _, h, w = features.shape
        (gradient,) = torch.autograd.grad(features[0, :, h // 2, w // 2].sum(), pixels)
        reached_HW = gradient[0].ne(0).any(0)
        fields = [_extent(reached_HW.any(1 - axis)) for axis in (0, 1)]
        cut = [any(window.cut[axis] for window in windows) for axis in (0, 1)]
        open_axes = [axis for axis in (0, 1) if fields[axis] == 0 or (cut[axis] and fields[axis] < image[axis])]
        if not open_axes:
            return min(fields[0], image[0]), min(fields[1], image[1])
        canvas = [side * (2 if axis in open_axes else 1) for axis, side in enumerate(canvas)]
    return None


def _extent(reached: Tensor) -> int:
    """Return the number of places from the first to the last true one."""
    places = reached.nonzero().flatten().tolist()
    return places[-1] - places[0] + 1 if places else 0


def _longest_path(end: Any, counted: set[Any]) -> int:
    """Count the nodes of `counted` on the longest path of the autograd graph that ends in `end`."""
    lengths: dict[Any, int] = {None: 0}
    waiting = [end]
    while waiting:
        node = waiting[-1]
        before = [] if node is None else [source for source, _ in node.next_functions]
        unknown = [source for source in before if source not in lengths]
        if not unknown:
            lengths[node] = max((lengths[source] for source in before), default=0) + (node in counted)
            waiting.pop()
        waiting += unknown
    return lengths[end]


def _multiply_adds(layer: nn.Module, outputs: Tensor) -> int:
    if isinstance(layer, WEIGHTED):
        return outputs.numel() * layer.weight[0].numel()  # of one image, whose windows may be a batch
    return 0
