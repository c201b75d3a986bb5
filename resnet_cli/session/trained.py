"""TrainedRun: a run's model with the weights of a checkpoint, its config, and a description of its data."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from resnet_cli.config.data_keys import DECODING
from resnet_cli.config.run_config import Node
from resnet_cli.config.stored import flat, plain_data, read
from resnet_cli.config.validation import Settings
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders, Normalize
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.session import build
from resnet_cli.session.data_revision import recorded_revision
from resnet_cli.session.evaluated_model import build_evaluated_model
from resnet_cli.session.load import data_sizes, resolve_checkpoint
from resnet_cli.session.paths import located_settings, recorded_paths, require_recorded_data
from resnet_cli.session.stored_code import find_stored_modules, warn_of_changed_modules
from resnet_cli.session.trusted_kinds import check_node
from resnet_cli.training.backend import Backend

logger = logging.getLogger("resnet_cli")

CHECKPOINTS = ("best", "last")  # of a run folder, by name


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run's model with the weights of a checkpoint, in evaluation mode.

    Args:
        file: The checkpoint.
        run: The run folder; None for a checkpoint outside of one.
        settings: The stored config.
        model: The model on the backend's device.
        data: Description of the data in the checkpoint: `class_names`, `in_size` (C, H, W), `mean` and `std` (per
            channel, of images in the range 0 to 1), and `labels` if images have several.
        backend: Device, precision and memory format in which the run evaluates.
        epoch: Epochs that the weights were trained for.
        is_within_epoch: The checkpoint was saved before the end of the following epoch, after some of its batches.
        thresholds: Probability of each class above which an image with several labels has it; None if not chosen.
        trust: The stored config may name any class.
        named: Classes from elsewhere that are allowed, by key.
        other_data: Checked node of group `data` by which the run's images are read, instead of its own.
    """

    file: Path
    run: RunDir | None
    settings: Settings
    model: nn.Module
    data: Mapping[str, Any]
    backend: Backend
    epoch: int
    is_within_epoch: bool = False
    thresholds: list[float] | None
    trust: bool
    named: Mapping[str, str]
    other_data: Node | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, indexed by label."""
        return tuple(self.data["class_names"])

    @property
    def in_size(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        channels, height, width = self.data["in_size"]
        return channels, height, width

    @property
    def has_label_sets(self) -> bool:
        """True if images have several labels, or none."""
        return self.data.get("labels") == "multi"

    @property
    def was_compiled(self) -> bool:
        """True if the run evaluated a compiled model, which rounds otherwise than `model`."""
        trainer = self.settings.get("trainer")
        return isinstance(trainer, Mapping) and trainer.get("compile") == "model"

    @property
    def decodes_otherwise(self) -> bool:
        """True if `other_data` decodes images otherwise than in training, which changes their fingerprint."""
        own = self.settings.get("data")
        if self.other_data is None or not isinstance(own, Mapping):
            return False
        return any(self.other_data.get(key) != own.get(key) for key in DECODING)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The record of the run folder, read on first use; empty without one."""
        return self.run.read_record() if self.run is not None else {}

    def data_node(self) -> Node:
        """Return the node of group `data`, with the present locations of files."""
        if self.other_data is not None:
            return self.other_data
        settings = self.settings
        if self.run is not None:
            settings = located_settings(settings, recorded_paths(settings, (), self.run, needed=False))
        node = settings.get("data")
        if not isinstance(node, Mapping):
            raise InputError(f"{self.file}: not a checkpoint of resnet-cli: its config has no data")
        return node

    def loaders(self, node: Node | None = None) -> Loaders:
        """Build the run's loaders, on its device, with the normalisation that the net was trained with.

        The present data may have another mean and standard deviation.

        Args:
            node: Checked node of group `data`; None is the run's own, which is checked here.

        Raises:
            InputError: the data cannot be found or read, have images of another size than in training, or the stored
                config names other functions.
        """
        if node is None:
            node = self.data_node()
            check_node("data", node, trust=self.trust, named=self.named)
            with self.naming_lost_files():
                return self.loaders(node)
        device, (mean, std) = self.backend.device, (self.data["mean"], self.data["std"])
        with recorded_revision(node, self.settings, self.record):
            made = build.loaders(node, device=device, seed=int(self.settings.get("seed") or 0))
        if made.in_size != self.in_size:
            found, own = ("x".join(map(str, size)) for size in (made.in_size, self.in_size))
            images = f"the run's images are {found} now" if self.other_data is None else f"--data: images are {found}"
            raise InputError(f"{images}, but the net takes {own} (channels x height x width)")
        for loader in (made.train, made.val, made.test):
            if loader is not None:
                loader.normalize = Normalize(mean, std, loader.device)
        return replace(made, mean=tuple(mean), std=tuple(std))

    @contextmanager
    def naming_lost_files(self, remedy: str = "--data") -> Iterator[None]:
        """Let errors of reading the run's data say where its files were, if they are gone.

        Args:
            remedy: The option that names their new place; empty if the command has none.
        """
        try:
            yield
        except InputError:
            if self.run is not None and self.other_data is None:
                require_recorded_data(self.settings, self.run, remedy)
            raise


