"""Parity: the difference between the outputs of an exported file and of its run, on images of the run's data."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data import Loaders
from resnet_cli.data.classes import find_places, relabel
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.resize import resize_image
from resnet_cli.errors import ParityError
from resnet_cli.export.files import Runner
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.rejection import Rejection

MOST = 1000  # images to compare
BATCH = 64
ODD_SIZES = ((1, 1), (7, 90), (33, 31), (250, 180))  # height and width of images for the comparison of resizing


@dataclass(frozen=True)
class References:
    """Images with the run's outputs for them.

    Args:
        images: uint8 [N, H, W, C], of the net's size.
        logits: The run's logits for them, float32 [N, K].
        outputs: The expected outputs of the file, float32 [N, K].
        labels: Classes [N], or bool [N, K] of images with several labels.
        split: `val`, or `train` if the run has no validation images.
    """

    images: Tensor
    logits: Tensor
    outputs: Tensor
    labels: Tensor
    split: str


@dataclass(frozen=True)
class Parity:
    """The comparison of a file with its run.

    Attributes:
        images: Number of images compared.
        largest_difference: Largest absolute difference of an output.
        top1_agreement: Share of the images with the same best class, in percent; with several labels, share of the
            labels on the same side of 0.5.
        accuracy: Accuracy of the file, in percent.
        run_accuracy: Accuracy of the run, in percent.
        split: The split that the images are from.
        rejection_agreement: Share of the images that both reject or both keep, in percent; None without an output
            `rejected`.
    """

    images: int
    largest_difference: float
    top1_agreement: float
    accuracy: float
    run_accuracy: float
    split: str
    rejection_agreement: float | None = None

    def record(self) -> dict[str, Any]:
        """Return plain data."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


def collect_references(classifier: Classifier, loaders: Loaders, to_output: Callable[[Tensor], Tensor]) -> References:
    """Return the first validation images with the run's outputs for the batches of its own loader.

    Args:
        classifier: The trained net.
        loaders: The run's loaders.
        to_output: Logits [N, K] -> the exported output.
    """
    split = "val" if "val" in loaders.samples else "train"
    samples = loaders.samples[split]
    indices = samples.indices[:MOST]
    images = read_pixels(samples.split.images, indices)
    if loaders.val is None:  # the training loader augments, so training images are read and normalised here
        batches = [classifier.forward(part) for part in torch.split(images, BATCH)]
    else:
        batches, count = [], 0
        for inputs_BCHW, _ in loaders.val:
            batches.append(classifier.forward_normalised(inputs_BCHW))
            count += len(inputs_BCHW)
            if count >= len(indices):
                break
    logits = torch.cat(batches)[: len(indices)]
    labels, names = samples.split.labels[indices], classifier.class_names
    if loaders.class_names != names:  # the images have changed since training
        labels = relabel(labels, find_places(loaders.class_names, names), len(names))
    return References(images, logits, to_output(logits), labels, split)


def read_pixels(images: Tensor | LazyImages, indices: Tensor) -> Tensor:
    """Return the images with these indices: uint8 [N, H, W, C]."""
    if isinstance(images, LazyImages):
        return torch.stack([images[index] for index in indices.tolist()])
    return images[indices].contiguous()


def compare(
    run_file: Runner, references: References, rejection: Rejection | None = None, margin: float = 0.0
) -> Parity:
    """Compare the file's outputs with the run's.

    Args:
        run_file: Runs the file.
        references: Images with the run's outputs.
        rejection: The rejection in the file, if it has an output `rejected`.
        margin: Distance of a score from the threshold within which rounding may decide; such images count as equal.
    """
    parts = [run_file(part) for part in torch.split(references.images, BATCH)]
    found = torch.cat([part[0] for part in parts])
    rejection_agreement = None
    if rejection is not None:
        distance = rejection.scores(references.logits) - rejection.threshold
        rejected = torch.cat([part[1] for part in parts])
        rejection_agreement = _percent((rejected == (distance < 0)) | (distance.abs() <= margin))
    expected, labels = references.outputs, references.labels
    if labels.ndim == 2:
        cut = 0.5 if (expected.min() >= 0 and expected.max() <= 1) else 0.0
        ours, theirs = found > cut, expected > cut
        right, run_right = (ours == labels).all(1), (theirs == labels).all(1)
    else:
        ours, theirs = found.argmax(1), expected.argmax(1)
        right, run_right = ours == labels, theirs == labels
    return Parity(
        images=len(found),
        largest_difference=(found - expected).abs().max().item(),
        top1_agreement=_percent(ours == theirs),
        accuracy=_percent(right),
        run_accuracy=_percent(run_right),
        split=references.split,
        rejection_agreement=rejection_agreement,
    )


def require_equal_resizing(run_file: Runner, classifier: Classifier, to_output: Callable[[Tensor], Tensor],
                           tolerance: float) -> None:  # fmt: skip
    """Raise a `ParityError` if images of other sizes give other outputs than when the run resizes them."""
    channels, height, width = classifier.preprocessing.in_size
    decoding = classifier.preprocessing.decoding
    source = torch.Generator().manual_seed(0)
    for h, w in ODD_SIZES:
        image = torch.randint(0, 256, (h, w, channels), dtype=torch.uint8, generator=source)
        resized = resize_image(image, (height, width), decoding.resize, decoding.background, decoding.interpolation)
        expected = to_output(classifier.forward(resized[None]))
        difference = (run_file(image[None])[0] - expected).abs().max().item()
        if not difference <= tolerance:
            raise ParityError(f"an image of {w}x{h} pixels differs by {difference:.2g} in the exported file")


def latency(forward: Callable[[Tensor], object], image: Tensor, batch: int) -> float:
    """Return the median time of a batch in milliseconds.

    Args:
        forward: Function that runs uint8 images [B, H, W, C].
        image: One image [H, W, C], which is repeated.
        batch: Batch size B.
    """
    images = image.expand(batch, *image.shape).contiguous()
    forward(images)
    times = []
    for _ in range(3 if batch > 1 else 9):
        start = perf_counter()
        forward(images)
        times.append(perf_counter() - start)
    return 1000 * sorted(times)[len(times) // 2]


def _percent(is_true: Tensor) -> float:
    return 100.0 * is_true.double().mean().item()
