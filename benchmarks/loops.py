"""Training loops to compare: the usual one, the best hand-written one, the program's, Lightning's, and timm's parts.

Each function prepares a loop and returns a function that trains a whole epoch over the same synthetic images and
returns their number. All train the program's own nets with SGD, momentum 0.9, weight decay 5e-4, on batches that are
cropped, flipped and normalised.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from measuring import SkippedError
from torch import Tensor, nn

from resnet_cli import ClassifierTrainer
from resnet_cli.data import synthetic
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.session import build
from resnet_cli.training.device import resolve_precision

Epoch = Callable[[], int]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PADDING = 4
SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def overrides(net: str, count: int, batch: int) -> list[str]:
    """Return the overrides of the run that all loops share."""
    return [
        f"model={net}", "data=synthetic", f"data.count={count}", "data.test_count=10", "data.val_fraction=0",
        f"data.batch_size={batch}", "data.augment.crop=4", "data.augment.flip=random",
    ]  # fmt: skip


def own(net: str, count: int, batch: int, *typed: str, model: nn.Module | None = None) -> Epoch:
    """Prepare the program's loop: config, checks, loaders, model, optimizer, trainer, with its progress bar."""
    return own_trainer(net, count, batch, *typed, model=model)[0]


def own_trainer(
    net: str, count: int, batch: int, *typed: str, model: nn.Module | None = None
) -> tuple[Epoch, ClassifierTrainer]:
    """Prepare the program's loop, and return its trainer too."""
    given = {item.partition("=")[0]: item for item in (*overrides(net, count, batch), *typed)}
    settings = compose_settings(list(given.values())).settings
    device = torch.device("cpu")
    loaders = build.loaders(settings["data"], device=device, seed=0)
    made = model or build.model(settings["model"], in_size=loaders.in_size, num_classes=10, seed=0)
    steps = len(loaders.train)
    trainer = build.trainer(
        settings["trainer"],
        model=made,
        optimizer=build.optimizer(settings["optimizer"], made),
        schedule=build.schedule(settings["schedule"], total_steps=1_000_000, steps_per_epoch=steps),
        seed=0,
    )

    def epoch() -> int:
        trainer.fit(loaders.train, None, 1, verbose=False)
        return count

    return epoch, trainer


def network(net: str) -> nn.Module:
    settings = compose_settings([f"model={net}"]).settings
    return build.model(settings["model"], in_size=(3, 32, 32), num_classes=10, seed=0)


def images(count: int) -> tuple[Tensor, Tensor]:
    """Return synthetic images, uint8 [N, H, W, C], and labels."""
    part = synthetic(count=count, test_count=10).train
    assert isinstance(part.images, Tensor)
    return part.images, part.labels


class PerImage(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The usual data set: an image at a time through Pillow and torchvision's transforms."""

    def __init__(self, count: int) -> None:
        from torchvision import transforms

        self.images, self.labels = (tensor.numpy() for tensor in images(count))
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def per_image_loader(count: int, batch: int, workers: int = 2) -> torch.utils.data.DataLoader[Any]:
    """Build the usual loader: `DataLoader(set, batch_size, shuffle=True, num_workers=2)`."""
    return torch.utils.data.DataLoader(PerImage(count), batch, shuffle=True, num_workers=workers)


def usual(net: str, count: int, batch: int) -> Epoch:
    """Prepare the usual loop: per-image transforms in two workers, fp32, the loss read in each step."""
    model, loader = network(net), per_image_loader(count, batch)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)  # type: ignore[arg-type]

    def epoch() -> int:
        model.train()
        total, correct, seen = 0.0, 0, 0
        for inputs, labels in loader:
            optimizer.zero_grad()
            scores = model(inputs)
            loss = nn.functional.cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            correct += (scores.argmax(1) == labels).sum().item()
            seen += len(labels)
        return seen

    return epoch


