"""What the keys of config group `data` say: where images are, how they are prepared, how they are read.

Keys are given without `data.`.
"""

from resnet_cli.config.paths import is_path_key

# Keys by which images are decoded to pixels, and those by which they are prepared for a net.
DECODING = ("image_size", "resize", "interpolation", "mode", "background", "range")
PREPARATION = (*DECODING, "eval_crop")
# Keys that say how images are read, on which neither the images nor their splits depend.
HOW_READ = ("workers", "worker_timeout", "backend", "cache", "eval_batch_size", "batch_size", "download", "verify")
# With those that say how images are drawn and augmented: neither the training images nor their pixels depend on these.
HOW_USED = (*HOW_READ, "augment", "sampler")

_NAMES = ("data", "name", "subset")  # keys that name a data set, beside the paths
_OTHER_PATHS = ("cache", "splits")  # paths at which there are no images


def names_images(key: str) -> bool:
    """Return whether a key names a data set or where images are: `root`, `name`."""
    return key in _NAMES or (key not in _OTHER_PATHS and is_path_key(f"data.{key}"))
