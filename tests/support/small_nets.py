"""A small network with gradients, which of its parameters an optimizer's groups hold, and nets that are unusual."""

import random

import numpy as np
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 3)
    )


def gradients(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def names_of(model, group):
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in group["params"]]


def described(model, groups):
    return {group["name"]: names_of(model, group) for group in groups}


class DrawingNet(nn.Module):
    """A linear net that draws from the global generators of Python, NumPy and torch's CPU, also in evaluation.

    It does so after batch norm, for which shards that are normalised together wait for one another.
    """

    def __init__(self, in_size, num_classes):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5 + random.random() + np.random.rand()))
        pixels = in_size[0] * in_size[1] * in_size[2]
        self.layers = nn.Sequential(nn.BatchNorm2d(in_size[0]), nn.Flatten(), nn.Linear(pixels, num_classes))

    def forward(self, images):
        logits = self.layers(images)
        drawn = random.random() + np.random.rand() + torch.rand(()).item()
        return logits * self.scale * drawn
