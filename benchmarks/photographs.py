"""Contenders of `pipeline.py --photos`: photographs of 500x375 at 224 pixels, flipped and normalised."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import measuring

COUNT = 600  # photographs, of which 12 are test images
SIZE, BATCH, WORKERS = 224, 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKENDS = {"stream, files": ("stream", False), "stream, cache": ("stream", True), "device": ("device", True)}


@contextmanager
def contenders(count: int = COUNT) -> Iterator[dict[str, Callable[[], float]]]:
    """Yield functions that return the images per second of an epoch, by contender.

    `first` is the first epoch of a new loader with an empty cache, if any; `later` is a further epoch.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "photos", count)
        usual = usual_loader(folder / "photos")
        found = {"DataLoader": lambda: rate(usual)}
        for title, (backend, is_cached) in BACKENDS.items():
            epochs = Epochs(folder / "photos", folder / title if is_cached else None, backend)
            found |= {f"{title}, first": epochs.first, f"{title}, later": epochs.later}
        yield found


def write_photographs(folder: Path, count: int) -> None:
    """Write JPEG files with the detail of photographs: noise of several scales, about 36 kB each."""
    import torch
    from PIL import Image

    source = torch.Generator().manual_seed(0)
    for number in range(count):
        pixels = torch.zeros(3, 375, 500)
        for octave, width in enumerate((4, 8, 16, 32, 64, 128)):
            noise = torch.randn(1, 3, width * 3 // 4 + 1, width, generator=source)
            pixels += torch.nn.functional.interpolate(noise, (375, 500), mode="bicubic")[0] / 1.6**octave
        image = ((pixels / 4 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0)
        path = folder / f"class{number % 6}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path, quality=90)


def usual_loader(folder: Path):
    """Return the loader that most programs use for a folder of classes."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize(SIZE),
        transforms.CenterCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    return DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS)


class Epochs:
    """Epochs of one of the package's loaders."""

    def __init__(self, folder: Path, cache: Path | None, backend: str) -> None:
        self.folder, self.cache, self.backend = folder, cache, backend
        self.loader, self.epoch, self.made = None, 0, 0

    def first(self) -> float:
        """Return the images per second of a new loader's first epoch, including its creation."""
        from resnet_cli.data import Augment, image_folder, make_loaders

        self.made += 1
        cache = None if self.cache is None else str(self.cache / str(self.made))
        start = measuring.now()
        data = image_folder(root=str(self.folder), image_size=SIZE, test_fraction=0.02, cache=cache, mean=MEAN, std=STD)
        self.loader = make_loaders(
            data, device="cpu", seed=0, batch_size=BATCH, val_fraction=0.0, backend=self.backend, workers=WORKERS,
            augment=Augment(flip="random"),
        ).train  # fmt: skip
        self.epoch = 0
        return rate(self.loader, start)

    def later(self) -> float:
        """Return the images per second of a further epoch."""
        if self.loader is None:
            self.first()
        self.epoch += 1
        return rate(self.loader.epoch(self.epoch))


def rate(batches, start: float | None = None) -> float:
    """Return the images per second of the batches, timed from `start`."""
    start, seen = measuring.now() if start is None else start, 0
    for _, labels in batches:
        seen += len(labels)
    return seen / (measuring.now() - start)
