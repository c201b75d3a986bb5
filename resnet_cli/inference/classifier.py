"""Classifier: class probabilities for images of any kind from a trained run; what `resnet_cli.load_run` returns."""

import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.inference.features import FeatureNet
from resnet_cli.inference.preparation import preparation_node
from resnet_cli.inference.preprocessing import Preprocessing
from resnet_cli.seeding import random_state_kept
from resnet_cli.session.trained import TrainedRun, open_trained
from resnet_cli.training.backend import Backend

Images = Any  # see `Classifier`
FLAGS = re.compile(r"(?<!\S)--(?=(?:checkpoint|device|trust)\b)")  # of commands, in messages about arguments

PASSES_ON_GPU = threading.Lock()  # held during a forward pass


class Classifier:
    """A trained net with the preprocessing and the class names of its run.

    Images are one or several of: paths of image files, bytes of such files, binary files that are open, Pillow images,
    arrays [H, W, C] and tensors [H, W, C] or [C, H, W]; or a whole batch [N, H, W, C] or [N, C, H, W]. Values are
    uint8, or of the type that the run was trained on. They are decoded, resized and normalised as the run's validation
    images were; if the run was trained on arrays with `data.range`, arrays of any type are scaled by it.

    A classifier can be pickled and shared between threads.

    Args:
        run: The trained run.
        batch_size: Images that go through the net at once.
        temperature: Divides the logits before the softmax; 1 has no effect.
        reads_images: Whether images are read and prepared here; False if all are given to `forward_normalised`.
    """

    def __init__(
        self, run: TrainedRun, *, batch_size: int = 256, temperature: float = 1.0, reads_images: bool = True
    ) -> None:
        if not _is_in_range(batch_size, Integral, 1):
            raise InputError(f"batch_size={batch_size!r}: must be a whole number, at least 1")
        if not _is_in_range(temperature, Real, math.ulp(0.0)):
            raise InputError(f"temperature={temperature!r}: must be a number above 0")
        self.model, self.backend = run.model, run.backend
        self.class_names, self.has_label_sets = run.class_names, run.has_label_sets
        self.thresholds = _rescale_thresholds(run.thresholds, temperature)
        self.preprocessing = Preprocessing.of(preparation_node(run) if reads_images else {}, run.data)
        self.batch_size, self.temperature = batch_size, temperature
        self._trunk: FeatureNet | None = None
        self._lock = threading.Lock()

    def __call__(self, images: Images) -> Tensor:
        """Return the probability of each class: float32 [N, K] on the CPU.

        Each row adds up to 1, unless the run's images have several labels: then each is the probability of one label.

        Raises:
            InputError: An image cannot be decoded, or has other channels than the net takes.
        """
        return self.to_probabilities(self.logits(images))

    predict_proba = __call__

    def classify(self, images: Images) -> Tensor:
        """Return the most probable class of each image, int64 [N]; see `class_names`.

        If images have several labels, return whether each image has each, bool [N, K], by the thresholds that the run
        chose on its validation images, or else 0.5.
        """
        probabilities_NK = self(images)
        return self.to_labels(probabilities_NK) if self.has_label_sets else probabilities_NK.argmax(dim=1)

    def logits(self, images: Images) -> Tensor:
        """Return the net's output: float32 [N, K] on the CPU."""
        return self._run(self.model, images, len(self.class_names))

    def features(self, images: Images) -> Tensor:
        """Return the inputs of the net's last linear layer: float32 [N, D] on the CPU.

        Raises:
            InputError: The net does not end with a linear layer.
        """
        trunk, width = self.feature_model()
        return self._run(trunk, images, width)

    def to_probabilities(self, logits_NK: Tensor) -> Tensor:
        """Return the probabilities of logits [N, K]."""
        scaled_NK = logits_NK / self.temperature
        return scaled_NK.sigmoid() if self.has_label_sets else scaled_NK.softmax(dim=1)

    def to_labels(self, probabilities_NK: Tensor) -> Tensor:
        """Return which labels images have, bool [N, K], by the thresholds that the run chose, or else 0.5."""
        chosen = self.thresholds or [0.5] * len(self.class_names)
        return probabilities_NK > torch.tensor(chosen, dtype=torch.float64)  # in float32 a high threshold would be 1

    @torch.no_grad()
    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Return the logits of uint8 images [B, H, W, C] of the net's size: float32 [B, K] on the CPU."""
        return self.forward_normalised(self.preprocessing.normalize(images_BHWC))

    @torch.no_grad()
    def forward_normalised(self, images_BCHW: Tensor, model: nn.Module | None = None) -> Tensor:
        """Return the output for normalised images, as loaders yield them: float32 [B, K] on the CPU.

        Args:
            images_BCHW: float32 [B, C, H, W].
            model: Module to run instead of the net.
        """
        inputs_BCHW = images_BCHW.to(self.backend.device, non_blocking=True)
        with _float32_of(self.backend), self.backend.autocast():
            output: Tensor = (model or self.model)(inputs_BCHW)
        return output.float().cpu()

    @torch.no_grad()
    def _run(self, model: nn.Module, images: Images, width: int) -> Tensor:
        normalize, read_all = self.preprocessing.normalize, self.preprocessing.read_all
        outputs = [
            self.forward_normalised(normalize(read_all(chunk)), model) for chunk in _chunks(images, self.batch_size)
        ]
        return torch.cat(outputs) if outputs else torch.zeros(0, width)

    def feature_model(self) -> tuple[nn.Module, int]:
        """Return a module that returns the net's features (sharing its weights), and their number D.

        Raises:
            InputError: The net does not end with a linear layer.
        """
        with self._lock:
            if self._trunk is None:
                self._trunk = FeatureNet(self.model, len(self.class_names))
            return self._trunk, self._trunk.width

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_trunk")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _trunk=None)


