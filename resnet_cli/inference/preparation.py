"""The settings by which a run's images are prepared for its net, checked before they are used."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from resnet_cli.config.data_keys import PREPARATION
from resnet_cli.config.messages import Problem
from resnet_cli.config.signatures import Parameter, signature
from resnet_cli.config.trust import check_names
from resnet_cli.config.values import format_value, is_valid
from resnet_cli.data.images.decode import Decoding
from resnet_cli.errors import InputError
from resnet_cli.session.trained import TrainedRun
from resnet_cli.session.trusted_kinds import check_kinds, check_node

# Keys of group `data` that determine how images are prepared, except for the size, which the checkpoint stores; and the
# callables whose signatures give their types.
KEYS = (*(key for key in PREPARATION if key != "image_size"), "value_range")
READERS = ("resnet_cli.data.make_loaders", "resnet_cli.data.image_folder")
DECODING_ARGUMENTS = {"background": "background", "range": "value_range", "value_range": "value_range"}  # by key

logger = logging.getLogger("resnet_cli")


def preparation_node(run: TrainedRun) -> Mapping[str, Any]:
    """Return the part of a run's node of group `data`, or of its `other_data`, that determines how images are prepared.

    Augmentation does not: it may be of a class that is not allowed. If the rest does not pass its check either, a
    warning says so, and the result has valid settings of `KEYS` alone, with `_target_` only if that is allowed.
    """
    stored = run.settings.get("data") if run.other_data is None else run.other_data
    if not isinstance(stored, Mapping):
        return {}
    node: dict[str, Any] = {key: value for key, value in stored.items() if key != "augment"}
    try:
        check_node("data", node, trust=run.trust, named=run.named)
    except InputError as error:
        kept = _valid_settings(node)
        by = ", ".join(f"data.{key}={format_value(value)}" for key, value in kept.items()) or "the defaults"
        logger.warning("%s: images are prepared by %s alone: %s", run.file, by, _reason(error))
        return {**_allowed_target(node), **kept}
    return node


def _valid_settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `KEYS` that a node has, except invalid ones."""
    known = {name: parameter for reader in READERS for name, parameter in signature(reader).parameters.items()}
    known["value_range"] = known["range"]
    given = {key: node[key] for key in KEYS if node.get(key) is not None}
    return {key: value for key, value in given.items() if _is_usable(key, value, known[key])}


def _is_usable(key: str, value: Any, parameter: Parameter) -> bool:
    if not is_valid(value, parameter.annotation):
        return False
    arguments: dict[str, Any] = {DECODING_ARGUMENTS[key]: value} if key in DECODING_ARGUMENTS else {}
    with suppress(InputError):
        Decoding(**arguments).validate()
        return True
    return False


def _allowed_target(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node's `_target_` if it is a data set of this package, whose defaults may be looked up."""
    target = {"_target_": node.get("_target_")}
    with suppress(InputError):
        check_names({"data": target}, {})
        check_kinds({"data": target}, {})
        return target
    return {}


def _reason(error: InputError) -> str:
    """Return why a node is not used as it is, in one line."""
    problem = error.details[0]
    if isinstance(problem, Problem) and problem.kind == "untrusted":
        return f"{problem.key}={problem.given} is not imported without --trust (trust=True of load_run)"
    return error.problems[0]
