"""A small trainer on separable data."""

import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from resnet_cli import ClassifierTrainer


def blobs(count=96, classes=3, seed=0):
    """Images of one channel, 4x4, whose brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    images = labels.view(-1, 1, 1, 1) + 0.3 * torch.randn(count, 1, 4, 4, generator=generator)
    return TensorDataset(images, labels)


def net(classes=3, dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, classes))


def make_trainer(model, lr=0.1, loss_fn=None, **options):
    return ClassifierTrainer(model, loss_fn, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), **options)


def loader(dataset=None, batch_size=32):
    return DataLoader(dataset or blobs(), batch_size=batch_size)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class MemorySaver:
    """A saver that keeps the state of each save in memory."""

    def __init__(self):
        self.states, self.bests, self.written = [], [], []

    def save_last(self, state):
        self.states.append(copy.deepcopy(state.state_dict()))

    def save_best(self, state):
        with state.evaluated_weights():
            self.bests.append(copy.deepcopy(state.model.state_dict()))

    def write_metrics(self, rows):
        self.written = list(rows)


class CountingLoss(nn.Module):
    """Cross-entropy that becomes smaller with each call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(1.0))

    def forward(self, logits, labels):
        self.calls += 1
        return nn.functional.cross_entropy(logits, labels) / self.calls


class ScaledLoss(nn.Module):
    """Cross-entropy divided by its own running mean, which is a buffer; `weight` is a setting."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.register_buffer("weight", torch.full((3,), weight))
        self.register_buffer("mean", torch.ones(()))

    def forward(self, logits, labels):
        loss = nn.functional.cross_entropy(logits, labels, self.weight)
        if torch.is_grad_enabled():
            self.mean.mul_(0.5).add_(0.5 * loss.detach())
        return loss / self.mean.clone()


class RunningMean(nn.Module):
    """Divides by a running mean, a buffer that it replaces by another tensor unless `in_place` is true."""

    def __init__(self, *, in_place=False):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.ones(()))

    def forward(self, x):
        if self.training:
            mean = 0.9 * self.mean + 0.1 * x.detach().abs().mean()
            if self.in_place:
                self.mean.copy_(mean)
            else:
                self.mean = mean
        return x / self.mean.clone()
