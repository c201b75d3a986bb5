"""Record the validation images that a temperature or threshold is chosen on, and find out whether they changed.

Records of earlier versions do not say which images these were, which is not reported as a change.
"""

from collections.abc import Mapping
from typing import Any

from resnet_cli.data import Loaders
from resnet_cli.data.fingerprint import describe_difference, fingerprint_split, without_weights
from resnet_cli.session.run_data import split_change
from resnet_cli.session.trained import TrainedRun


def record_images(run: TrainedRun, loaders: Loaders) -> dict[str, Any]:
    """Return the fields of a record that identify the validation images of a choice.

    Returns:
        `images`, their fingerprint, and `on_other_images` if they differ from those at training time.
    """
    images = fingerprint_split(*loaders.samples["val"])
    is_other = split_change(run.data.get("splits"), "val", images) is not None
    return {"images": images, **({"on_other_images": True} if is_other else {})}


def describe_other_images(run: TrainedRun, chosen: Mapping[str, Any], loaders: Loaders | None = None) -> str | None:
    """Describe how the images of a choice differ from the run's validation images; None if they do not.

    Args:
        run: The run.
        chosen: The record of what was chosen; see `record_images`.
        loaders: The run's present data, if they have been read.
    """
    images = chosen.get("images")
    if not isinstance(images, Mapping):
        return None
    images, splits = without_weights(images), run.data.get("splits")
    trained: Any = splits.get("val") if isinstance(splits, Mapping) else images
    if isinstance(trained, Mapping) and without_weights(trained) != images:
        was, found = describe_difference(without_weights(trained), images)
        return f"was chosen on other images than the run's validation images: {found}, not {was}"
    if loaders is None or "val" not in loaders.samples:
        return None
    now = without_weights(fingerprint_split(*loaders.samples["val"]))
    if now == images or (run.decodes_otherwise and {**images, "images": now["images"]} == now):
        return None  # the digest of images that are decoded otherwise says nothing of them
    was, found = describe_difference(images, now)
    return f"was chosen on validation images that have changed since: {was} then, {found} now"
