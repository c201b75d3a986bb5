"""The version of a data set of the Hugging Face hub that is read again for a run: to resume, evaluate or inspect it.

The config of most runs names no version, and `run.json` has the one that was the newest then.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.stored import read
from resnet_cli.data.preferred_revision import preferring_revision
from resnet_cli.runs.folder import find_run, find_run_of


def find_revision(config: RunConfig, stored: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """Return the version of the data that a run was trained on which is resumed or reproduced; None if it is new.

    Args:
        config: The config.
        stored: The config of the run as it was trained last.
        record: The record of the run; empty for a new run.

    Raises:
        InputError: The run to reproduce cannot be read.
    """
    if config.reproduce is not None:
        source = find_run_of("reproduce", config.reproduce)
        return revision_of(config.data, read(source.config), source.read_record())
    return revision_of(config.data, stored, record)


@contextmanager
def recorded_revision(node: Node, settings: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[None]:
    """Within the context, read the version of the data that a run was trained on; see `revision_of`."""
    with preferring_revision(revision_of(node, settings, record)):
        yield


@contextmanager
def revision_of_run_at(path: str | None, node: Node) -> Iterator[None]:
    """Within the context, read the version of the data that the run at a path was trained on; see `revision_of`.

    Args:
        path: The run folder, or a checkpoint in it; None for no run.
        node: The node of group `data` to read.

    Raises:
        InputError: The run cannot be read.
    """
    run = None if path is None else find_run(path)
    with preferring_revision(None if run is None else revision_of(node, read(run.config), run.read_record())):
        yield


def revision_of(node: Node, settings: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """Return the version of the data that a run was trained on; None if a node names other data, or another version.

    Args:
        node: The node of group `data` to read.
        settings: The config of the run.
        record: The record of the run.
    """
    own, revision = settings.get("data"), record.get("data_revision")
    if not isinstance(own, Mapping) or not isinstance(revision, str):
        return None
    return revision if all(node.get(key) == own.get(key) for key in ("_target_", "name", "revision")) else None
