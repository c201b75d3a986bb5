"""What a model costs: its parameters and multiply-adds, layer by layer.

Counting runs a twin of the model on shapes alone: the model itself and the random stream are left as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from resnet_cli.models.meta import meta_twin, run_twin


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer; shapes are without the batch.

    `multiply_adds` counts one image's forward pass and only convolutions and linear layers, as papers do.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def count_parameters(model: nn.Module) -> int:
    """Number of trainable weights, shared ones counted once."""
    return _count(model.parameters())


def count_multiply_adds(model: nn.Module, in_size: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and linear layers for one image of `in_size` (channels, height, width)."""
    return sum(row.multiply_adds for row in layer_table(model, in_size))


def layer_table(model: nn.Module, in_size: Sequence[int]) -> list[LayerRow]:
    """The layers of `model` in the order in which they are called on an image of `in_size` (channels, height, width).

    Listed are layers that own weights or change the shape. A layer called twice has two rows, its weights in the first.
    """
    twin = meta_twin(model)
    rows: list[LayerRow] = []
    counted: set[nn.Parameter] = set()

    def record(name: str, layer: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        own = [p for p in layer.parameters(recurse=False) if p not in counted]
        counted.update(own)
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(outputs, Tensor):
            return
        is_leaf = next(layer.children(), None) is None
        if own or (is_leaf and (inputs[0].shape != outputs.shape or next(layer.parameters(), None) is not None)):
            shapes = tuple(inputs[0].shape[1:]), tuple(outputs.shape[1:])
            rows.append(LayerRow(name, type(layer).__name__, *shapes, _count(own), _multiply_adds(layer, outputs)))

    for name, layer in twin.named_modules():
        layer.register_forward_hook(lambda m, i, o, name=name: record(name, m, i, o))
    run_twin(twin, in_size)
    return rows


def _multiply_adds(layer: nn.Module, outputs: Tensor) -> int:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        return outputs[0].numel() * layer.weight[0].numel()
    return 0


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad)
