"""Turn facts into a plan, by the tables of `rules.yaml`."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config.counts import counted, format_number
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.errors import InputError
from resnet_cli.planning.candidates import Accepts, Candidates
from resnet_cli.planning.choices import Choice, Plan
from resnet_cli.planning.conditions import holds
from resnet_cli.planning.step_times import passes_in_budget
from resnet_cli.planning.typed import is_typed
from resnet_cli.planning.wording import Wording, about_epochs, describe_scaling

Facts = Mapping[str, Any]
# Images a second of a net, from what it sets, the side of images, and the images of a step.
Rate = Callable[[Mapping[str, Any], int, int], float]
# Seconds that a run spends on reading the images anew, from the side of images and how files become squares.
Reading = Callable[[int, str | None], float]

RULES = Path(__file__).with_name("rules.yaml")
MEASURED_BEFORE = "the rates were measured on this machine before the plan was made"
MUON = "muon"
ENDS_OF_EPOCHS = ("trainer.steps_per_epoch", "trainer.max_batches")  # keys by which epochs end before the data
WORDING = Wording()


@cache
def read_rules() -> Mapping[str, Any]:
    """Return the content of `rules.yaml`."""
    content: Mapping[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return content


@cache
def planned_keys() -> frozenset[str]:
    """Return the keys that plans choose, without those of nets."""
    content = read_rules()
    rules = [content["validation"], content["batch_size"], content["resize"], *content["rules"]]
    return frozenset([EPOCHS, *(key for rule in rules for case in rule["cases"] for key in case["set"])])


def make_plan(
    level: str, fingerprint: Facts, typed: Mapping[str, Any], machine: Facts, rate: Rate,
    images_left: Callable[[float], int], accepts: Accepts = lambda net: True,
    reading: Reading = lambda side, resize: 0.0,
) -> Plan:  # fmt: skip
    """Choose every value that the rules know and the user has not typed.

    Args:
        level: quick, good or best.
        fingerprint: See `resnet_cli.planning.fingerprint`.
        typed: Keys that the user typed, or that an experiment sets, with their values; groups with their options.
        machine: The circumstances: `device`, `bf16`, `budget` in seconds or None, `planning_seconds` (of the budget,
            which reading the images took; 0 if the reserve for planning covers them), `can_resize` (whether a side may
            be chosen), `resize` (how files become squares: `crop`, `squash`, `pad`, or None), `weights` (the nets of
            torchvision whose published weights are on this machine), `validates` (whether there are validation images),
            `holds_out` (whether they are held out of the training images), `start` (where the weights of a net that
            the user chose come from: `published`, `run`, or None), `class_weights` (those of the loss), `least_batch`
            (images that a batch needs for other keys), `net_class` and `stem` (of the net in the config).
        rate: Images a second that a net trains.
        images_left: Returns the number of training images if this fraction is held out in place of the config's.
        accepts: Returns whether the options of groups accept the keys of these groups that were typed.
        reading: Seconds of the budget that reading the images takes again in the run, if their size is another one.
    """
    facts = {**fingerprint, **machine, "level": level}
    return _Planner(facts, typed, rate, images_left, accepts, reading).plan()


class _Planner:
    def __init__(
        self, facts: dict[str, Any], typed: Mapping[str, Any], rate: Rate, images_left: Callable[[float], int],
        accepts: Accepts, reading: Reading,
    ) -> None:  # fmt: skip
        self.rules = read_rules()
        self.level, self.facts, self.typed = facts["level"], facts, typed
        self.rate, self.images_left, self.accepts, self.reading = rate, images_left, accepts, reading
        self.facts["net_optimizer"] = None
        self.optimizer_is_typed = any(key.partition(".")[0] == "optimizer" for key in typed)
        self.facts["cropped_percent"] = round(100 - 100 / facts["aspect"])
        self.facts["duplicates_percent"] = round(100 * facts["duplicates"])
        self.candidates = Candidates(self.rules, facts, typed, accepts)
        self.choices: list[Choice] = []
        self.skipped: list[str] = []

    def plan(self) -> Plan:
        self._hold_out()
        row = next(row for row in self.rules["passes"] if holds(row.get("when", {}), self.facts))
        self.facts["passes"] = row[self.level]
        self._choose_batch_size()
        self._count_step_images()
        self.epochs_are_typed = isinstance(self.typed.get(EPOCHS), int | float)
        if self.epochs_are_typed:
            epochs, per_pass = self.typed[EPOCHS], self._epochs_per_pass
            self.facts["passes"] = epochs if per_pass == 1 else round(epochs / per_pass, 1)
        self._apply(self.rules["resize"])
        self._choose_net()
        for rule in self.rules["rules"]:
            self._apply(rule)
        warnings = [
            WORDING.format(row["text"], **self.facts)
            for row in self.rules["warnings"]
            if holds(row["when"], self.facts)
        ]
        epochs = None if self.facts["budget"] is None else self.facts["passes"]
        return Plan(
            self.level, self.facts["images"], tuple(self.choices), tuple(self.skipped), tuple(warnings), epochs
        )  # fmt: skip

    def _hold_out(self) -> None:
        """Choose the fraction of images for validation, and count those that remain."""
        self._apply(self.rules["validation"])
        for val_fraction in [choice.value for choice in self.choices if choice.key == "data.val_fraction"]:
            self.facts["images"] = self.images_left(val_fraction)
        self.facts["steps_at_32"] = -(-self.facts["images"] // 32)

    def _choose_batch_size(self) -> None:
        """Choose the batch size by its rule, or the first power of two that is large enough for what was typed."""
        before, least = len(self.choices), self.facts["least_batch"]
        self._apply(self.rules["batch_size"])
        if len(self.choices) > before and self.facts["batch_size"] < least:
            self.choices.pop()
            why = f"the micro-batches, processes or repeats that you set need at least {counted(least, 'image')}"
            self._choose({"data.batch_size": 1 << (least - 1).bit_length()}, why, "not measured")

    def _count_step_images(self) -> None:
        """Count the images of a step: a batch, but at most all training images."""
        batch_size, images = self.facts["batch_size"], self.facts["images"]
        self.facts["step_images"] = min(batch_size, images)
        self.facts["step"] = f"{images:,} (all training images)" if images < batch_size else f"{batch_size:,}"

    @property
    def _epochs_per_pass(self) -> float:
        """How many epochs a pass over the training images takes: 1, unless epochs are typed to end before."""
        batches = max(1, -(-self.facts["images"] // self.facts["batch_size"]))
        typed = [self.typed.get(key) for key in ENDS_OF_EPOCHS]
        return float(batches / min([batches, *(steps for steps in typed if isinstance(steps, int))]))

    def _apply(self, rule: Mapping[str, Any]) -> None:
        """Choose the values of the first case of a rule that holds, if its schedule has the `schedule.*` keys typed."""
        has_keys = "schedule" not in self.typed and any(key.startswith("schedule.") for key in self.typed)
        for case in rule["cases"]:
            values = case["set"]
            schedule = {"schedule": values["schedule"]} if has_keys and "schedule" in values else {}
            if holds(case.get("when", {}), self.facts) and (not schedule or self.accepts(schedule)):
                self._choose(values, case["because"], rule["evidence"])
                return

    def _choose(self, values: Mapping[str, Any], because: str | Mapping[str, str], evidence: str) -> None:
        """Choose the values that the user has not typed, and make the values in effect facts."""
        reasons = dict.fromkeys(values, because) if isinstance(because, str) else because
        reasons = {key: WORDING.format(reasons[key], **self.facts) for key in values}
        for key, planned in values.items():
            value = self._scaled(**planned) if isinstance(planned, Mapping) else planned
            if is_typed(key, self.typed):
                self.skipped.append(key)
            else:
                self.choices.append(Choice(key, value, reasons[key], evidence))
            self.facts[key.rpartition(".")[2]] = self.typed.get(key, value)

    def _scaled(self, value: float, at: int, power: float, up_to: int) -> float:
        """Scale a value for steps of `at` images to the images of a step, `up_to` at most; rounded to two digits."""
        images = max(1, min(self.facts["step_images"], up_to))
        return float(f"{value * (images / at) ** power:.2g}")

    def _choose_net(self) -> None:
        """Choose the side of the images, the net and the number of epochs."""
        budget, images = self.facts["budget"], self.facts["images"]
        is_given = "model" in self.typed or self.facts["start"] == "run"
        sides = self.candidates.sides_of_given_net() if is_given else self.candidates.sides()
        self.facts["side"] = sides[-1]
        if is_given:
            self._plan_for_given_net(sides)
        elif budget is None:
            self._choose_side(sides[-1])
            nets = self.candidates.nets(sides[-1])
            pretrained = self.candidates.pretrained_nets(sides[-1])
            for_level = [net for net in [*pretrained, *nets[::-1]] if self.level in net.get("default", ())]
            net = (for_level or nets)[0]
            reason = f"{net['name']}, which {self.level} has for images of this size"
            if not for_level and self.candidates.excludes_all(sides[-1]):
                reason = f"{net['name']}: no net for images of this size takes the keys of model that you set"
            self._use_net(net, reason, "not measured")
        else:
            side, net, rate = self._largest_affordable(sides)
            passes = self._passes_in_budget(rate, side)
            self._choose_side(side, f"{net['name']} gets {about_epochs(passes)} in the budget at this size")
            least = self._least_passes(net)
            needs = f"fewer than the {format_number(least)} it needs"
            if passes >= least:
                needs = f"at least {format_number(least)} {'is' if least == 1 else 'are'} needed"
            speed = f"{net['name']} trains {counted(round(rate) if rate >= 1 else rate, 'image')} per second here"
            reason = f"{speed}: {about_epochs(passes)} in the budget, {needs}"
            self._count_epochs(passes)
            self._use_net(net, reason, MEASURED_BEFORE)
        if budget is None:
            epochs, reason = self.facts["passes"], f"{counted(images, 'training image')} and no time budget"
            if self._epochs_per_pass > 1:
                epochs = max(1, round(epochs * self._epochs_per_pass))
                reason += f": {counted(epochs, 'epoch')} of these steps see each about {self.facts['passes']} times"
            self._choose({EPOCHS: epochs}, reason, "not measured")

    def _plan_for_given_net(self, sides: Sequence[int]) -> None:
        """Choose the side of the images for a net that the user chose, and count its epochs in the budget."""
        typed = {key: value for key, value in self.typed.items() if key.partition(".")[0] == "model"}
        unknown = {"name": self.typed.get("model", "yours"), "set": {}}
        net: Mapping[str, Any] = next((net for net in self.candidates.nets(sides[-1]) if net["set"] == typed), unknown)
        self.facts["net"] = net["name"]
        self.facts["net_optimizer"] = self._optimizer(net)
        if self.facts["budget"] is None:
            self._choose_side(sides[-1])
            return
        net = {**net, "set": {}}  # as it is in the config
        side = sides[-1]
        passes = self._passes_in_budget(self._rate(net, side), side)
        for smaller in reversed(sides[:-1]):
            if passes >= self._least_passes(net):
                break
            try:
                passes, side = self._passes_in_budget(self._rate(net, smaller), smaller), smaller
            except InputError:  # the net does not take images of this size
                break
        self._choose_side(side, f"the net that you chose gets {about_epochs(passes)} in the budget at this size")
        self._count_epochs(passes)

    def _count_epochs(self, passes: float) -> None:
        if not self.epochs_are_typed:
            self.facts["passes"] = max(1, round(passes))

    def _passes_in_budget(self, rate: float, side: int) -> float:
        """Return how many passes over the training images fit into the budget, at this rate in images per second."""
        read = self.facts["planning_seconds"] + self.reading(side, self.facts["resize"])
        return passes_in_budget(self.facts["budget"] - read, rate, self.facts["images"])

    def _least_passes(self, net: Mapping[str, Any]) -> float:
        """Return the fewest passes with which a net is chosen in a budget."""
        share = self.rules["passes_with_muon"] if self._optimizer(net) == MUON else 1.0
        if self.epochs_are_typed:
            return float(self.facts["passes"])
        share = self.rules["passes_of_pretrained_nets"] if "weights" in net else net.get("passes", share)
        return float(max(1, round(share * self.facts["passes"])))

    def _optimizer(self, net: Mapping[str, Any]) -> str | None:
        """Return the optimizer that is planned for a net, if it is not the usual one."""
        return None if self.optimizer_is_typed or self.facts["start"] is not None else net.get("optimizer")

    def _rate(self, net: Mapping[str, Any], side: int) -> float:
        """Return the images per second that a net trains, with its optimizer."""
        optimizer = self._optimizer(net)
        values = net["set"] if optimizer is None else {**net["set"], "optimizer": optimizer}
        return self.rate(values, side, self.facts["step_images"])

    def _largest_affordable(self, sides: Sequence[int]) -> tuple[int, Mapping[str, Any], float]:
        """Return side, net and rate: the largest net that is fast enough at the largest side that has one.

        Nets whose published weights are on this machine come first: they need fewer passes. Nets after one that is
        too slow are slower still, and are not measured.
        """
        for side in reversed(sides):
            for net in self.candidates.pretrained_nets(side):
                if self._passes_in_budget(rate := self._rate(net, side), side) >= self._least_passes(net):
                    return side, net, rate
        fallback = None
        for side in reversed(sides):
            best = None
            for net in self.candidates.nets(side):
                rate = self._rate(net, side)
                fallback = (side, net, rate) if fallback is None or rate > fallback[2] else fallback
                if self._passes_in_budget(rate, side) < self._least_passes(net):
                    break
                best = (side, net, rate)
            if best is not None:
                return best
        assert fallback is not None
        return fallback

    def _choose_side(self, side: int, reason: str = "") -> None:
        """Choose the side of the images, if they can be resized; `reason` is added to the sizes of the files."""
        if self.facts["can_resize"]:
            why = describe_scaling(self.facts, self.candidates.side_of_files, side) + (f": {reason}" if reason else "")
            self._choose({"data.image_size": side}, why, "measured")
        self.facts["side"] = side

    def _use_net(self, net: Mapping[str, Any], reason: str, evidence: str) -> None:
        self.facts["net"] = net["name"]
        self.facts["start"] = "published" if "weights" in net else self.facts["start"]
        self.facts["net_optimizer"] = self._optimizer(net)
        self._choose(net["set"], reason, evidence)
