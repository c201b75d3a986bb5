"""First checks of a run's data: a picture of the first images, its classes, and images that are in two splits."""

import logging
from collections.abc import Sequence

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.selection import DEFAULT, select_by_of
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.data import Loaders
from resnet_cli.data.classes import describe_names_alike
from resnet_cli.data.duplicates import LeakCheck
from resnet_cli.files import write_atomically
from resnet_cli.plots.samples import draw_samples
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.summary import cut

logger = logging.getLogger("resnet_cli")

BALANCED = "val_balanced_accuracy"
RARE_FROM = 5  # a class is called rare if another has at least this many times its images
LISTED_CLASSES = 8  # names in the line of a run's classes
BATCH_LIMIT = 256  # images that are decoded for the picture
COMPARED = (("val", "train"), ("test", "train"), ("test", "val"))  # splits that should share no images


def write_samples(run: RunDir, loaders: Loaders, name: str) -> None:
    """Write `samples.png`, the first images of the first batch as the network sees them, unless it is there.

    If it cannot be drawn, that is logged and the run continues.
    """
    if run.samples.exists():
        return
    try:
        images_BCHW, labels = loaders.train.first_batch(BATCH_LIMIT)
        picture = draw_samples(
            images_BCHW, labels, class_names=loaders.class_names, mean=loaders.mean, std=loaders.std,
            title=f"{name}: first training images, as the network sees them",
        )  # fmt: skip
        write_atomically(run.samples, picture)
    except Exception as error:  # also from a user's augmentation: training raises it next, with all details
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("%s could not be drawn: %s", run.samples.name, reason)


def listed_classes(names: Sequence[str]) -> str:
    """Format the first class names and the last, so that folders taken for classes by mistake are seen at a glance."""
    shown = list(names) if len(names) <= LISTED_CLASSES else [*names[: LISTED_CLASSES - 1], "...", names[-1]]
    return ", ".join(escape_control_characters(cut(name, 30)) for name in shown)


class LeakWarnings:
    """Warns once of validation and test images that are also training images, and of test images in validation.

    Each warning comes as soon as it is known.

    Args:
        loaders: The data. Nothing is decoded for this: image files are known once they have been decoded, which the
            test images are at the end of the run.
    """

    def __init__(self, loaders: Loaders) -> None:
        self._check = LeakCheck(loaders.samples)
        self._left = [pair for pair in COMPARED if all(name in loaders.samples for name in pair)]

    def log_known(self) -> None:
        """Log a warning for each pair of splits for which it has become known."""
        for pair in [pair for pair in self._left if self._check.is_known(*pair)]:
            self._left.remove(pair)
            shared = self._check.find(*pair)
            if shared is not None:
                kind, other = (SPLIT_NAMES[name] for name in pair)
                subject = f"{shared.count} {kind} images are also {other} images"
                if shared.count == 1:
                    subject = f"1 {kind} image is also a {other} image"
                logger.warning(
                    "%s (first: %s = %s); resnet-data lists them", subject, shared.first, shared.twin
                )  # fmt: skip


def log_classes(loaders: Loaders, config: RunConfig) -> None:
    """Log the class names, similar names, the rarest class if another has many more images, and double weighting."""
    logger.info("classes %s", listed_classes(loaders.class_names))
    line = describe_names_alike(loaders.class_names)
    if line:
        logger.warning("%s", line)
    line = describe_rare_class(loaders, config.data, config.loss or {}, select_by_of(config.stored()))
    if line:
        logger.info("rare    %s", line)
    line = describe_double_weighting(loaders, config.data, config.loss or {})
    if line:
        logger.warning("%s", line)


def describe_double_weighting(loaders: Loaders, data: Node, loss: Node) -> str:
    """Return a warning if balanced class weights are combined with a sampler's; else an empty string."""
    sampler = data.get("sampler", "uniform")
    if sampler == "uniform" or loss.get("class_weights") != "balanced":
        return ""
    if not loaders.has_label_sets and len(set(loaders.class_counts)) == 1:
        return ""  # all weights are 1
    count = "count" if sampler == "balanced" else "can count"
    return (
        f"loss.class_weights=balanced and data.sampler={sampler}: the class weights do not take into account how often "
        f"images are drawn, so rare classes {count} more than frequent ones; use one of the two"
    )


def describe_rare_class(loaders: Loaders, data: Node, loss: Node, select_by: str) -> str:
    """Return how many images the rarest class has, and keys that help; an empty string if no class is rare.

    Weights and equal draws do not help a class without training images, so only these classes are named if there are
    any.
    """
    if loaders.has_label_sets or "train" not in loaders.samples:
        return ""
    train = loaders.class_counts
    rare, large = train.index(min(train)), train.index(max(train))
    if not train[rare]:
        return f"no training image of {listed_classes([loaders.class_names[k] for k, n in enumerate(train) if not n])}"
    if max(train) < RARE_FROM * min(train):
        return ""
    counts = []
    for part in filter(loaders.samples.__contains__, SPLIT_NAMES):
        counts.append(f"{int((loaders.samples[part].labels == rare).sum()):,} {SPLIT_NAMES[part]}")
    name, other = (escape_control_characters(cut(loaders.class_names[k], 30)) for k in (rare, large))
    advice = []
    if not loss.get("class_weights") and data.get("sampler", "uniform") == "uniform":
        advice.append("loss.class_weights=balanced")
    if select_by == DEFAULT:
        advice.append(f"trainer.select_by={BALANCED}")
    remedy = f"; to weight classes equally, set {' '.join(advice)}" if advice else ""
    return f"{name}: {', '.join(counts)} images; {other} has {counted(train[large], 'training image')}{remedy}"
