"""Make the plan of a command: compose what was typed, read the data, measure nets, apply the rules."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.data_keys import HOW_USED
from resnet_cli.config.durations import parse_seconds
from resnet_cli.config.messages import naming
from resnet_cli.config.run_config import Node
from resnet_cli.config.trust import targets
from resnet_cli.config.validation import Settings
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.data.images.cache import ArrayCache, find_cache_folder
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.distributed.options import options_of
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.planning.buildable import require_net
from resnet_cli.planning.fingerprint import FORMAT, measure_fingerprint, reads_all_images, validate_other_files
from resnet_cli.planning.machine import ELSEWHERE, Machine, find_machine
from resnet_cli.planning.plan_file import MadePlan, format_override, format_plan
from resnet_cli.planning.rules import make_plan, planned_keys, read_rules
from resnet_cli.planning.step_times import (
    MOST_SECONDS,
    PLANNING_RESERVE,
    images_per_second,
    parts_of_batch,
    teacher_images_per_second,
)
from resnet_cli.planning.typed import keys_of_other_classes, least_batch, start_of_weights, typed_values
from resnet_cli.runs.logs import quiet
from resnet_cli.session import build
from resnet_cli.session.dry_run import check_weights
from resnet_cli.session.pretrained_files import has_published_weights
from resnet_cli.session.refusals import require_foreseeable
from resnet_cli.session.shared_start import fixed_threads
from resnet_cli.session.trained import open_trained
from resnet_cli.training.device import has_bf16_matrix_units

logger = logging.getLogger("resnet_cli")

IN_ONE_PROCESS = "nets were timed in one process; how much faster trainer.processes={processes} is was not measured"
PLANNED_SIDE = 64  # side in pixels at which files of different sizes are measured
CACHE = "~/.cache/resnet-cli/decoded"
BATCH_SIZE = "data.batch_size"
RATE_LIFETIME = 7 * 24 * 3600  # seconds until nets are measured again: another program may have slowed them down


def plan_command(
    level: str, items: Sequence[str], *, config_dir: str | None = None, is_local: bool = True
) -> MadePlan:  # fmt: skip
    """Make the plan of a command.

    Args:
        level: quick, good or best.
        items: The overrides that were typed, without the plan's.
        config_dir: The folder of --config-dir.
        is_local: The command trains on this machine; a launcher may start the jobs of a sweep on others.

    Raises:
        InputError: The config is wrong, the data cannot be read, or they are too few to train on.
    """
    composed = compose_settings(items, config_dir=config_dir)
    settings = composed.settings
    typed = {**dict.fromkeys(keys_of_other_classes(settings, planned_keys())), **typed_values(composed)}
    if BATCH_SIZE in typed:
        typed[BATCH_SIZE] = build.batch_size(settings["data"])  # the default if the key was deleted
    budget = parse_seconds(settings["trainer"].get("time_budget"))
    if budget is not None:
        require_foreseeable(settings["trainer"])
    machine = find_machine(level, settings["trainer"], typed, is_local=is_local)
    for key in ("init_from", "teacher"):  # before nets are measured
        if settings.get(key) is not None:
            check_weights(key, settings[key])
    data = settings["data"]
    can_resize = "data.image_size" not in typed and "image_size" in data and data["image_size"] is None
    node = {**data, "image_size": PLANNED_SIDE} if can_resize else data
    planner = _Measurer(settings, node, items, config_dir, machine, can_resize=can_resize)
    began = monotonic()
    facts = planner.fingerprint()
    seconds = monotonic() - began
    planner.record_reading(seconds)
    _require_enough(facts)
    circumstances = {
        "budget": budget,
        "planning_seconds": round(seconds, 1) if seconds > PLANNING_RESERVE else 0.0,
        "can_resize": can_resize,
        "resize": data.get("resize") if can_resize or isinstance(data.get("image_size"), int) else None,
        "device": machine.device_type,
        "weights": planner.published_weights(),
        "bf16": machine.device_type == "cpu" and machine.chooses_precision and has_bf16_matrix_units(),
        "holds_out": planner.holds_out,
        "validates": planner.validates,
        "start": start_of_weights(settings),
        "net_class": settings["model"].get("_target_"),
        "stem": settings["model"].get("stem"),
        "least_batch": least_batch(settings),
        "class_weights": (settings.get("loss") or {}).get("class_weights"),
    }
    processes = options_of(settings["trainer"])
    with fixed_threads(processes):
        plan = make_plan(
            level, facts, typed, circumstances, planner.rate, planner.images_left, planner.accepts, planner.reading
        )  # fmt: skip
        measured = {"rates": planner.rates, "machine": machine.name}
    content = {**facts, **measured, **circumstances, "expected_epochs": plan.epochs}
    machine.free_memory()
    notes = [ELSEWHERE.format(level=level)] if not is_local else []
    notes += [IN_ONE_PROCESS.format(processes=processes.processes)] if processes.processes > 1 else []
    notes += machine.notes
    notes = notes if budget is not None else []  # nothing was timed
    return MadePlan(plan, format_plan(plan, facts), json.dumps(content, indent=1) + "\n", tuple(notes))


def _require_enough(facts: Mapping[str, Any]) -> None:
    """Raise an `InputError` if the data are too few to train on."""
    if facts["repeated_classes"] < (2 if facts["labels"] == "single" else 1):
        raise InputError(
            f"plan: too few to train on: {counted(facts['images'], 'training image')} of "
            f"{counted(facts['classes'], 'class')}; resnet-data shows them"
        )


class _Measurer:
    """Measures the data and the nets of a command, and remembers both in the cache of decoded images."""

    def __init__(
        self, settings: Settings, node: Node, items: Sequence[str], config_dir: str | None, machine: Machine,
        *, can_resize: bool,
    ) -> None:  # fmt: skip
        self.settings, self.node, self.can_resize = settings, node, can_resize
        self.items, self.config_dir, self.machine = items, config_dir, machine
        self.holds_out = self.validates = False  # see `make_plan`
        folder = node.get("cache", os.environ.get("RESNET_CLI_CACHE", CACHE))
        self.cache = ArrayCache(find_cache_folder(folder))
        self.facts: dict[str, Any] = {}
        self.key = ""
        self.rate_of_teacher: float | None = None
        self.has_read = False
        self.unread: dict[tuple[int, str | None], float] = {}

    @property
    def rates(self) -> dict[str, float]:
        """Images a second by net and size, on this machine; old measurements are dropped."""
        measured = self.facts.setdefault("_rates", {})
        if time.time() - measured.get(self.machine.name, {}).get("since", 0) > RATE_LIFETIME:
            measured[self.machine.name] = {"since": time.time(), "rates": {}}
        rates: dict[str, float] = measured[self.machine.name]["rates"]
        return rates

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint, from the cache if the same images were looked at before."""
        with quiet():  # the run logs its notices when it splits the data again
            parts = build.partition(self.node)
            validate_other_files(parts)
        split, chosen = parts.samples["train"]
        is_given = any(self.node.get(key) is not None for key in ("folds", "splits"))
        self.validates = "val" in parts.samples
        self.holds_out = not is_given and self.validates and parts.samples["val"].split is split
        reading = {key: value for key, value in self.node.items() if key not in HOW_USED}
        reads_all = reads_all_images(self.node, parts, self.machine.device)  # else the facts may be those of a sample
        identity = [FORMAT, fingerprint_split(split, chosen), reading, *([] if reads_all else ["sample"])]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:24]
        self.key = f"fingerprint-{digest}"
        known = self.cache.load_json(self.key)
        if known is None or known.get("format") != FORMAT or known.get("damaged"):  # other options may read the damaged
            logger.info("plan    looking at the training images")
            known = measure_fingerprint(self.node, parts, self.machine.device)
            self.facts, self.has_read = known, True
            self._save()
        self.facts = known
        return {key: value for key, value in known.items() if not key.startswith("_")}

    def record_reading(self, seconds: float) -> None:
        """Remember how long looking at the images took, unless their fingerprint was in the cache."""
        if self.has_read:
            self.facts["_reading"] = round(seconds, 1)
            self._save()

    def reading(self, side: int, resize: str | None) -> float:
        """Return the seconds that the run spends on reading the images anew: at a size that is not in the cache.

        Args:
            side: Side of the images of the run, where they can be resized.
            resize: How files become squares; None where they are not changed.
        """
        seconds = float(self.facts.get("_reading", 0.0))
        is_same = (not self.can_resize or side == PLANNED_SIDE) and resize in (None, self.node.get("resize"))
        if (is_same and self.cache.folder is not None) or seconds <= PLANNING_RESERVE:
            return 0.0
        if (side, resize) not in self.unread:
            changes: dict[str, Any] = {"image_size": side} if self.can_resize else {}
            changes |= {} if resize is None else {"resize": resize}
            with quiet():
                images = build.partition({**self.node, **changes}).samples["train"].split.images
            is_there = not isinstance(images, LazyImages) or images.cached_rows() is not None
            self.unread[side, resize] = 0.0 if is_there else seconds
        return self.unread[side, resize]

    def images_left(self, val_fraction: float) -> int:
        """Return the number of training images if another fraction is held out."""
        with quiet():
            return len(build.partition({**self.node, "val_fraction": val_fraction}).train_indices)

    def published_weights(self) -> list[str]:
        """Return the nets of the rules whose published weights are in the cache of `torch.hub`."""
        names = [net["weights"] for net in read_rules()["pretrained_nets"]]
        return [name for name in names if has_published_weights(name)]

    def rate(self, values: Mapping[str, Any], side: int, batch_size: int) -> float:
        """Return the images per second that a net trains, measured once on this device.

        Args:
            values: The options and keys of the net, and the option of its optimizer if that is not the typed one.
            side: Side of the images, where they can be resized.
            batch_size: Images in a step of the run.
        """
        settings = self._compose(values)
        net = {"model": settings["model"], "optimizer": settings["optimizer"]["_target_"]}
        parts = parts_of_batch(self.settings["trainer"], self.machine.device)
        name = f"{json.dumps(net, sort_keys=True)} {side}, {batch_size}" + (f" in {parts} parts" if parts > 1 else "")
        rates = self.rates
        if not rates.get(name):  # 0 is measured again: another process may have taken the memory
            budget = parse_seconds(self.settings["trainer"].get("time_budget"))
            # Without groups, whose patterns may name parameters of another net.
            optimizer = {key: value for key, value in settings["optimizer"].items() if key != "groups"}
            nodes: dict[str, Node] = {
                "model": settings["model"], "optimizer": optimizer, "trainer": settings["trainer"]
            }  # fmt: skip
            with self.machine.switches():
                rate = images_per_second(
                    nodes, self._in_size(side), self.facts["classes"],
                    batch_size=batch_size, device=self.machine.device, precision=self.machine.precision,
                    seconds=MOST_SECONDS if budget is None else min(MOST_SECONDS, budget / 100),
                )  # fmt: skip
            rates[name] = round(rate, 1)
            self._save()
        if self.settings.get("teacher") is None:
            return rates[name]
        seconds = [1 / rate if rate else inf for rate in (rates[name], self._teacher_rate(batch_size))]
        return 1 / sum(seconds)

    def _in_size(self, side: int) -> tuple[int, int, int]:
        """Return (C, H, W) of the images, where they can be resized to this side."""
        height, width = (side, side) if self.can_resize else (self.facts["height"], self.facts["width"])
        return self.facts["channels"], height, width

    def _teacher_rate(self, batch_size: int) -> float:
        """Return the images per second for which the run's teacher predicts classes, at the size that it takes."""
        if self.rate_of_teacher is None:
            name, model = str(self.settings["teacher"]), {"model": self.settings["model"]}
            with naming("teacher", name):
                trust = bool(self.settings.get("trust"))
                trained = open_trained(name, device=str(self.machine.device), trust=trust, named=targets(model))
            with self.machine.switches():
                self.rate_of_teacher = teacher_images_per_second(
                    trained.model, trained.in_size, batch_size=batch_size, device=self.machine.device,
                    precision=self.machine.precision,
                )  # fmt: skip
        return self.rate_of_teacher

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Return whether the options of groups in `values` accept the keys of these groups that were typed."""
        try:
            model = self._compose(values)["model"]
            if "model" in values and "model.weights" not in values:
                require_net(model, self._in_size(PLANNED_SIDE), self.facts["classes"])
        except Exception as error:  # an error of Hydra for a deleted key that is not there
            if not isinstance(as_user_error(error), InputError):
                raise
            return False
        return True

    def _compose(self, values: Mapping[str, Any]) -> Settings:
        """Return the config with these values in place of those that were typed."""
        typed = [item for item in self.items if item.partition("=")[0] not in values]
        net = [format_override(key, value) for key, value in values.items()]
        return compose_settings([*typed, *net], config_dir=self.config_dir).settings

    def _save(self) -> None:
        self.cache.save_json(self.key, self.facts)
