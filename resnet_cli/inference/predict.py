"""Predict the classes of many images, decoding them in threads while the net runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.passes import SMALL_FILE_BYTES
from resnet_cli.errors import InputError
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.rejection import Rejection
from resnet_cli.inference.sources import NamedImage

T = TypeVar("T")
R = TypeVar("R")
# The fields of a prediction after its name.
Described = tuple[tuple[tuple[str, float], ...], tuple[str, ...] | None, float | None, bool]

AHEAD = 2  # batches that are decoded before the net needs them


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Args:
        name: Name of the image.
        top: The most probable classes with their probabilities, the most probable first.
        labels: The labels that the image has, if images have several; None if each has one class.
        score: Score by which images are rejected; None without rejection.
        is_rejected: Whether the image is probably of none of the classes.
        error: Why the image cannot be read; the other fields are empty then.
    """

    name: str
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] | None = None
    score: float | None = None
    is_rejected: bool = False
    error: str | None = None


def predict_images(
    classifier: Classifier,
    images: Iterable[NamedImage],
    *,
    top: int = 1,
    rejection: Rejection | None = None,
    threads: int | None = None,
) -> Iterator[list[Prediction]]:
    """Yield the predictions for images in order, a batch at a time; unreadable images have an `error`.

    Args:
        classifier: The trained net.
        images: The images.
        top: Number of classes in a prediction.
        rejection: Detects images of none of the classes; None rejects none.
        threads: Threads that decode; None is one for small files, else the number that PyTorch uses.
    """
    for batch in _read_batches(classifier, images, threads):
        yield _predict(batch, classifier, top, rejection)


def read_images(classifier: Classifier, images: Iterable[NamedImage]) -> Iterator[tuple[Tensor | None, list[str]]]:
    """Yield (pixels, errors) for each batch: uint8 [B, H, W, C] of its readable images, and a line for each other one.

    The pixels are None if no image of the batch can be read.
    """
    for batch in _read_batches(classifier, images, None):
        pixels = [read for _, read in batch if isinstance(read, Tensor)]
        yield torch.stack(pixels) if pixels else None, [read for _, read in batch if isinstance(read, str)]


def _read_batches(
    classifier: Classifier, images: Iterable[NamedImage], threads: int | None
) -> Iterator[list[tuple[str, Tensor | str]]]:
    """Yield batches of (name, pixels), with an error message in place of the pixels of unreadable images."""
    size = classifier.batch_size
    stream = iter(images)
    first = list(islice(stream, size))
    if threads is None:
        threads = 1 if _are_small(first) else torch.get_num_threads()
    portion = size if threads == 1 else 1
    all_images = chain(first, stream)
    portions = iter(lambda: list(islice(all_images, portion)), [])
    read = chain.from_iterable(_map_ahead(partial(_read, classifier), portions, threads, AHEAD * size))
    yield from iter(lambda: list(islice(read, size)), [])


def _are_small(images: Sequence[NamedImage]) -> bool:
    """Return whether images are so small that decoding one takes less time than passing it to another thread."""
    sizes = []
    for image in images:
        if isinstance(image.source, EncodedImage):
            sizes.append(len(image.source.content))
        elif isinstance(image.source, str):
            with suppress(OSError):
                sizes.append(Path(image.source).stat().st_size)
    return sum(sizes) <= SMALL_FILE_BYTES * len(sizes)


def _map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """Yield the result for each item in order, computed in threads at most `ahead` items in advance."""
    if threads == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(classifier: Classifier, images: Sequence[NamedImage]) -> list[tuple[str, Tensor | str]]:
    """Return (name, pixels) of images, with an error message in place of the pixels of unreadable images."""
    sources = [image.source for image in images if not isinstance(image.source, InputError)]
    decoded = iter(classifier.preprocessing.read_each(sources))
    found = [image.source if isinstance(image.source, InputError) else next(decoded) for image in images]
    return [
        (image.name, read.problems[0] if isinstance(read, InputError) else read)
        for image, read in zip(images, found, strict=True)
    ]


def _predict(
    batch: list[tuple[str, Tensor | str]], classifier: Classifier, top: int, rejection: Rejection | None
) -> list[Prediction]:
    pixels = [read for _, read in batch if isinstance(read, Tensor)]
    found: Iterator[Described] = iter(())
    if pixels:
        logits_BK = classifier.forward(torch.stack(pixels))
        found = _describe(logits_BK, classifier, top, rejection)
    return [
        Prediction(name, error=read) if isinstance(read, str) else Prediction(name, *next(found))
        for name, read in batch
    ]


def _describe(logits_BK: Tensor, classifier: Classifier, top: int, rejection: Rejection | None) -> Iterator[Described]:
    """Yield the fields of a `Prediction` after its name, for each image."""
    names = classifier.class_names
    probabilities_BK = classifier.to_probabilities(logits_BK)
    values, classes = (part.tolist() for part in probabilities_BK.topk(min(top, len(names)), dim=1))
    scores = [None] * len(values) if rejection is None else rejection.scores(logits_BK).tolist()
    has = classifier.to_labels(probabilities_BK).tolist() if classifier.has_label_sets else [None] * len(values)
    for row_values, row_classes, row_has, score in zip(values, classes, has, scores, strict=True):
        labels = None if row_has is None else tuple(name for name, is_set in zip(names, row_has, strict=True) if is_set)
        best = tuple((names[k], value) for k, value in zip(row_classes, row_values, strict=True))
        yield best, labels, score, rejection is not None and score < rejection.threshold
