"""The content of resnet-info as plain data: layers, counts, and gradient norms by depth."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnet_cli.analysis.gradient_flow import GradientRow, chain_rows, draw_gradients, gradient_flow
from resnet_cli.analysis.layer_table import depth, layer_table, receptive_field
from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import locate
from resnet_cli.config.trust import targets
from resnet_cli.data import Loaders
from resnet_cli.data.datasets.sizes import known_size
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import Composed
from resnet_cli.models import ScalarChain
from resnet_cli.models.initialisation.data_dependent import show_images
from resnet_cli.models.inspection import count_parameters
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import find_run
from resnet_cli.session import build, load

Report = dict[str, Any]


def describe(composed: Composed) -> Report:
    """Describe the model: figures of the whole network and a row for each layer; the weights of a scalar chain.

    Raises:
        InputError: the model cannot be built, or does not run on images of the data's size.
    """
    node = composed.settings["model"]
    report: Report = {"model": composed.model, "target": node["_target_"]}
    if _is_chain(node):
        chain = build.instantiate("model", node, {})
        return {
            **report,
            "parameters": count_parameters(chain),
            "weights": chain.weights.tolist(),
            "states": chain.states(),
        }
    in_size, classes = _input_size(composed)
    net = _build_model(node, in_size, classes)
    try:
        rows = layer_table(net, in_size)
    except (RuntimeError, ValueError, TypeError) as error:
        size = "x".join(map(str, in_size))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"model: {node['_target_']} does not run on images of {size}: {reason}") from error
    total = sum(row.multiply_adds for row in rows)
    return {
        **report,
        "in_size": list(in_size),
        "classes": classes,
        "parameters": count_parameters(net),
        "multiply_adds": total,
        "depth": depth(net, in_size),
        "receptive_field": receptive_field(net, in_size),
        "layers": [{**vars(row), "share": 100 * row.multiply_adds / max(total, 1)} for row in rows],
    }


def gradients(composed: Composed, figure: Path) -> dict[str, list[Report]]:
    """Rows of the gradients of the network, of its twin, and of the run's weights, by what they are called.

    Args:
        composed: The config.
        figure: Where they are drawn.

    Raises:
        InputError: data or model cannot be built.
        MachineError: the figure cannot be written.
    """
    node = composed.settings["model"]
    nodes = {_residual_label(node): node, **_twin(node)}
    if _is_chain(node):
        chains: dict[str, ScalarChain] = {label: build.instantiate("model", own, {}) for label, own in nodes.items()}
        series = {label: chain_rows(chain) for label, chain in chains.items()}
        signed = {label: [{"gradient": g} for g in chain.weight_gradients()] for label, chain in chains.items()}
    else:
        series = _gradient_flows(composed, nodes)
        signed = {label: [{} for _ in rows] for label, rows in series.items()}
    draw_gradients(series, figure, title=f"{composed.model}: gradients by depth")
    return {
        label: [
            {**vars(row), "norm": row.norm if math.isfinite(row.norm) else None, **sign}
            for row, sign in zip(rows, signed[label], strict=True)
        ]
        for label, rows in series.items()
    }


def _is_chain(node: Node) -> bool:
    target = locate(node["_target_"])
    return isinstance(target, type) and issubclass(target, ScalarChain)


def _input_size(composed: Composed) -> tuple[tuple[int, int, int], int]:
    """Return `in_size` and the number of classes: as known, as the run recorded them, or from the data once opened."""
    node = composed.settings["data"]
    known = known_size(locate(node["_target_"]), node)
    if known is not None:
        return known
    weights = _checkpoint_of_run(composed)
    if weights is not None and not any(key.split(".")[0] in ("data", "experiment") for key in composed.keys):
        noted = checkpoints.load(weights)["data"]
        channels, height, width = noted["in_size"]
        return (channels, height, width), len(noted["class_names"])
    dataset = build.dataset(node)
    dataset.validate()
    return dataset.train.size, len(dataset.class_names)


def _build_model(node: Node, in_size: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the model as `build.model` does, but without requiring a classifier of the data."""
    given = {"in_size": in_size, "in_channels": in_size[0], "out_classes": classes, "num_classes": classes}
    net = build.instantiate("model", node, given)
    if not isinstance(net, nn.Module):
        raise InputError(f"model._target_: {node['_target_']} returned a {type(net).__name__}, not a torch.nn.Module")
    return net


def _checkpoint_of_run(composed: Composed) -> Path | None:
    """Return the checkpoint of the run that was named, if it has one."""
    if composed.run is None:
        return None
    named, run = Path(composed.run).expanduser(), find_run(composed.run)
    return next((file for file in ([named] if named.is_file() else [run.best, run.last]) if file.is_file()), None)


def _residual_label(node: Node) -> str:
    residual = build.get_argument(node, "residual")
    return ("residual" if residual else "plain") if isinstance(residual, bool) else "network"


def _twin(node: Node) -> dict[str, Node]:
    """Return the same model without or with its shortcuts, if it has the choice, by its label."""
    kind = _residual_label(node)
    twin = {**node, "residual": kind == "plain"}
    return {} if kind == "network" else {_residual_label(twin): twin}


def _gradient_flows(composed: Composed, nodes: Mapping[str, Node]) -> dict[str, list[GradientRow]]:
    """Rows on the first training batch, by what the network is called: as initialised, and with the run's weights."""
    seed = composed.settings["seed"]
    loaders = build.loaders(composed.settings["data"], device=torch.device("cpu"), seed=seed)
    nets: dict[str, nn.Module] = {}
    for label, node in nodes.items():
        try:
            nets[label] = _initialised_network(node, loaders, seed)
        except InputError as error:
            if not nets:
                raise
            print(f"no {label} twin: {error.problems[0]}", file=sys.stderr)
    nets |= _trained_network(composed, loaders)
    batches = loaders.train.epoch(0)
    images_BCHW, labels_B = next(batches)
    return {label: gradient_flow(net, images_BCHW, labels_B) for label, net in nets.items()}


def _trained_network(composed: Composed, loaders: Loaders) -> dict[str, nn.Module]:
    """Return the run's network with its weights, if a run was named and has some, by its label."""
    weights = _checkpoint_of_run(composed)
    if weights is None:
        return {}
    settings = composed.settings  # checked, so what it names is known or trusted
    net, data = load.open_run(str(weights), trust=settings["trust"], named=targets(settings))
    if (tuple(data["in_size"]), len(data["class_names"])) != (loaders.in_size, len(loaders.class_names)):
        print("the run's weights are for images of another size or other classes: left out", file=sys.stderr)
        return {}
    return {f"{_residual_label(checkpoints.load(weights)['config']['model'])}, trained": net}


def _initialised_network(node: Node, loaders: Loaders, seed: int) -> nn.Module:
    """Initialise the model as a run would."""
    net = build.model(node, in_size=loaders.in_size, num_classes=len(loaders.class_names), seed=seed)
    show_images(net, loaders.train.sample)
    return net
