"""What resnet-info measures on networks, as plain data and a picture: gradients, signals, activations by depth."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_cli.analysis.activation_statistics import activation_statistics, plot_histograms
from resnet_cli.analysis.gradient_flow import GradientRow, chain_rows, draw_gradients, gradient_flow
from resnet_cli.analysis.shattered_gradients import plot_shattered, shattered_gradients
from resnet_cli.analysis.signal_propagation import plot_signal, signal_propagation
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.trust import targets
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import Composed
from resnet_cli.info.describe import Report, checkpoint_of_run, finite_or_none, is_chain
from resnet_cli.models import ScalarChain
from resnet_cli.models.initialisation.data_dependent import initialise_model_from_images
from resnet_cli.plots.panels import make_figure, save_figure
from resnet_cli.runs import checkpoints
from resnet_cli.session import build
from resnet_cli.session.data_revision import revision_of_run_at
from resnet_cli.session.losses import build_loss
from resnet_cli.session.trained import open_trained
from resnet_cli.training.evaluation import LossFunction

HISTOGRAMS = 6  # in a row, of a network

Series = dict[str, Sequence[Any]]  # rows by the label of the network


@dataclass(frozen=True)
class Analysis:
    """A measurement of one network, and the picture of several.

    Args:
        measure: (network, first training images, their labels, a function that returns the loss) -> rows, which are
            dataclasses of plain values.
        draw: (rows by label, file, title) draws them.
        title: What follows the model in the picture's title.
    """

    measure: Callable[[nn.Module, Tensor, Tensor, Callable[[], LossFunction]], Sequence[Any]]
    draw: Callable[..., None]
    title: str


def analyse(name: str, sides: Mapping[str, Composed], figure: Path) -> dict[str, list[Report]]:
    """Measure the network of one config, its counterpart and the run's weights, or the networks of several configs.

    Args:
        name: A key of `ANALYSES`.
        sides: Configs by their label; a single one is compared with its counterpart.
        figure: The file to which they are drawn.

    Returns:
        Rows by the label of the network; numbers that are not finite are None.

    Raises:
        InputError: Data or model cannot be built, or the network has nothing of the kind.
        MachineError: The figure cannot be written.
    """
    analysis = ANALYSES[name]
    first = next(iter(sides.values()))
    chained = [is_chain(side.settings["model"]) for side in sides.values()]
    if any(chained):
        if name != "gradients" or len(sides) > 1:
            raise InputError(f"--{name}: not for a scalar chain, which has --gradients only, without --compare")
        return _analyse_chain(first, figure)
    series: Series = {}
    for label, side in sides.items():
        for of, rows in _measure(analysis, side, alone=len(sides) == 1).items():
            series[of if len(sides) == 1 else label] = rows
    if not any(series.values()):
        raise InputError(f"--{name}: {first.model} has no layers that it could measure")
    models = dict.fromkeys(side.model for side in sides.values())
    analysis.draw(series, figure, title=f"{' against '.join(models)}: {analysis.title}")
    return {label: [_plain(row) for row in rows] for label, rows in series.items()}


def _plain(row: Any) -> Report:
    return dict(zip(vars(row), finite_or_none(vars(row).values()), strict=True))


def _analyse_chain(composed: Composed, figure: Path) -> dict[str, list[Report]]:
    node = composed.settings["model"]
    nodes = {_residual_label(node): node, **_twin(node)}
    chains: dict[str, ScalarChain] = {label: build.instantiate("model", own, {}) for label, own in nodes.items()}
    rows: Mapping[str, Sequence[GradientRow]] = {label: chain_rows(chain) for label, chain in chains.items()}
    draw_gradients(rows, figure, title=f"{composed.model}: gradients by depth")
    return {
        label: [
            {**_plain(row), "gradient": gradient}
            for row, gradient in zip(rows[label], finite_or_none(chain.weight_gradients()), strict=True)
        ]
        for label, chain in chains.items()
    }


def _residual_label(node: Node) -> str:
    """Return `residual` or `plain`, or `network` for models without the option `residual`."""
    residual = build.get_argument(node, "residual")
    return ("residual" if residual else "plain") if isinstance(residual, bool) else "network"


def _twin(node: Node) -> dict[str, Node]:
    """Return the same model with the opposite `residual`, by its label; empty for models without that option."""
    label = _residual_label(node)
    twin = {**node, "residual": label == "plain"}
    return {} if label == "network" else {_residual_label(twin): twin}


def _measure(analysis: Analysis, composed: Composed, *, alone: bool) -> Series:
    """Measure the initial network, and if it stands alone its counterpart and the run's weights, on the first batch.

    A counterpart that cannot be built is reported on standard error and left out.
    """
    config = RunConfig(**composed.settings)
    node, seed = config.model, config.seed_of("init")
    with revision_of_run_at(composed.run, config.data):
        loaders = build.loaders(
            config.data, device=torch.device("cpu"), seed=config.seed_of("order"),
            augment_seed=config.seed_of("augment"),
        )  # fmt: skip
    nets: dict[str, nn.Module] = {}
    for label, own in {_residual_label(node): node, **(_twin(node) if alone else {})}.items():
        try:
            nets[label] = _initialised_network(own, loaders, seed)
        except InputError as error:
            if not nets:
                raise
            problem = escape_control_characters(str(error.problems[0]))
            print(f"the {label} counterpart could not be built: {problem}", file=sys.stderr)
    if alone:
        nets |= _trained_network(composed, loaders)
    images_BCHW, labels_B = next(loaders.train.epoch(0))
    make_loss = partial(_make_loss, config, loaders)
    return {label: analysis.measure(net, images_BCHW, labels_B, make_loss) for label, net in nets.items()}


def _make_loss(config: RunConfig, loaders: Loaders) -> LossFunction:
    smoothing = build.get_argument(config.trainer, "label_smoothing") or 0.0
    return build_loss(config.loss, config.trainer, loaders) or partial(F.cross_entropy, label_smoothing=smoothing)


def _trained_network(composed: Composed, loaders: Loaders) -> dict[str, nn.Module]:
    """Return the network of the named run with its weights, by its label; empty if there is none for these data."""
    checkpoint = checkpoint_of_run(composed, warns=True)
    if checkpoint is None:
        return {}
    settings = composed.settings  # these were checked: every target in them is known or trusted
    trained = open_trained(str(checkpoint), device="cpu", trust=settings["trust"], named=targets(settings))
    net, data = trained.model, trained.data
    if (tuple(data["in_size"]), len(data["class_names"])) != (loaders.in_size, len(loaders.class_names)):
        print("the run's weights are left out: they are for another image size or other classes", file=sys.stderr)
        return {}
    return {f"{_residual_label(checkpoints.load(checkpoint)['config']['model'])}, trained": net}


def _initialised_network(node: Node, loaders: Loaders, seed: int) -> nn.Module:
    """Build the model and initialise it as a run would, including data-dependent initialisation."""
    net = build.model(node, in_size=loaders.in_size, num_classes=len(loaders.class_names), seed=seed)
    initialise_model_from_images(net, loaders.train.sample)
    return net


def _measure_gradients(
    net: nn.Module, images_BCHW: Tensor, labels_B: Tensor, make_loss: Callable[[], LossFunction]
) -> Sequence[Any]:
    return gradient_flow(net, images_BCHW, labels_B, make_loss())


def _measure_signal(net: nn.Module, images_BCHW: Tensor, *_: Any) -> Sequence[Any]:
    return signal_propagation(net, images_BCHW)


def _measure_shattered(net: nn.Module, images_BCHW: Tensor, *_: Any) -> Sequence[Any]:
    return shattered_gradients(net, images_BCHW.shape[1:])


def _measure_activations(net: nn.Module, images_BCHW: Tensor, *_: Any) -> Sequence[Any]:
    return activation_statistics(net, images_BCHW)


def _draw_signal(series: Series, path: Path, *, title: str) -> None:
    figure, axes = make_figure(title, 1, 3, size=(12, 4))
    plot_signal(axes, series)
    save_figure(figure, path)


def _draw_shattered(series: Series, path: Path, *, title: str) -> None:
    figure, axes = make_figure(title, 1, 1, size=(8, 4))
    plot_shattered(axes[0], series)
    save_figure(figure, path)


def _draw_activations(series: Series, path: Path, *, title: str) -> None:
    figure, axes = make_figure(title, len(series), HISTOGRAMS, size=(12, 0.6 + 2.1 * len(series)))
    for i, (label, rows) in enumerate(series.items()):
        plot_histograms(axes[i * HISTOGRAMS : (i + 1) * HISTOGRAMS], label, rows)
    save_figure(figure, path)


ANALYSES: Mapping[str, Analysis] = {
    "gradients": Analysis(_measure_gradients, draw_gradients, "gradients by depth"),
    "signal": Analysis(_measure_signal, _draw_signal, "signal propagation by block"),
    "shattered": Analysis(_measure_shattered, _draw_shattered, "how alike neighbouring gradients are"),
    "activations": Analysis(_measure_activations, _draw_activations, "activations on one batch"),
}
