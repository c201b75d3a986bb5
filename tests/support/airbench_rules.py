"""The update rules of the published airbench programs, transcribed: what a run of their presets must do, step by step.

github.com/KellerJordan/cifar10-airbench: legacy/airbench94.py, legacy/airbench96.py and airbench94_muon.py. Losses are
summed over the batch, learning rates and weight decays are those of the programs. A batch of a test is smaller than
theirs: it stands for as many copies of itself as make up theirs, so that its sum counts as often. The lookahead of the
programs begins before the whitening; here both begin with the whitened weights.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

WHITENING_BIAS = "features.0.bias"
HEAD = "head.weight"


@dataclass
class Published:
    """The weights of one of the programs, and how its steps change them.

    Args:
        weights: State dict of the network after its initialisation; it is changed in place.
        epoch_steps: Steps of an epoch.
        epochs: Length of the run.
    """

    weights: dict[str, Tensor]
    epoch_steps: int
    epochs: float
    batch = 1024
    per_group = 2
    skip = False
    norm_momentum = 0.4
    scale = 1 / 9
    bias_epochs = 3
    step: int = 0
    momenta: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.total = math.ceil(self.epoch_steps * self.epochs)
        self.filters = [name for name, value in self.weights.items() if value.ndim == 4][1:]
        self.norms = [name.removesuffix(".running_mean") for name in self.weights if name.endswith("running_mean")]
        self.slow = {name: value.clone() for name, value in self.weights.items() if value.is_floating_point()}

    def take_step(self, images: Tensor, labels: Tensor) -> float:
        """Take a step, and return the mean loss of the batch."""
        trained = [*self.filters, *(f"{norm}.bias" for norm in self.norms), HEAD]
        if self.step < self.bias_epochs * self.epoch_steps:
            trained.append(WHITENING_BIAS)
        leaves = {name: self.weights[name].detach().requires_grad_() for name in trained}
        loss = F.cross_entropy(self.scores(images, leaves), labels, label_smoothing=0.2, reduction="sum")
        gradients = torch.autograd.grad(loss * (self.batch / len(labels)), list(leaves.values()))
        with torch.no_grad():
            self.update(dict(zip(trained, gradients, strict=True)))
            self.step += 1
            self.synchronise()
        return loss.item() / len(labels)

    def scores(self, images: Tensor, leaves: dict[str, Tensor]) -> Tensor:
        """Return the scores in training mode; running statistics change."""
        weights = {**self.weights, **leaves}
        filters, norms = iter(self.filters), iter(self.norms)
        x = F.gelu(F.conv2d(images, weights["features.0.weight"], weights[WHITENING_BIAS]))
        for _ in range(len(self.filters) // self.per_group):
            shortcut = None
            for position in range(self.per_group):
                x = F.conv2d(x, weights[next(filters)], padding=1)
                x = F.max_pool2d(x, 2) if position == 0 else x
                norm = next(norms)
                x = F.batch_norm(
                    x, self.weights[f"{norm}.running_mean"], self.weights[f"{norm}.running_var"],
                    bias=weights[f"{norm}.bias"], training=True, momentum=self.norm_momentum, eps=1e-12,
                )  # fmt: skip
                if self.skip and position == self.per_group - 1:
                    x = x + shortcut
                x = F.gelu(x)
                shortcut = x if position == 0 else shortcut
        return F.max_pool2d(x, 3).flatten(1) @ weights[HEAD].T * self.scale

    def update(self, gradients: dict[str, Tensor]) -> None:
        """Change the weights by their gradients."""
        raise NotImplementedError

    def synchronise(self) -> None:
        """Average weights after a step."""

    def finished(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated in the end."""
        return self.weights

    def nesterov(self, name: str, gradient: Tensor, momentum: float) -> Tensor:
        """Return the direction of a step with Nesterov momentum."""
        self.momenta[name] = momentum * self.momenta.get(name, torch.zeros_like(gradient)) + gradient
        return gradient + momentum * self.momenta[name]

    def sgd(self, name: str, gradient: Tensor, lr: float, decay: float) -> None:
        """Take a step of SGD with the momentum that all programs have."""
        weight = self.weights[name]
        weight -= lr * self.nesterov(name, gradient + decay * weight, 0.85)


class Airbench94(Published):
    """SGD for everything, batch-norm shifts at 64 times the rate; lookahead every five steps."""

    lr, decay, warm_up, final = 11.5, 0.0153, 0.23, 0.07

    def update(self, gradients):
        """Change the weights by their gradients."""
        kilostep = 1024 * (1 + 1 / (1 - 0.85))
        factor = self.factor()
        for name, gradient in gradients.items():
            lr = self.lr / kilostep
            if name.removesuffix(".bias") in self.norms:
                lr *= 64
            self.sgd(name, gradient, lr * factor, self.decay * self.batch / kilostep / lr)

    def factor(self):
        """Return the factor on the learning rates."""
        peak = int(self.total * self.warm_up)
        if self.step < peak:
            return 0.2 + 0.8 * self.step / peak
        return 1 - (1 - self.final) * (self.step - peak) / (self.total - peak)

    def synchronise(self):
        """Pull slow weights towards the fast ones, and set these to them."""
        if self.step % 5 == 0:
            keep = 0.95**5 * (self.step / self.total) ** 3
            for name, slow in self.slow.items():
                slow.copy_(keep * slow + (1 - keep) * self.weights[name])
                self.weights[name].copy_(slow)

    def finished(self):
        """Return the weights that are evaluated in the end: the slow ones."""
        return self.slow


class Airbench96(Airbench94):
    """The same on a wider network with shortcuts, by a schedule that ends at zero."""

    per_group, skip, norm_momentum = 3, True, 0.1
    lr, decay, warm_up, final = 9.0, 0.012, 0.1, 0.0


class Airbench94Muon(Published):
    """Muon for the filters, SGD for everything else, all rates down to zero; no lookahead."""

    batch, scale = 2000, 1 / 256

    def update(self, gradients):
        """Change the weights by their gradients."""
        factor = 1 - self.step / self.total
        for name, gradient in gradients.items():
            if name in self.filters:
                self.muon(name, gradient, 0.24 * factor)
                continue
            lr = 0.67 if name == HEAD else 0.053
            own = 1 - self.step / (self.bias_epochs * self.epoch_steps) if name == WHITENING_BIAS else factor
            self.sgd(name, gradient, lr * own, 2e-6 * self.batch / lr)

    def muon(self, name, gradient, lr):
        """Take a step of Muon on a weight that is first brought to its norm."""
        weight = self.weights[name]
        direction = self.nesterov(name, gradient, 0.6).flatten(1)
        weight *= len(weight) ** 0.5 / weight.norm()
        x = direction / (direction.norm() + 1e-7)
        x = x.T if len(x) > x.shape[1] else x
        for _ in range(3):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        weight -= lr * (x.T if len(direction) > direction.shape[1] else x).reshape(weight.shape)
