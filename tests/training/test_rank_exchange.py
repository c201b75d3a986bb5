"""The flat tensor that ranks sum in a step: gradients of parameters that only some of the parts use."""

import copy

import pytest
import torch
from torch import nn

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.training.rank_exchange import Exchange, Replica
from tests.support.trainers import RunningMean


def exchange_of(model, layers):
    """Compute the gradients of a part that uses these layers; return its exchange and flat tensor."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    exchange = Exchange(model, optimizer, Ranks())
    if layers:
        sum(model[layer](torch.ones(1, 2)).sum() for layer in layers).backward()
    return exchange, exchange.flatten(0.5, torch.tensor(1.0), torch.tensor(1))


@pytest.mark.parametrize("parts", [(("a",), ("a", "b")), (("b",), ("a",)), (("a", "b"), ()), (("a",), ("a",))])
def test_every_rank_gets_the_same_gradients(parts):
    whole = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1), "c": nn.Linear(2, 1)})
    models = [copy.deepcopy(whole) for _ in parts]
    exchanges = [exchange_of(model, layers) for model, layers in zip(models, parts, strict=True)]
    total = sum(flat for _, flat in exchanges)
    for exchange, _ in exchanges:
        exchange.distribute(total)
    for layer in whole:
        count = sum(layer in layers for layers in parts)
        for model in models:
            gradient = model[layer].bias.grad
            assert gradient is None if not count else gradient.item() == count, (layer, parts)


def test_a_replica_begins_each_step_with_the_buffers_of_the_model():
    model = RunningMean()
    replica = Replica(model)
    replica.model(torch.full((2,), 3.0))
    assert replica.model.mean != 1
    replica.update()
    assert replica.model.mean == model.mean == 1
