"""Protocols: on which data and how runs were measured. Only results of one protocol can be compared."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.report.keys import comparable_settings, comparison_key
from resnet_cli.runs.reading import Run

# Keys of `data` that change what is trained on, or how, but not what is measured: results can be compared.
TRAINING_KEYS = (
    "data.batch_size", "data.drop_last", "data.sampler", "data.augment", "data.label_noise", "data.shuffle_buffer",
    "data.lanes",
)  # fmt: skip
# Keys of the trainer that change what is measured: the first shortens validation and test, the second validates on
# training images.
EVALUATION_KEYS = ("trainer.max_batches", "trainer.overfit_batches")
VALIDATION_KEYS = {"data.split_seed", "data.val_fraction", "data.folds", "data.train_size"}  # test images are the same
FOLD = "data.fold"  # all folds have as many images, but for one

Protocol = tuple[tuple[str, Any], ...]
"""Under what conditions a run was measured: (key or property, value) pairs."""


def protocols_of(runs: Sequence[Run], over: Collection[str]) -> dict[Path, Protocol]:
    """Return the protocol of each run by its folder: the data it was measured on, and how its weights were chosen.

    What an unfinished run would have recorded at its end is unknown; it gets the protocol of a finished run with the
    same settings, if there is one (of several, the last).

    Args:
        runs: The runs.
        over: Keys over whose values results are averaged. They are no part of a protocol, nor are the numbers of images
            that follow from them.
    """
    configured = {folder: _configured_protocol(own, over) for folder, own in comparable_settings(runs).items()}
    finished = {
        configured[run.folder]: configured[run.folder] + _recorded_protocol(run, over)
        for run in runs
        if run.status == "finished"
    }
    protocols: dict[Path, Protocol] = {}
    for run in runs:
        own = configured[run.folder]
        is_finished = run.status == "finished"
        protocols[run.folder] = own + _recorded_protocol(run, over) if is_finished else finished.get(own, own)
    return protocols


def differing_keys(protocols: Collection[Protocol]) -> set[str]:
    """Return the keys in which protocols differ."""
    mappings = [dict(protocol) for protocol in protocols]
    keys = {key for mapping in mappings for key in mapping}
    return {key for key in keys if len({comparison_key(mapping.get(key)) for mapping in mappings}) > 1}


def _configured_protocol(settings: Mapping[str, Any], over: Collection[str]) -> Protocol:
    return tuple(
        sorted(
            (key, comparison_key(value)) for key, value in settings.items() if _is_configured(key) and key not in over
        )
    )


def _is_configured(key: str) -> bool:
    """Return whether a key of the config is part of the protocol."""
    return (key.startswith("data.") and not key.startswith(TRAINING_KEYS)) or key in EVALUATION_KEYS


def _recorded_protocol(run: Run, over: Collection[str]) -> Protocol:
    selection, test = run.record.get("selection"), run.record.get("test")
    selection = selection if isinstance(selection, dict) else {}
    pairs = {
        "weights": selection.get("weights"),
        "chosen by": selection.get("by"),
        "validation images": None if run.settings.get("data.folds") else selection.get("val_samples"),
        "test images": test.get("samples") if isinstance(test, dict) else None,
    }
    averaged = {key for key in over if _is_configured(key)} - {FOLD}
    left_out = {
        "validation images": bool(averaged),
        "test images": bool(averaged - VALIDATION_KEYS),
    }
    return tuple((name, comparison_key(value)) for name, value in pairs.items() if not left_out.get(name))