@contextmanager
def _float32_of(backend: Backend) -> Iterator[None]:
    """Let a GPU compute float32 as in training; threads take turns, since this is set for the whole process."""
    if not _is_gpu(backend.device):
        yield
        return
    with PASSES_ON_GPU, backend.float32():
        yield


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def load_run(
    path: str | Path,
    *,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 256,
    temperature: float = 1.0,
    trust: bool = False,
) -> Classifier:
    """Load a trained run as a classifier.

    Args:
        path: A run folder, whose best checkpoint is used, or a checkpoint.
        checkpoint: `best`, `last` or a file of the run; None is `best`, or the checkpoint that `path` names.
        device: Device of the net, as in `trainer.device`; None is the one that the run was trained on, if this machine
            has it.
        batch_size: Images that go through the net at once.
        temperature: Divides the logits before the softmax; 1 has no effect.
        trust: Build classes that only the stored config names; that runs code of its author's choice.

    Raises:
        InputError: There is no such run, its checkpoint is damaged, or an argument is wrong.
    """
    if not isinstance(path, str | PathLike) or not str(path).strip():
        raise InputError(f"load_run: {path!r}: must be the path of a run folder or of a checkpoint")
    if not isinstance(checkpoint, str | Path | None):
        raise InputError(f"checkpoint={checkpoint!r}: must be best, last or a file")
    name = None if checkpoint is None else str(checkpoint)
    try:
        with random_state_kept():  # building the net draws weights
            run = open_trained(str(path), checkpoint=name, device=device, trust=trust)
    except InputError as error:
        raise InputError(*(FLAGS.sub("", problem) for problem in error.problems)) from None
    return Classifier(run, batch_size=batch_size, temperature=temperature)


def _is_in_range(value: Any, kind: type, lowest: float) -> bool:
    """Return whether a value is a finite number of a kind, also one of NumPy's, that is not below another."""
    is_number: bool = isinstance(value, kind)
    return is_number and lowest <= value < math.inf


def _rescale_thresholds(thresholds: list[float] | None, temperature: float) -> list[float] | None:
    """Convert probability thresholds so that decisions stay the same when logits are divided by a temperature."""
    if thresholds is None or temperature == 1:
        return thresholds
    scaled: list[float] = (torch.tensor(thresholds, dtype=torch.float64).logit() / temperature).sigmoid().tolist()
    return scaled


def _chunks(images: Images, size: int) -> Iterator[Sequence[Any]]:
    """Split images into lists of at most `size`; one image is a list of one."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO" and images.ndim < 2:
        images = images.reshape(-1).tolist()  # names, or objects
    if isinstance(images, Tensor | np.ndarray):
        images = images[None] if images.ndim < 4 else images
        yield from (images[start : start + size] for start in range(0, len(images), size))
        return
    is_file = isinstance(images, str | Path | bytes | bytearray) or hasattr(images, "read")
    is_single = is_file or not isinstance(images, Iterable)
    chunk: list[Any] = []
    for image in [images] if is_single else images:
        chunk.append(image)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
