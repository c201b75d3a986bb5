"""The lines that a run logs at its start: what is trained on what, where, and from where."""

import logging
from collections.abc import Sequence
from typing import Any

from resnet_cli.config.run_config import DEFAULT_LOSS
from resnet_cli.config.selection import select_by_of
from resnet_cli.distributed.options import options_of
from resnet_cli.models.layers.regularisers import has_random_layers
from resnet_cli.session.data_checks import log_classes
from resnet_cli.session.prepare import PreparedRun
from resnet_cli.session.resolution import describe_resolution
from resnet_cli.session.shared_start import uses_ranks
from resnet_cli.session.teacher import format_teacher
from resnet_cli.session.unused_options import RunFacts, unused_options

logger = logging.getLogger("resnet_cli")

FINETUNE = "experiment=finetune"


def log_summary(prepared: PreparedRun, record: dict[str, Any]) -> None:
    """Log the model, the data, the device and the folder of a run that is about to start."""
    config, loaders = prepared.config, prepared.loaders
    counts, size = loaders.counts, "x".join(map(str, loaders.in_size))
    logger.info("model   %s, %s parameters", _class_name(config.model), f"{record['parameters']:,}")
    logger.info(
        "data    %s: %s training, %s validation, %s test images of %s, %d classes",
        _class_name(config.data),
        *(f"{counts[split]:,}" for split in ("train", "val", "test")),
        size,
        len(loaders.class_names),
    )
    log_classes(loaders, config)
    if loaders.origins is not None:
        logger.info("splits  %s", loaders.origins.format())
    if loaders.has_label_sets:
        loss, select_by = _class_name(config.loss or DEFAULT_LOSS), select_by_of(config.stored())
        logger.info("labels  several per image: loss %s, the best epoch by %s", loss, select_by)
    if prepared.teacher is not None:
        logger.info("teacher %s", format_teacher(prepared.teacher))
    if prepared.trainer.stepper.resolution is not None:
        logger.info("sizes   %s", describe_resolution(prepared.trainer.stepper.resolution))
    seeds = "".join(f", {part} {seed}" for part, seed in config.own_seeds().items())
    together = f", {record['processes']} processes" if record.get("processes", 1) > 1 else ""
    logger.info("device  %s, %s%s, seed %d%s", record["device"], record["precision"], together, config.seed, seeds)
    logger.info("folder  %s", prepared.run.path)
    for key, path in prepared.paths.items():
        logger.info("%s has moved to %s", key, path)
    if prepared.start.description != "scratch":
        logger.info("from    %s", prepared.start.description)
    if prepared.start.weights.line:
        logger.info("weights %s", prepared.start.weights.line)
    named_before = (record.get("paths") or {}).get("init_from", {}).get("value")
    if prepared.start.file and config.init_from and (config.resume != "auto" or config.init_from != named_before):
        own = prepared.start.file.name
        logger.info("init_from: %s is not used, the run continues from its own %s", config.init_from, own)


def further_warnings(prepared: PreparedRun, overrides: Sequence[str], *, in_sweep: bool = False) -> list[str]:
    """Return lines about options that do not do what the user may expect.

    Args:
        prepared: The run.
        overrides: The overrides that were typed.
        in_sweep: The run is a job of a sweep.
    """
    lines = unused_options(prepared.config.stored(), overrides, _facts(prepared, in_sweep=in_sweep))
    if FINETUNE in overrides and prepared.start.is_scratch and not prepared.start.weights.line:
        lines.append(
            f"{FINETUNE}: the weights are random; init_from=RUN or model.weights=NAME starts from trained ones"
        )
    return lines


def _facts(prepared: PreparedRun, *, in_sweep: bool) -> RunFacts:
    config, trainer = prepared.config, prepared.trainer
    return RunFacts(
        has_validation=prepared.loaders.val is not None or trainer.overfit_batches is not None,
        has_ranks=uses_ranks(options_of(config.trainer), trainer.ranks),
        is_job_of_sweep=in_sweep,
        is_resumed=config.resume is not None,
        is_random=(
            config.data.get("augment", {}) is not None
            or config.trainer.get("log_sharpness") is not None
            or not str(config.model["_target_"]).startswith("resnet_cli.")
            or has_random_layers(trainer.model)
            or trainer.stepper.draws_outside_torch
        ),
    )


def _class_name(node: Any) -> str:
    return str(node["_target_"]).rsplit(".", 1)[-1]
