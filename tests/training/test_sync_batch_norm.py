"""Batch norm over the parts of a batch against torch's over the whole, values, gradients and statistics."""

import copy
import threading

import pytest
import torch
from torch import nn

from resnet_cli.training.sync_batch_norm import synchronised


def in_parts(model, parts, weights):
    """Run parts of a batch in threads that sum up what each of them sums over the batch."""
    barrier, slots = threading.Barrier(len(parts)), {}

    def run(number, images):
        def summed(tensor):
            slots[number] = tensor
            barrier.wait()
            total = sum(slots[index] for index in range(len(parts)))
            barrier.wait()
            return total

        replica, start = replicas[number], sum(map(len, parts[:number]))
        with synchronised(replica, summed):
            (replica(images) * weights[start : start + len(images)]).sum().backward()

    replicas = [copy.deepcopy(model) for _ in parts]
    threads = [threading.Thread(target=run, args=(i, part), daemon=True) for i, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return replicas


@pytest.mark.parametrize("sizes", [(3, 2), (4, 0), (1, 1, 3)])
def test_parts_normalise_as_the_whole_batch_does(sizes):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double()
    images, weights = torch.randn(2, sum(sizes), 4, 3, 3, dtype=torch.float64)
    replicas = in_parts(layer, images.split(list(sizes)), weights)
    (layer(images) * weights).sum().backward()
    for name, parameter in layer.named_parameters():
        total = sum(dict(replica.named_parameters())[name].grad for replica in replicas)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-6, atol=1e-8)
    for replica in replicas:
        torch.testing.assert_close(dict(replica.named_buffers()), dict(layer.named_buffers()), rtol=1e-6, atol=1e-8)
    assert "forward" not in vars(replicas[0][1]), "the layers are their own again"
