"""Blocks of a trained network deleted and swapped (Veit et al. 2016, arXiv 1605.06431)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

from resnet_cli.models.layers.blocks import Residual

DRAWS = 5  # random choices for each number of blocks or pairs

Accuracy = Callable[[], float]


@dataclass(frozen=True)
class BlockShape:
    """A block and the shapes of its input and output, without the batch."""

    name: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def keeps_shape(self) -> bool:
        """True if the output has the shape of the input, so that the block can change places with others."""
        return self.in_shape == self.out_shape


@dataclass(frozen=True)
class Damage:
    """Accuracy in percent after a change of `count` blocks or pairs, over several random choices."""

    count: int
    mean: float
    low: float
    high: float


class Shortcut(nn.Module):
    """What is left of a residual block without its branch; of a block without a shortcut, the identity."""

    def __init__(self, block: Residual) -> None:
        super().__init__()
        self.block = block

    def forward(self, inputs: Tensor) -> Tensor:
        """Map the block's input to the shape of its output."""
        block = self.block
        if block.shortcut_path is None:
            return inputs
        inputs = block.before(inputs)
        shortcut: Tensor = block.shortcut_path(inputs)
        if block.gate is not None:
            shortcut = (1 - block.gate(inputs)) * shortcut
        after: Tensor = block.after(shortcut)
        return after


def find_blocks(model: nn.Module, images_BCHW: Tensor) -> list[BlockShape]:
    """Return the residual blocks in the order of their calls, with their shapes, by a pass in evaluation mode."""
    found: dict[str, BlockShape] = {}

    def add(name: str, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        found[name] = BlockShape(name, tuple(inputs[0].shape[1:]), tuple(outputs.shape[1:]))

    blocks = [(name, module) for name, module in model.named_modules() if isinstance(module, Residual)]
    hooks = [m.register_forward_hook(lambda _, i, o, name=name: add(name, i, o)) for name, m in blocks]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images_BCHW[:1])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(found.values())


def can_be_deleted(model: nn.Module, block: BlockShape) -> bool:
    """Return whether the network works without a block: it has a shortcut, or keeps the shape."""
    module = model.get_submodule(block.name)
    assert isinstance(module, Residual)
    return module.shortcut_path is not None or block.keeps_shape


@contextmanager
def deleted(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Return a context manager in which the network lacks the branches of these blocks."""
    blocks = {name: model.get_submodule(name) for name in names}
    with _replaced(model, {name: Shortcut(m) for name, m in blocks.items() if isinstance(m, Residual)}):
        yield


@contextmanager
def swapped(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Return a context manager in which the blocks of each pair have changed places, one pair after the other."""
    places = {name: name for pair in pairs for name in pair}
    for first, second in pairs:
        places[first], places[second] = places[second], places[first]
    with _replaced(model, {place: model.get_submodule(name) for place, name in places.items()}):
        yield


@contextmanager
def _replaced(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    kept = {name: model.get_submodule(name) for name in modules}
    training = {name: module.training for name, module in kept.items()}
    try:
        for name, module in modules.items():
            model.set_submodule(name, module)
            module.training = training[name]
        yield
    finally:
        for name, module in kept.items():
            model.set_submodule(name, module)
            module.training = training[name]


def single_deletions(model: nn.Module, blocks: Sequence[BlockShape], accuracy: Accuracy) -> dict[str, float | None]:
    """Return the accuracy without each block; None for one that the network does not work without."""
    found: dict[str, float | None] = {}
    for block in blocks:
        found[block.name] = None
        if can_be_deleted(model, block):
            with deleted(model, [block.name]):
                found[block.name] = accuracy()
    return found


def random_deletions(model: nn.Module, blocks: Sequence[BlockShape], accuracy: Accuracy) -> list[Damage]:
    """Return the accuracy without 1, 2, 4 ... blocks, chosen at random among those that keep the shape."""
    names = [block.name for block in blocks if block.keeps_shape]
    draws = Random(0)

    def one(count: int) -> float:
        with deleted(model, draws.sample(names, count)):
            return accuracy()

    return [_damage(count, one) for count in _powers_of_two(len(names))]


def random_swaps(model: nn.Module, blocks: Sequence[BlockShape], accuracy: Accuracy) -> list[Damage]:
    """Return the accuracy after 1, 2, 4 ... swaps of two random blocks of one shape."""
    names = [(block.name, block.in_shape) for block in blocks if block.keeps_shape]
    pairs = [(a, b) for i, (a, shape) in enumerate(names) for b, other in names[i + 1 :] if shape == other]
    draws = Random(0)

    def one(count: int) -> float:
        with swapped(model, draws.choices(pairs, k=count)):
            return accuracy()

    return [_damage(count, one) for count in _powers_of_two(len(names))] if pairs else []


def _damage(count: int, one: Callable[[int], float]) -> Damage:
    found = [one(count) for _ in range(DRAWS)]
    return Damage(count, sum(found) / len(found), min(found), max(found))


def _powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 ... up to `most`."""
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]
