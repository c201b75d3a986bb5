"""The nets and the sides of images that a plan chooses among."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from resnet_cli.planning.conditions import holds

Facts = Mapping[str, Any]
Accepts = Callable[[Mapping[str, Any]], bool]
RGB = 3


class Candidates:
    """The nets of `rules.yaml` that the machine and the typed keys allow, and the sides of images that they take.

    Args:
        rules: The content of `rules.yaml`.
        facts: The facts of the plan, to which it adds what it chooses.
        typed: Keys that the user typed, with their values; groups with their options.
        accepts: Returns whether the options of groups accept the keys of these groups that were typed.
    """

    def __init__(self, rules: Mapping[str, Any], facts: Facts, typed: Mapping[str, Any], accepts: Accepts) -> None:
        self.rules, self.facts, self.typed, self.accepts = rules, facts, typed, accepts

    def nets(self, side: int) -> list[Mapping[str, Any]]:
        """Return the nets for images of a side, small to large; the smallest net of all if there is none for them."""
        smallest: list[Mapping[str, Any]] = self.rules["nets"][:1]
        return self._nets_for(side) or smallest

    def excludes_all(self, side: int) -> bool:
        """Return whether the typed keys of `model` exclude all nets for images of a side."""
        return not self._nets_for(side) and any(key.startswith("model.") for key in self.typed)

    def pretrained_nets(self, side: int) -> Iterator[Mapping[str, Any]]:
        """Yield the nets that can start from weights on this machine, large to small."""
        if self.facts["channels"] != RGB:
            return
        for net in reversed(self.rules["pretrained_nets"]):
            is_there = net["weights"] in self.facts["weights"] and net["sides"][0] <= side <= net["sides"][1]
            if is_there and self._matches_typed_keys(net["set"]):
                yield net

    def sides(self) -> list[int]:
        """Return the sides that images may get, small to large: those for which there is a net, if there are any."""
        sides = list(self._sides_of_files())
        if not self.facts["can_resize"]:
            return sides
        return [side for side in sides if self._has_net(side)] or sides

    def sides_of_given_net(self) -> list[int]:
        """Return the sides that images may get for the net that the user chose: those of its row or its class."""
        sides = list(self._sides_of_files())
        missing = object()
        rows = [
            net for net in self.rules["nets"]
            if all(self.typed.get(key, missing) == value for key, value in net["set"].items())
        ]  # fmt: skip
        rows.sort(key=lambda net: len(net["set"]), reverse=True)
        rows += [row for row in self.rules["sides_of_classes"] if holds(row["when"], self.facts)]
        if not rows or not self.facts["can_resize"]:
            return sides
        low, high = rows[0]["sides"]
        return [side for side in sides if low <= side <= high] or sides

    @property
    def side_of_files(self) -> int:
        """The side that files have as squares if they are not scaled: the long one if they are padded."""
        return int(self.facts["long_side" if self.facts["resize"] == "pad" else "short_side"])

    @cached_property
    def _usable_nets(self) -> list[Mapping[str, Any]]:
        return [
            net for net in self.rules["nets"]
            if holds(net.get("when", {}), self.facts) and self._matches_typed_keys(net["set"])
        ]  # fmt: skip

    def _nets_for(self, side: int) -> list[Mapping[str, Any]]:
        return [net for net in self._usable_nets if net["sides"][0] <= side <= net["sides"][1]]

    def _has_net(self, side: int) -> bool:
        """Return whether a net may be chosen for images of a side; without a budget, levels have nets of their own."""
        is_free = self.facts["budget"] is not None
        return bool(self._nets_for(side)) or any(
            is_free or self.facts["level"] in net["default"] for net in self.pretrained_nets(side)
        )

    def _matches_typed_keys(self, net: Mapping[str, Any]) -> bool:
        """Return whether a net accepts the typed keys of `model`, and none of its own values contradicts them."""
        typed = {key: value for key, value in self.typed.items() if key.startswith("model.")}
        is_same = all(net[key] == value for key, value in typed.items() if key in net)
        return is_same and (not typed or "model" in self.typed or self.accepts(net))

    def _sides_of_files(self) -> Iterator[int]:
        """Yield the sides to which files may be scaled, small to large; that of the images if it is given."""
        height, width = self.facts["height"], self.facts["width"]
        if not self.facts["can_resize"]:
            yield min(height, width)
            return
        own = self.side_of_files
        sides = [side for side in self.rules["sides"] if side <= own] or self.rules["sides"][:1]
        yield from sides
        if sides[-1] < own <= self.rules["kept_up_to"]:
            yield own
