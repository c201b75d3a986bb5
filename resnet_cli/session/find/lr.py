"""`find=lr`: a range test of the learning rate, its picture, and the override that it suggests."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.data import Loaders
from resnet_cli.errors import DivergedError, InputError
from resnet_cli.plots.lr_range import draw_lr_range
from resnet_cli.runs.folder import RunDir
from resnet_cli.session import build
from resnet_cli.session.context import RunContext
from resnet_cli.session.prepare import PreparedRun, isolated_compiler, prepare
from resnet_cli.training.lr_range import FIRST_LR, LrSuggestion, run_range_test, suggest_lr
from resnet_cli.training.step import base_lr

logger = logging.getLogger("resnet_cli")


def find_lr(config: RunConfig, run: RunDir, context: RunContext) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the test, log what it suggests and draw `find_lr.png`.

    Returns:
        What was found, and a row for each step.

    Raises:
        InputError: the config is wrong, or the optimizer has no learning rate to scale.
        DivergedError: the loss of the untrained network is not finite.
        StoppedError: a signal arrived.
    """
    with isolated_compiler():
        prepared = prepare(config, run, paths=context.paths, control=context.control)
        trainer, loaders = prepared.trainer, prepared.loaders
        chosen = build.get_argument(config.optimizer, "lr")
        base = float(chosen) if isinstance(chosen, int | float) else base_lr(trainer.state.optimizer)
        if not base > 0:
            raise InputError(f"optimizer.lr={base:g}: find=lr scales it, with that of every group; give it a value")
        points, diverged_at = run_range_test(trainer, loaders.train, base, control=context.control)
    if not points:
        raise DivergedError(f"find=lr: the loss is not finite at the first step, at a learning rate of {FIRST_LR:g}")
    found = suggest_lr(points, diverged_at)
    run.path.mkdir(parents=True, exist_ok=True)
    draw_lr_range(
        [p.lr for p in points], [p.loss for p in points], [p.smoothed for p in points], run.path / "find_lr.png",
        title=f"{config.name}: learning-rate range test", suggestion=found.lr, lowest=found.lowest.lr,
    )  # fmt: skip
    override, others = None, {}
    if found.lr is not None:
        scale = found.lr / base
        rates = {"lr": base, **_further_rates(config.optimizer)}
        override = " ".join(f"optimizer.{key}={rate * scale:.3g}" for key, rate in rates.items())
        others = _other_rates(prepared, list(rates.values()), scale)
    _log(prepared, found, len(points), override, others)
    facts = {
        "suggestion": found.lr, "override": override, "rule": found.rule, "lowest": asdict(found.lowest),
        "steepest": asdict(found.steepest), "diverged_at": diverged_at, "steps": len(points), "configured_lr": base,
        "groups": others, "batch_size": _images_of_step(loaders),
        "optimizer": type(trainer.state.optimizer).__name__, "device": str(trainer.device),
    }  # fmt: skip
    return facts, [asdict(point) for point in points]


def _further_rates(optimizer: Node) -> dict[str, float]:
    """Return the further learning rates of an optimizer by key: `head_lr`, and Muon's `sgd_lr`."""
    return {key: value for key, value in optimizer.items() if key.endswith("_lr") and isinstance(value, int | float)}


def _other_rates(prepared: PreparedRun, rates: Sequence[float], scale: float) -> dict[str, float]:
    """Return the scaled learning rates, by name, of the groups whose rate is none of `rates` times their `lr_scale`."""
    found = {}
    for number, group in enumerate(prepared.trainer.state.optimizer.param_groups):
        rate = float(group["initial_lr"])
        follows = any(math.isclose(rate, own * group.get("lr_scale", 1.0)) for own in rates)
        if not follows:
            found[str(group.get("name", number))] = rate * scale
    return found


def _log(
    prepared: PreparedRun, found: LrSuggestion, steps: int, override: str | None, others: Mapping[str, float]
) -> None:
    size = _images_of_step(prepared.loaders)
    end = f"the loss diverged at {found.diverged_at:.2g}" if found.diverged_at else "the loss did not diverge"
    logger.info("steps   %d on batches of %d, the learning rate rising from %g; %s", steps, size, FIRST_LR, end)
    logger.info("lowest  smoothed loss %.4f at %.2g, falling fastest at %.2g", *_lowest_and_steepest(found))
    if found.lr is None:
        logger.info("no suggestion: the loss did not fall; look at the picture, and at the data and the model")
        return
    logger.info("type    %s  (%s)", override, found.rule)
    if others:
        listed = ", ".join(f"{name} {lr:.2g}" for name, lr in others.items())
        logger.info("groups  with learning rates of their own, in the same proportion: %s", listed)


def _images_of_step(loaders: Loaders) -> int:
    """Return the images of a step: those of a batch, but at most all training images."""
    return min(loaders.train.batch_size, loaders.train.samples)


def _lowest_and_steepest(found: LrSuggestion) -> tuple[float, float, float]:
    return found.lowest.smoothed, found.lowest.lr, found.steepest.lr