def batched(pixels_NHWC: Tensor, labels_N: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of batches that are cropped, flipped and normalised as a whole, as in optimised hand-written code.

    `pixels_NHWC` is already padded. A row of a crop is consecutive bytes, so a crop is 32 reads from the view of all
    (overlapping) rows; the images are in random order, so the first Binomial(B, 1/2) of a batch can be flipped.
    """
    count, high, wide, channels = pixels_NHWC.shape
    size = high - 2 * PADDING
    rows = pixels_NHWC.as_strided((count * high * wide - size + 1, size * channels), (channels, 1))
    scale = torch.tensor([1 / (255 * s) for s in STD]).repeat(size)
    shift = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)]).repeat(size)
    lines = torch.arange(size)
    for indices in torch.randperm(count).split(batch):
        b = len(indices)
        top, left = torch.randint(0, 2 * PADDING + 1, (2, b))
        starts = ((indices * high + top)[:, None] + lines) * wide + left[:, None]
        crops = rows.index_select(0, starts.flatten()).view(b, size, size, channels)
        flipped = int(torch.randint(0, 2, (b,)).sum())
        crops[:flipped] = crops[:flipped].flip(2)
        floats = torch.addcmul(shift, crops.view(b * size, -1).float(), scale)
        yield floats.view(b, size, size, channels).permute(0, 3, 1, 2), labels_N.index_select(0, indices)


def padded(count: int) -> tuple[Tensor, Tensor]:
    """Return the synthetic images with a black border, and their labels."""
    pixels, labels = images(count)
    return nn.functional.pad(pixels, (0, 0, PADDING, PADDING, PADDING, PADDING)), labels


def bare(net: str, count: int, batch: int, *, fast: bool, compiled: bool = False, plain: bool = False) -> Epoch:
    """Prepare a hand-written loop with the program's optimisations: channels-last and fused SGD.

    `fast` adds bf16 where it is faster; `plain` leaves out channels-last and the fused update.
    """
    model = network(net).to(memory_format=torch.preserve_format if plain else torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=None if plain else True)  # type: ignore[arg-type]
    pixels, labels_all = padded(count)
    precision = resolve_precision("auto", torch.device("cpu"), cpu_bf16=fast)
    context = (lambda: torch.autocast("cpu", torch.bfloat16)) if precision == "bf16" else nullcontext
    forward = torch.compile(model, dynamic=False) if compiled else model

    def epoch() -> int:
        model.train()
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for inputs, labels in batched(pixels, labels_all, batch):
            optimizer.zero_grad(set_to_none=True)
            with context():
                scores = forward(inputs.contiguous() if plain else inputs)
            scores = scores.float()
            loss = nn.functional.cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            correct += (scores.argmax(1) == labels).sum()
        total.item()
        return count

    return epoch


def lightning(net: str, count: int, batch: int, *, model: nn.Module | None = None, loader: Any = None) -> Epoch:
    """Prepare Lightning with its progress bar and a logged loss, over the usual loader unless another is given."""
    try:
        import lightning as pl
    except ImportError as error:
        raise SkippedError(f"lightning: {error}") from None
    made, loader = model or network(net), loader or per_image_loader(count, batch)

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = made

        def training_step(self, batch: Any, number: int) -> Tensor:
            inputs, labels = batch
            loss = nn.functional.cross_entropy(self.net(inputs), labels)
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.net.parameters(), **SGD)  # type: ignore[arg-type]

    module = Module()

    def epoch() -> int:
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
        )
        trainer.fit(module, loader)
        return count

    return epoch


def timm(net: str, count: int, batch: int) -> Epoch:
    """Prepare the usual loop with timm's loader (fast collation, prefetched normalisation) and optimizer factory."""
    try:
        from timm.data import create_loader
        from timm.optim import create_optimizer_v2
        from timm.utils import AverageMeter
    except ImportError as error:
        raise SkippedError(f"timm: {error}") from None
    model = network(net)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    dataset = PerImage(count)
    dataset.transform = None
    loader = create_loader(
        dataset, (3, 32, 32), batch, is_training=True, scale=(0.8, 1.0), color_jitter=None, hflip=0.5, mean=MEAN,
        std=STD, num_workers=2, use_prefetcher=False, device=torch.device("cpu"), persistent_workers=False,
    )  # fmt: skip
    losses = AverageMeter()

    def epoch() -> int:
        model.train()
        seen = 0
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(labels))
            seen += len(labels)
        return seen

    return epoch
