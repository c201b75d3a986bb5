"""Make the plan of a command: compose what was typed, read the data, measure nets, apply the rules."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.durations import parse_seconds
from resnet_cli.config.run_config import Node
from resnet_cli.config.validation import Settings
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.data.images.cache import ArrayCache, find_cache_folder
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.planning.fingerprint import FORMAT, measure_fingerprint
from resnet_cli.planning.plan_file import format_lines, format_override, format_plan
from resnet_cli.planning.rules import Plan, make_plan, read_rules
from resnet_cli.planning.step_times import images_per_second
from resnet_cli.session import build
from resnet_cli.session.pretrained_files import has_published_weights
from resnet_cli.training.device import device_name, has_bf16_matrix_units, resolve_device

logger = logging.getLogger("resnet_cli")

PLANNED_SIDE = 64  # pixels of files of unlike sizes while they are looked at
CACHE = "~/.cache/resnet-cli/decoded"
LEAST_IMAGES = 2  # of each class
# Keys of the data that change neither which training images there are nor their pixels.
NOT_OF_IMAGES = ("batch_size", "eval_batch_size", "augment", "sampler", "workers", "worker_timeout", "backend", "cache")


@dataclass(frozen=True)
class MadePlan:
    """A plan and its files.

    Args:
        plan: What was chosen.
        text: The content of `plan.yaml`.
        fingerprint: The content of `fingerprint.json`.
    """

    plan: Plan
    text: str
    fingerprint: str

    @property
    def lines(self) -> list[str]:
        """The plan as lines for a terminal."""
        return format_lines(self.plan)


def plan_command(
    level: str, items: Sequence[str], typed: Mapping[str, Any], *, config_dir: str | None = None
) -> MadePlan:
    """Make the plan of a command.

    Args:
        level: quick, good or best.
        items: The overrides that were typed, without the plan's.
        typed: Keys that were typed, or that an experiment sets, with their values.
        config_dir: The folder of --config-dir.

    Raises:
        InputError: The config is wrong, the data cannot be read, or there is nothing to learn from them.
    """
    settings = compose_settings(items, config_dir=config_dir).settings
    trainer, data = settings["trainer"], settings["data"]
    can_resize = "image_size" in data and data["image_size"] is None
    node = {**data, "image_size": PLANNED_SIDE} if can_resize else data
    planner = _Measurer(settings, node, items, config_dir, can_resize=can_resize)
    facts = planner.fingerprint()
    _require_enough(facts)
    device = resolve_device(trainer.get("device", "auto"))
    machine = {
        "budget": parse_seconds(trainer.get("time_budget")),
        "can_resize": can_resize,
        "device": device.type,
        "weights": planner.published_weights(),
        "bf16": device.type == "cpu" and has_bf16_matrix_units(),
    }
    plan = make_plan(level, facts, typed, machine, planner.rate)
    content = {**facts, "rates": planner.rates, "device": planner.device, **machine}
    return MadePlan(plan, format_plan(plan, facts), json.dumps(content, indent=1) + "\n")


def _require_enough(facts: Mapping[str, Any]) -> None:
    """Raise an `InputError` if nothing can be learnt from the data."""
    if facts["median_class"] < LEAST_IMAGES:
        raise InputError(
            f"plan: {facts['images']} training images of {facts['classes']} classes are too few to train on; "
            "resnet-data shows them"
        )


class _Measurer:
    """Measures the data and the nets of a command, and remembers both in the cache of decoded images."""

    def __init__(
        self, settings: Settings, node: Node, items: Sequence[str], config_dir: str | None, *, can_resize: bool
    ) -> None:
        self.settings, self.node, self.can_resize = settings, node, can_resize
        self.items, self.config_dir = items, config_dir
        trainer = settings["trainer"]
        name = device_name(resolve_device(trainer.get("device", "auto")))
        self.device = f"{name}, {trainer.get('precision', 'auto')}"
        folder = node.get("cache", os.environ.get("RESNET_CLI_CACHE", CACHE))
        self.cache = ArrayCache(find_cache_folder(folder))
        self.facts: dict[str, Any] = {}
        self.key = ""

    @property
    def rates(self) -> dict[str, float]:
        """Images a second by net and size, of this device."""
        rates: dict[str, float] = self.facts.setdefault("_rates", {}).setdefault(self.device, {})
        return rates

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint, from the cache if the same images were looked at before."""
        split, chosen = build.partition(self.node).samples["train"]
        reading = {key: value for key, value in self.node.items() if key not in NOT_OF_IMAGES}
        identity = [FORMAT, fingerprint_split(split, chosen), reading]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:24]
        self.key = f"fingerprint-{digest}"
        known = self.cache.load_json(self.key)
        if known is None or known.get("format") != FORMAT:
            logger.info("plan    looking at the training images")
            known = measure_fingerprint(self.node)
            self.facts = known
            self._save()
        self.facts = known
        return {key: value for key, value in known.items() if not key.startswith("_")}

    def published_weights(self) -> list[str]:
        """Return the nets of the rules whose published weights are in the cache of `torch.hub`."""
        names = [net["weights"] for net in read_rules()["pretrained_nets"]]
        return [name for name in names if has_published_weights(name)]

    def rate(self, values: Mapping[str, Any], side: int, batch_size: int) -> float:
        """Return the images per second that a net trains, measured once on this device.

        Args:
            values: The options and keys of the net, and the option of its optimizer if that is not the typed one.
            side: Of the images, where they can be resized.
            batch_size: Images of a step of the run.
        """
        typed_optimizer = self.settings["optimizer"]["_target_"]
        name = f"{json.dumps({'optimizer': typed_optimizer, **values}, sort_keys=True)} {side}, {batch_size}"
        if name not in self.rates:
            typed = [item for item in self.items if item.partition("=")[0] not in values]
            net = [format_override(key, value) for key, value in values.items()]
            settings = compose_settings([*typed, *net], config_dir=self.config_dir).settings
            height, width = (side, side) if self.can_resize else (self.facts["height"], self.facts["width"])
            trainer, size = self.settings["trainer"], (self.facts["channels"], height, width)
            # Without groups, whose patterns may name parameters of another net.
            optimizer = {key: value for key, value in settings["optimizer"].items() if key != "groups"}
            rate = images_per_second(
                {"model": settings["model"], "optimizer": optimizer}, size, self.facts["classes"],
                batch_size=batch_size, device=trainer.get("device", "auto"),
                precision=trainer.get("precision", "auto"),
            )  # fmt: skip
            self.rates[name] = round(rate, 1)
            self._save()
        return self.rates[name]

    def _save(self) -> None:
        self.cache.save_json(self.key, self.facts)
