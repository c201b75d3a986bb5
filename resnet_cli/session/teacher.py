"""The teacher of a run (`teacher=RUN`): a trained run's network, checked against the data of its student."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cli.config.messages import Problem, naming
from resnet_cli.config.run_config import DEFAULT_DISTILLATION, RunConfig
from resnet_cli.config.stored import Difference
from resnet_cli.config.trust import targets
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.session import build
from resnet_cli.session.losses import try_distillation
from resnet_cli.session.trained import TrainedRun, open_trained
from resnet_cli.training.device import resolve_device
from resnet_cli.training.teacher import Teacher

LISTED_CLASSES = 5


@dataclass(frozen=True)
class LoadedTeacher:
    """The teacher of a run.

    Args:
        network: The network, and the loss of learning from it.
        record: The entry in checkpoints and `run.json`: `run`, `file`, `sha256`, `epoch`, `model`, and the size to
            which images are resized for it, if they are.
    """

    network: Teacher
    record: dict[str, Any]


def load_teacher(config: RunConfig, place: str | None, loaders: Loaders) -> LoadedTeacher | None:
    """Load the network that a run learns from; None if there is none.

    Its config is that of a stored run: it may name parts of this package, of torch and of torchvision, and the classes
    of the student's model.

    Args:
        config: The config of the student.
        place: The teacher's present path, if its name does not lead there from the working folder.
        loaders: The student's data.

    Raises:
        InputError: no such run, it cannot be opened, or it was trained on other classes or kinds of images.
    """
    if config.teacher is None:
        return None
    name = config.teacher
    if loaders.has_label_sets:
        raise InputError(f"teacher={name}: distillation needs one class for each image, and these have several labels")
    device = str(resolve_device(config.trainer.get("device")))
    with naming("teacher", name):
        named = targets({"model": config.model})
        trained = open_trained(place or name, device=device, trust=config.trust, named=named)
    order = _order_of_classes(name, trained, loaders)
    channels, height, width = trained.in_size
    if channels != loaders.in_size[0]:
        raise InputError(
            f"teacher={name}: expects images with {channels} channels, but the data have {loaders.in_size[0]}"
        )
    node = config.distillation or DEFAULT_DISTILLATION
    combine = build.instantiate("distillation", node, {})
    try_distillation(node["_target_"], combine, len(order))
    network = Teacher(
        trained.model, combine, student_stats=(loaders.mean, loaders.std), own_stats=_statistics(name, trained),
        size=(height, width), order=None if order == list(range(len(order))) else order,
    )  # fmt: skip
    resized = {"resized_to": [height, width]} if (height, width) != tuple(loaders.in_size[1:]) else {}
    record = {
        "run": name, "file": trained.file.name, "sha256": _sha256(trained.file), "epoch": trained.epoch,
        "model": str(trained.settings["model"]["_target_"]), **resized,
    }  # fmt: skip
    return LoadedTeacher(network, record)


def teacher_changes(content: Mapping[str, Any], teacher: LoadedTeacher | None, *, force: bool) -> list[Difference]:
    """Compare the teacher with that of a checkpoint: the same path may lead to other weights today.

    Args:
        content: The checkpoint's; empty without one.
        teacher: The present one.
        force: Accept another teacher.

    Returns:
        What has changed, if `force` accepts it.

    Raises:
        InputError: the teacher's file has changed.
    """
    stored = content.get("teacher")
    before = stored.get("sha256") if isinstance(stored, Mapping) else None
    if teacher is None or before is None or before == teacher.record["sha256"]:
        return []
    change = Difference(
        "teacher", *(f"sha256 {format_value(text)[:12]}..." for text in (before, teacher.record["sha256"]))
    )
    if not force:
        raise InputError(
            Problem(change.key, "changed since the run was saved", change.after, stored=change.before),
            "resume: this is not the teacher that the run was trained with; give that teacher with teacher=PATH, or "
            "accept this one with resume_force=true",
        )
    return [change]


def format_teacher(record: Mapping[str, Any]) -> str:
    """Return a line about a teacher for the log."""
    model = str(record["model"]).rsplit(".", 1)[-1]
    size = record.get("resized_to")
    resized = f", images resized to {size[0]}x{size[1]} for it" if size else ""
    return f"{record['run']}: {model}, {record['file']} of epoch {record['epoch']}{resized}"


def _order_of_classes(name: str, trained: TrainedRun, loaders: Loaders) -> list[int]:
    """Return the teacher's output for each class of the data.

    Raises:
        InputError: the teacher has different classes.
    """
    own, wanted = list(trained.class_names), list(loaders.class_names)
    if trained.has_label_sets:
        raise InputError(f"teacher={name}: was trained on images with several labels, but these have one each")
    if set(own) != set(wanted) or len(own) != len(wanted):
        missing, more = ([x for x in a if x not in b] for a, b in ((wanted, own), (own, wanted)))
        parts = [f"{words} {_listed(names)}" for words, names in (("lacks", missing), ("has", more)) if names]
        raise InputError(f"teacher={name}: has different classes from the data: it {' and '.join(parts)}")
    return [own.index(x) for x in wanted]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED_CLASSES} more" if len(names) > LISTED_CLASSES else ""
    return ", ".join(format_value(name) for name in names[:LISTED_CLASSES]) + more


def _statistics(name: str, trained: TrainedRun) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel by which the teacher's images were normalised."""
    found = [trained.data.get(key) for key in ("mean", "std")]
    mean, std = (tuple(x) if isinstance(x, list) and all(type(v) in (int, float) for v in x) else () for x in found)
    if not len(mean) == len(std) == trained.in_size[0] or not all(v > 0 for v in std):
        raise InputError(f"teacher={name}: {trained.file} does not say how its images were normalised")
    return mean, std


def _sha256(file: Path) -> str:
    with expand_home(str(file)).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
