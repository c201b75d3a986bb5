"""Sharpness: the largest eigenvalue of the Hessian of the training loss, by Lanczos' method (Cohen et al. 2021).

Under full-batch gradient descent it grows until it reaches `2 / lr` for a learning rate `lr` (arXiv 2103.00065).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.seeding import random_state_kept, seeded_generator
from resnet_cli.training.backend import Batch
from resnet_cli.training.device import draws_outside_torch, seed_device
from resnet_cli.training.evaluation import LossFunction
from resnet_cli.training.module_state import ModuleState
from resnet_cli.training.teacher import Teacher

MOST_ITERATIONS = 40
TOLERANCE = 1e-3  # relative change of the eigenvalue in an iteration below which it has converged

Batches = Callable[[], Iterable[Batch]]


def sharpness(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    *,
    seed: int = 0,
    iterations: int = MOST_ITERATIONS,
    frozen: Iterable[nn.Module] = (),
    teacher: Teacher | None = None,
    ranks: Ranks = ALONE,
) -> float | None:
    """Return the largest eigenvalue of the Hessian of the mean loss by the trainable parameters, in training mode.

    Return None if it is not finite.

    The result is a function of weights, batches and seed. Weights, buffers, gradients and mode of the model, what the
    loss accumulates and the random state do not change. Each of up to `iterations` iterations keeps a vector of the
    size of the parameters.

    Args:
        model: Images [B, C, H, W] -> logits [B, K].
        loss_fn: (logits in float32, labels) -> mean loss of a batch.
        batches: Returns the (images, labels) pairs that the loss is a mean over, the same ones in each call.
        seed: Seed of the start vector of the iterations, and of dropout.
        iterations: Maximum number of products with the Hessian; each takes as long as two to three training passes.
        frozen: Layers that stay in evaluation mode.
        teacher: A network whose predictions the loss includes.
        ranks: Ranks that call this together, each with all batches; all return the result of the first.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return None
    device, count = parameters[0].device, sum(p.numel() for p in parameters)
    vector = torch.randn(count, generator=seeded_generator("cpu", seed, "sharpness")).to(device)
    kept, python = ModuleState(model, loss_fn), draws_outside_torch(model, loss_fn)

    def product(vector: Tensor) -> Tensor:
        kept.restore()  # else it would be that of another matrix each time, if a buffer changes the loss
        seed_device(device, seed, "sharpness", python=python)
        return hessian_product(model, loss_fn, parameters, batches(), vector, teacher)

    try:
        with _training_mode(model, frozen), torch.enable_grad(), random_state_kept(device, python=python):
            return largest_eigenvalue(product, vector, iterations, ranks)
    finally:
        kept.restore()


def hessian_product(
    model: nn.Module,
    loss_fn: LossFunction,
    parameters: Sequence[Tensor],
    batches: Iterable[Batch],
    vector: Tensor,
    teacher: Teacher | None = None,
) -> Tensor:
    """Return the Hessian of the mean loss times `vector`, both flat and in the order of the parameters."""
    pieces = [
        v.view_as(p) for v, p in zip(torch.split(vector, [p.numel() for p in parameters]), parameters, strict=True)
    ]
    total, samples = torch.zeros_like(vector), 0
    for images_BCHW, labels in batches:
        logits_BK = model(images_BCHW).float()
        loss = loss_fn(logits_BK, labels)
        if teacher is not None:
            with torch.no_grad():
                teacher_BK = teacher(images_BCHW)
            loss = teacher.combine(logits_BK, teacher_BK, loss)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        slope = torch.stack([(g * v).sum() for g, v in zip(gradients, pieces, strict=True)]).sum()
        if slope.requires_grad:  # else the loss is linear in the parameters
            products = torch.autograd.grad(slope, parameters, materialize_grads=True)
            total += len(images_BCHW) * torch.cat([p.reshape(-1) for p in products])
        samples += len(images_BCHW)
    return total / max(samples, 1)


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int, ranks: Ranks = ALONE
) -> float | None:
    """Return the largest eigenvalue of a symmetric matrix, by Lanczos' method with full orthogonalisation.

    Return None if it is not finite.

    Args:
        product: The matrix times a vector.
        start: A vector that is not orthogonal to the eigenvector.
        iterations: The most products.
        ranks: Ranks that call this together. They take the first one's numbers, since rounding differs between devices:
            otherwise one might stop while others wait for it in the next product.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    found = 0.0
    for _ in range(min(iterations, start.numel())):
        image = product(basis[-1])
        entry = torch.dot(image, basis[-1]).item()
        for _ in range(2):  # once is not enough in float32
            for vector in basis:
                image = image - torch.dot(image, vector) * vector
        own = entry, image.norm().item(), _largest_of_tridiagonal([*diagonal, entry], beside)
        before = found
        entry, length, found = ranks.from_first(partial(tuple, own))
        if not math.isfinite(found):
            return None
        diagonal.append(entry)
        if len(diagonal) > 2 and abs(found - before) <= TOLERANCE * abs(found):
            break
        if length <= 1e-6 * max(map(abs, diagonal)) or not length:
            break  # the vectors so far span an invariant subspace that contains the start vector
        beside.append(length)
        basis.append(image / length)
    return found


def _largest_of_tridiagonal(diagonal: Sequence[float], beside: Sequence[float]) -> float:
    """Return the largest eigenvalue of a symmetric tridiagonal matrix; NaN if an entry is not finite."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(matrix)[-1]) if matrix.isfinite().all() else math.nan


@contextmanager
def _training_mode(model: nn.Module, frozen: Iterable[nn.Module]) -> Iterator[None]:
    """Set training mode except in frozen layers; restore the modes on exit."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    for layer in frozen:
        layer.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
