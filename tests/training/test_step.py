"""The training step's parts on their own; whole fits against a plain loop are in `test_trainer`."""

import pytest
import torch
from torch import nn

from resnet_cli.optimizers import Muon
from resnet_cli.training.step import clear_gradients, split_batch


class Counting(torch.optim.SGD):
    cleared = 0

    def zero_grad(self, set_to_none=True):
        Counting.cleared += 1
        super().zero_grad(set_to_none)


def net_with_gradients():
    net = nn.Linear(3, 2)
    net(torch.ones(1, 3)).sum().backward()
    return net


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, Muon])
def test_gradients_are_cleared_as_by_torch(optimizer):
    net = net_with_gradients()
    clear_gradients(optimizer(net.parameters(), lr=0.1))
    assert [parameter.grad for parameter in net.parameters()] == [None, None]


def test_an_optimizers_own_method_is_called():
    net = net_with_gradients()
    clear_gradients(Counting(net.parameters(), lr=0.1))
    assert Counting.cleared == 1
    assert net.weight.grad is None


def test_a_method_that_was_patched_later_is_called():
    optimizer = torch.optim.SGD(net_with_gradients().parameters(), lr=0.1)
    calls = []
    optimizer.zero_grad = lambda: calls.append("patched")
    clear_gradients(optimizer)
    assert calls == ["patched"]


@pytest.mark.parametrize(
    ("size", "accumulate", "micro_batch", "evenly", "sizes"),
    [
        (64, 10, None, True, [7] * 4 + [6] * 6),
        (64, 10, None, False, [7] * 9 + [1]),
        (64, 10, 5, False, [5] * 12 + [4]),
        (3, 10, None, True, [1, 1, 1]),
        (64, 1, None, True, [64]),
        (64, 1, 32, True, [32, 32]),
    ],
)
def test_sizes_of_micro_batches(size, accumulate, micro_batch, evenly, sizes):
    batch = torch.arange(size), torch.arange(size)
    found = list(split_batch(batch, accumulate, micro_batch, evenly=evenly))
    assert [len(images) for images, _, _ in found] == sizes
    assert torch.equal(torch.cat([labels for _, labels, _ in found]), batch[1])
    assert sum(share for _, _, share in found) == pytest.approx(1)
