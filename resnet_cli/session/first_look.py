"""What a run shows of its data before it trains: a picture of its first images."""

import logging

from resnet_cli.data import Loaders
from resnet_cli.files import write_atomically
from resnet_cli.plots.samples import draw_samples
from resnet_cli.runs.folder import RunDir

logger = logging.getLogger("resnet_cli")

BATCH_LIMIT = 256  # images that are decoded for the picture


def write_samples(run: RunDir, loaders: Loaders, name: str) -> None:
    """Write `samples.png`, the first images of the first batch as the network sees them, unless it is there.

    A picture that cannot be made is said in the log; it stops no run.
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
    except Exception as error:  # also of a user's augmentation: training meets it next, and says it in full
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("%s is not drawn: %s", run.samples.name, reason)