def open_trained(
    path: str,
    *,
    checkpoint: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    named: Mapping[str, str] | None = None,
) -> TrainedRun:
    """Open a run folder or a checkpoint with its model in evaluation mode.

    The config in the checkpoint determines what is built: a model of this package, `torch.nn` or `torchvision.models`.
    The weights are those that the run evaluates: the averages where the run averages.

    Args:
        path: A run folder or a checkpoint.
        checkpoint: `best`, `last` or a file; None is the file that `path` names, or the best checkpoint of the folder,
            or its last one where there is no best.
        device: Device of the model, as in `trainer.device`; None is the one that the run was trained on, if this
            machine has it, and `auto` otherwise.
        precision: Precision of the forward pass, as in `trainer.precision`; None is that of the run.
        trust: Build whatever else the config names; that runs code of its author's choice.
        named: Further classes that are allowed, by key: `{"model": "my_package.Net"}`.

    Raises:
        InputError: no such run, it has diverged and no checkpoint is named, its checkpoint is damaged, of another run
            or does not fit its config, or that names other classes.
    """
    file = _find_checkpoint(path, checkpoint)
    run = _folder_of(path, file)
    if checkpoint is None and run is not None and not _is_file(path):
        require_not_diverged(path, run.read_record())
    payload = checkpoints.load(file)
    settings = plain_data(payload["config"], str(file))
    if run is not None and checkpoint not in (None, *CHECKPOINTS):
        _require_checkpoint_of(run, file, settings)
    named = named or {}
    if trust:
        find_stored_modules(run, settings)
    check_node("model", settings.get("model"), trust=trust, named=named)
    if trust:
        warn_of_changed_modules(run, settings)
    in_size, num_classes = data_sizes(payload, file)
    model = build_evaluated_model(payload, file, settings["model"] or {}, in_size=in_size, num_classes=num_classes)
    backend = _backend(settings.get("trainer"), device, precision)
    state = payload["state"]
    thresholds = state.get("thresholds")
    return TrainedRun(
        file=file, run=run, settings=settings, model=backend.prepare_model(model).eval(), data=payload["data"],
        backend=backend, epoch=int(state.get("epoch") or 0), is_within_epoch=bool(state.get("batches")),
        trust=trust, named=named,
        thresholds=thresholds if _are_numbers(thresholds, num_classes) else None,
    )  # fmt: skip


def require_not_diverged(path: str, record: Mapping[str, Any]) -> None:
    """Raise an `InputError` for a run whose training met a non-finite number; warn of one that is not finished."""
    status, reason = record.get("status"), str(record.get("reason") or "")
    if status == "failed" and reason.startswith("DivergedError"):
        why = " ".join(reason.partition(": ")[2].split())[:200]
        raise InputError(f"{path}: the run diverged: {why}; --checkpoint best or last uses what it saved before")
    if status in ("running", "failed", "interrupted", "pruned"):
        best = record.get("best")
        epoch = f", its epoch {best['epoch']}" if isinstance(best, Mapping) and "epoch" in best else ""
        logger.warning("%s: the run is not finished (%s): the best checkpoint so far%s", path, status, epoch)


def _find_checkpoint(path: str, checkpoint: str | None) -> Path:
    """Return the checkpoint that `open_trained` loads."""
    if checkpoint is None:
        return resolve_checkpoint(path)
    if not checkpoint.strip():
        raise InputError("--checkpoint: is empty; it takes best, last or a checkpoint")
    if checkpoint not in CHECKPOINTS:
        file = expand_home(checkpoint, "--checkpoint")
        if not file.is_file():
            raise InputError(f"--checkpoint {checkpoint}: no such file; it takes best, last or a checkpoint")
        return file
    run = find_run(path)
    file = run.best if checkpoint == "best" else run.last
    if not file.is_file():
        raise InputError(f"--checkpoint {checkpoint}: {run.path} has no {file.name}")
    return file


def _require_checkpoint_of(run: RunDir, file: Path, settings: Settings) -> None:
    """Raise an `InputError` for a checkpoint of another run, whose results would be recorded as this run's.

    A checkpoint outside any run folder, such as a copy of an earlier epoch, is identified by its seed and its model.
    """
    folder = file.resolve().parent
    if folder == run.last.parent.resolve():
        return
    other = RunDir(folder.parent)
    if folder.name == "checkpoints" and other.config.is_file():
        raise InputError(f"--checkpoint {file}: belongs to the run {other.path}; give it instead of {run.path}")
    found, own = flat(settings), flat(read(run.config))
    for key in found:
        if (key == "seed" or key.startswith("model.")) and key in own and found[key] != own[key]:
            values = f"{key}={format_value(found[key])}, but {run.path} has {format_value(own[key])}"
            raise InputError(f"--checkpoint {file}: belongs to another run: {values}; give it instead of the run")


def _is_file(path: str) -> bool:
    return expand_home(path).is_file()


def _folder_of(path: str, file: Path) -> RunDir | None:
    """Return the run folder that is named, or that a checkpoint lies in."""
    if not _is_file(path):
        return find_run(path)
    run = RunDir(file.absolute().parent.parent)
    return run if file.parent.name == "checkpoints" and run.config.is_file() else None


def _backend(trainer: Any, device: str | None, precision_name: str | None) -> Backend:
    """Return the backend of a stored trainer's node on this machine, without determinism and compilation.

    A precision that this device does not support becomes `auto`.
    """
    node = trainer if isinstance(trainer, Mapping) else {}
    stored = str(node.get("device") or "auto")
    precision: Any = precision_name or node.get("precision") or "fp32"
    options: dict[str, Any] = {name: node.get(name) is True for name in ("channels_last", "cpu_bf16")}
    try:
        return Backend.resolve(stored if device is None else device, precision, **options)
    except (ValueError, TypeError) as error:
        if device is not None and "device" in str(error):
            raise InputError(str(error).replace("trainer.device", "--device")) from None
        return Backend.resolve(device or "auto", "auto", **options)


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(value) in (int, float) for value in values)
