"""The time that a run takes to decode its test images, which are not read before training has ended."""

from contextlib import suppress

import torch

from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.passes import SMALL_FILE_BYTES
from resnet_cli.data.images.threads import map_in_order
from resnet_cli.data.loading.batch_loader import BatchLoader
from resnet_cli.data.loading.device_loader import DeviceLoader
from resnet_cli.data.shard_order import spread
from resnet_cli.errors import InputError
from resnet_cli.training.measuring import Clock

MOST_TIMED = 8  # images


def decoding_seconds(loader: BatchLoader, clock: Clock) -> float:
    """Return about how long decoding the images of a loader takes when it is first read; 0 if that is done already.

    Args:
        loader: Of the test images. One of the backend `stream` decodes images, or reads them, in each evaluation.
        clock: Returns seconds.
    """
    if not isinstance(loader, DeviceLoader) or loader.resident.is_decoded:
        return 0.0
    images = loader.resident.split.images
    if not isinstance(images, LazyImages) or images.cached_rows() is not None:
        return 0.0
    chosen = spread(torch.arange(len(images)), MOST_TIMED).tolist()
    threads = 1 if images.source.mean_bytes() < SMALL_FILE_BYTES else torch.get_num_threads()
    began = clock()
    with suppress(InputError):  # an image is damaged, which is reported when all are read
        for _ in map_in_order(lambda position: images[chosen[position]], len(chosen), threads):
            pass
    return (clock() - began) / max(1, len(chosen)) * len(images)
