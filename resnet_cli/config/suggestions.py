"""Suggest the nearest right name for a misspelt one."""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from resnet_cli.config.paths import CONFIG_FOLDER

CUTOFF = 0.6  # of difflib's ratio: difflib's own default

TRANSFORM = "data.augment.transforms=[{{_target_: torchvision.transforms.v2.{}}}] does that"
# Patterns of keys that a `_target_` does not have -> how to set what they mean.
ADVICE: Mapping[str, Mapping[str, str]] = {
    "resnet_cli.data.arrays": {
        "image_size|resize|interpolation": "arrays are not resized: resize the images in the file",
    },
    "resnet_cli.data.Augment": {
        "vflip|(random_?)?vertical_?flip|flip_?(vertical|v)": TRANSFORM.format("RandomVerticalFlip"),
        "hue|color_?jitter|colour_?jitter": TRANSFORM.format("ColorJitter, hue: 0.1"),
        "(random_)?perspective": TRANSFORM.format("RandomPerspective"),
        "elastic(_transform)?": TRANSFORM.format("ElasticTransform"),
        "sharpness|sharpen": TRANSFORM.format("RandomAdjustSharpness, sharpness_factor: 2"),
    },
}


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """Return `; did you mean X?` for the name nearest to `word`, or an empty string."""
    name = nearest_name(word, names)
    return f"; did you mean {name}?" if name else ""


def advice_on_key(target: str, key: str) -> str:
    """Return how to set what an unknown key of a target means, such as `vflip`; an empty string if that is unknown."""
    found = ADVICE.get(target, {})
    return next((advice for pattern, advice in found.items() if re.fullmatch(pattern, key, re.IGNORECASE)), "")


def nearest_name(word: object, names: Iterable[str]) -> str:
    """Return the name closest to `word` or spelled by its initials; an empty string if none is near."""
    return next(iter(nearest_names(word, names, count=1)), "")


def nearest_names(word: object, names: Iterable[str], *, count: int, cutoff: float = CUTOFF) -> list[str]:
    """Return the names closest to `word`, the closest first.

    Args:
        word: What the user wrote; upper and lower case count alike.
        names: The names to choose from.
        count: The largest number of names to return.
        cutoff: The least similarity, from 0 to 1.
    """
    word = str(word).lower()
    by_lower = {name.lower(): name for name in names}
    initials = "".join(part[:1] for part in word.split("_"))
    if len(initials) > 1 and initials in by_lower:
        return [by_lower[initials]]  # learning_rate: lr
    close = get_close_matches(word, by_lower, n=len(by_lower) or 1, cutoff=cutoff)
    # resnet21: resnet20 is as close as resnet32, but shares a longer prefix
    close.sort(key=lambda name: (SequenceMatcher(a=name, b=word).ratio(), _common_prefix(name, word)), reverse=True)
    return [by_lower[name] for name in close[:count]]


def _common_prefix(a: str, b: str) -> int:
    """Return the length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def similar_file(path: Path) -> str:
    """Return `; did you mean X?` for a file or folder beside a missing one with a similar name, or an empty string."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):  # the folder is missing too, or the name is not valid
        return ""
    similar = nearest_name(path.name, names)
    return f"; did you mean {path.with_name(similar)}?" if similar and similar != path.name else ""


def options_with(group: str, key: str) -> list[str]:
    """Return the shipped options of a config group that have a key, read off their files."""
    has_key = re.compile(rf"^{re.escape(key)}:", re.MULTILINE)
    files = sorted((CONFIG_FOLDER / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []
    return [file.stem for file in files if has_key.search(file.read_text(encoding="utf-8"))]
