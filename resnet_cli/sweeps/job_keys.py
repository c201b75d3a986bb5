"""Which keys tell the jobs of a sweep apart, and which overrides of a job stay the same when it is resumed."""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from resnet_cli.config.paths import is_path_key
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.hydra_app.overrides import override_keys

# Keys that may change when a job is resumed, other than the number of epochs: they do not identify a job.
NOT_IDENTIFYING_KEYS = {*CONTROL_KEYS, *SAFE_TO_CHANGE} - {"trainer.epochs"}
KEYS_NOT_IN_NAMES = {"resume", "resume_force", "verify_resume", "logger", "sweep"}  # they only control or watch a job
# Keys that may change when a job is resumed, but whose values decide what it is trained on or what is measured: the
# paths of images, splits and initial weights, which may be spelt in several ways, and `trainer.test_tta`.
KEYS_OF_PATHS = {key for key in NOT_IDENTIFYING_KEYS if is_path_key(key)} - {"data.cache"}
KEYS_OF_RESULTS = {"trainer.test_tta"}


def is_identifying(key: str) -> bool:
    """Return whether jobs whose values of a key differ are different jobs."""
    return not {key, key.split(".")[0]} & NOT_IDENTIFYING_KEYS


def changes_job(key: str) -> bool:
    """Return whether another value of a key makes another job: it identifies jobs, or is a path, or no key."""
    return not key or key in KEYS_OF_PATHS or is_identifying(key)


def identifying_words(overrides: Sequence[str], names: Collection[str] = ()) -> frozenset[str]:
    """Return the overrides that tell jobs apart, in any order.

    Args:
        overrides: The overrides of a job.
        names: Keys that a resumed sweep has changed, which do not count.
    """
    keys = override_keys(overrides)
    return frozenset(
        override
        for key, override in zip(keys, overrides, strict=True)
        if key.split(".")[0] not in KEYS_NOT_IN_NAMES and key not in names
    )


def lasting_words(
    words: Collection[str], swept: Collection[str], base: str | None, start: str | None = None
) -> frozenset[str]:
    """Return the overrides of a job that stay the same when it is resumed.

    Args:
        words: What `identifying_words` returned.
        swept: Keys that differ between the jobs of the present command, whose overrides are kept as they are.
        base: The working folder of the sweep's commands.
        start: The folder from which relative paths are made absolute; None leaves them relative.
    """
    found = set()
    for word in words:
        [key] = override_keys([word])
        if key in swept or key in KEYS_OF_RESULTS or is_identifying(key):
            found.add(word)
        elif key in KEYS_OF_PATHS:
            found.add(f"{key}={normal_path(word.partition('=')[2], base, start)}")
    return frozenset(found)


def place_words(overrides: Sequence[str], base: str | None) -> Mapping[str, str]:
    """Return the overrides of a job by which it differs from other ones although its config is the same, by key.

    They name images and splits, a run to reproduce, and what is measured. Initial weights are compared by themselves.

    Args:
        overrides: The overrides of a job.
        base: The working folder of the sweep's commands.
    """
    kept = {key for key in (*KEYS_OF_PATHS, *KEYS_OF_RESULTS) if key not in ("init_from", *KEYS_NOT_IN_NAMES)}
    words = [word.lstrip("+") for word in overrides if override_keys([word])[0] in kept]
    return {override_keys([word])[0]: word for word in sorted(lasting_words(words, (), base))}


def normal_path(value: str, base: str | None, start: str | None = None) -> str:
    """Return one spelling of a path: without a slash at its end, from `start`, and relative if it is inside `base`."""
    path = Path(value.strip("\"'"))
    with suppress(RuntimeError):  # `~name` of a user who does not exist
        path = path.expanduser()
    path = Path(os.path.normpath(path if start is None else start / path))
    return str(path.relative_to(base) if base is not None and path.is_relative_to(base) else path)
