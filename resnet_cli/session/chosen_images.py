"""The validation images that a temperature or a threshold in a run's record was chosen on, and if they are others.

Records of earlier versions do not say which images these were, which tells nothing.
"""

from collections.abc import Mapping
from typing import Any

from resnet_cli.data import Loaders
from resnet_cli.data.fingerprint import Fingerprint, describe_difference, fingerprint_split
from resnet_cli.session.run_data import split_change
from resnet_cli.session.trained import TrainedRun


def record_images(run: TrainedRun, loaders: Loaders) -> dict[str, Any]:
    """Return what a record keeps of the validation images that something is chosen on.

    Returns:
        `images`, what identifies them, and `on_other_images` if they are not those of the training.
    """
    images = fingerprint_split(*loaders.samples["val"])
    is_other = split_change(run.data.get("splits"), "val", images) is not None
    return {"images": images, **({"on_other_images": True} if is_other else {})}


def describe_other_images(run: TrainedRun, chosen: Mapping[str, Any], loaders: Loaders | None = None) -> str | None:
    """Return that something was chosen on other images than the run's validation images; None if it was not.

    Args:
        run: The run.
        chosen: The record of what was chosen; see `record_images`.
        loaders: The run's data as they are today, if they have been read.
    """
    images = chosen.get("images")
    if not isinstance(images, Mapping):
        return None
    splits = run.data.get("splits")
    trained: Any = splits.get("val") if isinstance(splits, Mapping) else images
    if isinstance(trained, Mapping) and trained != images:
        was, found = _difference(trained, images)
        return f"was chosen on other images than the run's validation images: {found}, not {was}"
    if loaders is None or "val" not in loaders.samples:
        return None
    now = fingerprint_split(*loaders.samples["val"])
    if now == images:
        return None
    was, found = _difference(images, now)
    return f"was chosen on validation images that have changed since: {was} then, {found} now"


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    known: Fingerprint = {key: after.get(key) for key in (*before, *(key for key in after if key not in before))}
    return describe_difference(dict(before), known)
