"""The description of a network by resnet-info as plain data: layers and counts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from resnet_cli.analysis.layer_table import depth, layer_table, receptive_field
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import locate
from resnet_cli.data.classes import choose_classes
from resnet_cli.data.datasets.sizes import known_size
from resnet_cli.errors import InputError, describe_error
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.compose import Composed
from resnet_cli.models import ScalarChain
from resnet_cli.models.inspection import count_parameters
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import find_run
from resnet_cli.session import build
from resnet_cli.session.data_revision import revision_of_run_at
from resnet_cli.session.load import MAX_IMAGE_VALUES, best_or_last

Report = dict[str, Any]
MAX_RECORDED_CLASSES = 100_000


def describe(composed: Composed, recorded: Mapping[str, Any] | None = None) -> Report:
    """Describe the model of a config.

    Args:
        composed: The config.
        recorded: The data in the record of its run, for a run without a checkpoint.

    Returns:
        Totals of the network and a row for each layer; for a scalar chain, its weights and states.

    Raises:
        InputError: The model cannot be built, or does not run on images of the data's size.
    """
    node = composed.settings["model"]
    report: Report = {"model": composed.model, "target": node["_target_"]}
    if is_chain(node):
        return report | _describe_chain(node)
    return report | _describe_network(node, _input_size(composed, recorded))


def _describe_chain(node: Node) -> Report:
    chain: ScalarChain = build.instantiate("model", node, {})
    return {
        "parameters": count_parameters(chain),
        "weights": chain.weights.tolist(),
        "states": finite_or_none(chain.states()),
    }


def finite_or_none(values: Iterable[Any]) -> list[Any]:
    """Return the values with None in place of numbers that are not finite, which JSON does not have."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _describe_network(node: Node, sizes: tuple[tuple[int, int, int], int]) -> Report:
    in_size, classes = sizes
    net = _build_model(node, in_size, classes)
    try:
        rows = layer_table(net, in_size)
    except Exception as error:  # a user's class may raise anything
        size, reason = "x".join(map(str, in_size)), describe_error(error)
        raise InputError(f"model: {node['_target_']} does not run on images of {size}: {reason}") from error
    total = sum(row.multiply_adds for row in rows)
    return {
        "in_size": list(in_size),
        "classes": classes,
        "parameters": count_parameters(net),
        "multiply_adds": total,
        "depth": depth(net, in_size),
        "receptive_field": receptive_field(net, in_size),
        "layers": [{**vars(row), "share": 100 * row.multiply_adds / max(total, 1)} for row in rows],
    }


def is_chain(node: Node) -> bool:
    """Return whether a model is a `ScalarChain`, which takes no images."""
    target = locate(node["_target_"])
    return isinstance(target, type) and issubclass(target, ScalarChain)


def _input_size(composed: Composed, recorded: Mapping[str, Any] | None) -> tuple[tuple[int, int, int], int]:
    """Return `in_size` and the number of classes.

    The first of these that has them: the table of known data sets, with the classes that the config chooses, the
    checkpoint of the run unless its data are replaced, the run's record, the data themselves.
    """
    node = composed.settings["data"]
    options = CONFIG_GROUPS["data"].split_keys(node)[1]
    selection = {key: options[key] for key in ("classes", "merge") if options.get(key)}
    known = known_size(locate(node["_target_"]), node)
    if known is not None:
        return known[0], _count_selected(known[1], **selection)
    if composed.run is not None and not any(key.split(".")[0] in ("data", "experiment") for key in composed.keys):
        sizes = _sizes_of_run(composed, recorded or {})
        if sizes is not None:
            return sizes
    with revision_of_run_at(composed.run, node):
        dataset = build.dataset(node)
    if selection:
        dataset, _ = choose_classes(dataset, selection.get("classes"), selection.get("merge"))
    dataset.validate()
    return dataset.train.size, len(dataset.class_names)


def _count_selected(
    count: int, classes: Sequence[str | int] | None = None, merge: Mapping[str, Sequence[str | int]] | None = None
) -> int:
    """Return how many of `count` classes remain with `data.classes` and `data.merge`."""
    if classes:
        return len(classes)
    return count - sum(map(len, (merge or {}).values())) + len(merge or {})


def _sizes_of_run(composed: Composed, recorded: Mapping[str, Any]) -> tuple[tuple[int, int, int], int] | None:
    """Return `in_size` and the number of classes by the checkpoint of a run, else by its record; None without both."""
    size, classes = recorded.get("in_size"), recorded.get("classes")
    checkpoint = checkpoint_of_run(composed)
    try:
        data = checkpoints.load(checkpoint)["data"] if checkpoint is not None else None
    except InputError:
        if size is None or checkpoint == expand_home(str(composed.run)):
            raise
        data = None
    if data is not None:
        size, classes = data["in_size"], len(data["class_names"])
    if size is None or classes is None or not all(size):
        return None
    channels, height, width = size
    if data is None and (channels * height * width > MAX_IMAGE_VALUES or classes > MAX_RECORDED_CLASSES):
        return None  # a record may come from elsewhere, and a net for it may fill the memory
    return (channels, height, width), classes


def _build_model(node: Node, in_size: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the model as `build.model` does, but accept modules that do not return class scores, such as a block."""
    arguments = {"in_size": in_size, "in_channels": in_size[0], "out_classes": classes, "num_classes": classes}
    net = build.instantiate("model", node, arguments)
    if not isinstance(net, nn.Module):
        raise InputError(f"model._target_: {node['_target_']} returned a {type(net).__name__}, not a torch.nn.Module")
    return net


def checkpoint_of_run(composed: Composed, *, warns: bool = False) -> Path | None:
    """Return the named checkpoint, or that of the named run by `best_or_last`; None if there is none."""
    if composed.run is None:
        return None
    named, run = expand_home(composed.run), find_run(composed.run)
    file = named if named.is_file() else best_or_last(run, warns=warns)
    return file if file.is_file() else None
