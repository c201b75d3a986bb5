"""Freezing: parts of a model that do not train in some of a run's steps (`trainer.freeze`).

A frozen parameter requires no gradient: the backward pass ends where nothing in front of it trains, and the optimizer,
which skips parameters without a gradient, changes neither it nor its state, by weight decay either. A batch norm whose
parameters are frozen, or whose running statistics match, stays in evaluation mode. Dropout is not affected. Frozen
parameters are averaged too: lookahead's write-back changes those that were trained before, as in airbench94.

What is frozen is a function of the step alone, so that a resumed run freezes the same as an uninterrupted one.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from resnet_cli.config.suggestions import nearest_names
from resnet_cli.errors import InputError

logger = logging.getLogger("resnet_cli")

KEY = "trainer.freeze"
POSITIONS = ("at", "until")
Position = float | int | str


@dataclass(frozen=True)
class FreezeRule:
    """What is frozen and when, as given in the config.

    Args:
        key: Its key in the config.
        match: Regular expression, searched in the names of parameters and of running statistics.
        at: Position at which freezing starts; None is the beginning of the run.
        until: Position at which training starts; None is never.
    """

    key: str
    match: str
    at: Position | None = None
    until: Position | None = None


def freeze_rules(
    freeze: str | Sequence[str | Mapping[str, Any]] | None = None,
) -> list[FreezeRule]:
    """Return the rules of `trainer.freeze`.

    Args:
        freeze: A regular expression, searched in the names of parameters: those that match do not train, nor do the
            running statistics of batch norms without other parameters. Or a list of such expressions and of
            `{match, at, until}`: frozen from the position `at` on, or until the position `until`. Positions are
            written as in schedules: 3 or 0.5 epochs, `400 steps`, `50%`.

    Raises:
        InputError: an item of the list has another form, or a pattern is not a regular expression.
    """
    items = [freeze] if isinstance(freeze, str) else list(freeze or [])
    problems: list[str] = []
    rules: list[FreezeRule] = []
    for index, item in enumerate(items):
        key = KEY if isinstance(freeze, str) else f"{KEY}[{index}]"
        options = {"match": item} if isinstance(item, str) else dict(item)
        pattern = options.pop("match", None)
        unknown = [name for name in options if name not in POSITIONS]
        if unknown or not isinstance(pattern, str) or not pattern:
            given = f"unknown key {unknown[0]}" if unknown else "match is missing"
            problems.append(f"{key}: {given}; it takes match (a pattern), at and until (positions)")
            continue
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as error:  # a{99999999999}
            problems.append(f"{key}: {pattern!r} is not a regular expression: {error}")
        rules.append(FreezeRule(key, pattern, **options))
    if problems:
        raise InputError(*problems)
    return rules


@dataclass(frozen=True)
class FrozenSpan:
    """What is frozen and in which steps.

    Args:
        match: Regular expression, searched in the names of parameters and of running statistics.
        at: The first step (from 0) in which it is frozen.
        until: The first step after `at` in which it trains; None is never.
    """

    match: str
    at: int = 0
    until: int | None = None

    def covers(self, step: int) -> bool:
        """Return True if the parameters that match are frozen in a step."""
        return self.at <= step and (self.until is None or step < self.until)


@dataclass(frozen=True, eq=False)
class _Phase:
    """A range of steps, from `start` on, with the same parameters frozen and the same layers in evaluation mode."""

    start: int
    patterns: tuple[str, ...]
    frozen: frozenset[Tensor]
    layers: tuple[nn.Module, ...]


class Freezing:
    """Freezes and unfreezes parts of a model, by the step of the run.

    Args:
        model: The model. Parameters that do not require gradients before the first step are never changed.
        spans: What is frozen and when.

    Attributes:
        compiled: Name of what is recompiled at each change, for the log; empty if nothing is.
        is_changed: A state has been loaded whose steps may have frozen other parts.

    Raises:
        InputError: a pattern matches nothing, or in some step nothing would train.
    """

    def __init__(self, model: nn.Module, spans: Sequence[FrozenSpan]) -> None:
        self.model, self.compiled, self.is_changed = model, "", False
        self._parameters = dict(model.named_parameters())
        self._norms = {name: m for name, m in model.named_modules() if isinstance(m, _NormBase)}
        self._statistics = {
            (f"{name}.{buffer}" if name else buffer): layer
            for name, layer in self._norms.items()
            if layer.track_running_stats
            for buffer, _ in layer.named_buffers(recurse=False)
            if buffer.startswith("running_")
        }
        self._trainable: list[Tensor] | None = None
        self._present: _Phase | None = None
        self._measuring = False
        self.set_spans(spans)

    def set_spans(self, spans: Sequence[FrozenSpan]) -> None:
        """Replace the spans before the first step, after the length of the run has changed.

        Raises:
            InputError: as in the constructor.
        """
        problems = [problem for span in spans if (problem := self._unmatched(span.match))]
        if problems:
            raise InputError(*problems)
        starts = sorted({0, *(span.at for span in spans), *(span.until for span in spans if span.until is not None)})
        self._phases = [self._phase(start, [span.match for span in spans if span.covers(start)]) for start in starts]
        self._permanent = self._phase(0, [span.match for span in spans if span.at == 0 and span.until is None])
        for phase in self._phases:
            if all(p in phase.frozen for p in self._parameters.values()):
                patterns = ", ".join(map(repr, phase.patterns))
                since = f" from step {phase.start} on" if len(self._phases) > 1 else ""
                raise InputError(f"{KEY}: with {patterns} every parameter is frozen{since}; leave some to train")
        self._present = None

    @property
    def never_trained(self) -> frozenset[Tensor]:
        """The parameters that are frozen in every step."""
        return frozenset.intersection(*(phase.frozen for phase in self._phases))

    @property
    def never_training(self) -> frozenset[nn.Module]:
        """The batch norms that stay in evaluation mode in every step."""
        return frozenset.intersection(*(frozenset(phase.layers) for phase in self._phases))

    @property
    def num_phases(self) -> int:
        """The number of ranges of steps in which different parts are frozen."""
        return len(self._phases)

    @property
    def phase(self) -> object:
        """An identifier of the set of parameters that is frozen now; None before the first step."""
        return self._present

    @property
    def frozen_layers(self) -> tuple[nn.Module, ...]:
        """The batch norms that stay in evaluation mode now."""
        return self._present.layers if self._present is not None else ()

    def apply(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Freeze what is frozen in a step, and unfreeze the rest. Return True if the frozen part has changed.

        Args:
            step: The step that is about to be taken, from 0.
            optimizer: The optimizer of the model's parameters.
        """
        phase = self._permanent if self._measuring else self._phases[self._index(step)]
        for layer in phase.layers:  # in each step: an evaluation in between sets the mode of all layers
            if layer.training:
                layer.training = False
        if phase is self._present:
            return False
        thawed = self._thawed(step, phase)
        if self._trainable is None:
            self._trainable = [p for p in self._parameters.values() if p.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad_(parameter not in phase.frozen)
            if parameter in phase.frozen:
                parameter.grad = None
        for layer in self.frozen_layers:
            layer.training = layer not in phase.layers
        self._present = phase
        _complete_momentum(optimizer, thawed)
        if not self._measuring:
            self._log(step, phase)
        return True

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Freeze only what is frozen in every step, and do not log, for steps that are timed and then undone."""
        self._measuring, self._present = True, None
        try:
            yield
        finally:
            self._measuring, self._present = False, None
            for parameter in self._trainable or ():
                parameter.requires_grad_(True)

    def _thawed(self, step: int, phase: _Phase) -> frozenset[Tensor]:
        """Return the parameters that were frozen in the step before this one, or may have been, and train now."""
        if self.is_changed and not self._measuring:
            self.is_changed = False
            return frozenset(self._parameters.values()) - phase.frozen
        before = self._present
        if before is None and step and not self._measuring:  # resumed
            before = self._phases[self._index(step - 1)]
        return before.frozen - phase.frozen if before is not None else frozenset()

    def _index(self, step: int) -> int:
        return bisect_right(self._phases, step, key=lambda phase: phase.start) - 1

    def _phase(self, start: int, patterns: Sequence[str]) -> _Phase:
        compiled = [re.compile(pattern) for pattern in patterns]
        frozen = frozenset(
            p for name, p in self._parameters.items() if any(pattern.search(name) for pattern in compiled)
        )
        layers = {
            layer: None
            for name, layer in self._statistics.items()
            if any(pattern.search(name) for pattern in compiled) or _is_frozen(layer, frozen)
        }
        return _Phase(start, tuple(patterns), frozen, tuple(layers))

    def _unmatched(self, pattern: str) -> str | None:
        """Return an error message if a pattern matches nothing, else None."""
        names = [*self._parameters, *self._statistics]
        if any(map(re.compile(pattern).search, names)):
            return None
        near = nearest_names(pattern.replace("\\", "").strip("^$"), self._parameters, count=3, cutoff=0.0)
        return f"{KEY}: {pattern!r} matches no parameter; the nearest are {', '.join(near)}"

    def _log(self, step: int, phase: _Phase) -> None:
        total = sum(p.numel() for p in self._trainable or ())
        trained = sum(p.numel() for p in self._trainable or () if p.requires_grad)
        what = f"{', '.join(phase.patterns)} frozen" if phase.patterns else "nothing frozen"
        again = f"; {self.compiled} is compiled again" if self.compiled and step else ""
        counts = f"{trained:,} of {total:,} parameters train"
        logger.info("freeze  from step %d on: %s, %s%s", step, what, counts, again)


def _is_frozen(layer: nn.Module, frozen: frozenset[Tensor]) -> bool:
    """Return True if a layer has parameters and all of them are frozen."""
    own = list(layer.parameters(recurse=False))
    return bool(own) and all(parameter in frozen for parameter in own)


def _complete_momentum(optimizer: torch.optim.Optimizer, thawed: frozenset[Tensor]) -> None:
    """Give a zero momentum to parameters that begin to train later than others of their group.

    torch's fused SGD requires that either all parameters of a group have momentum or none. Those that never get a
    gradient have none.
    """
    for group in optimizer.param_groups:
        if not group.get("fused") or not group.get("momentum"):
            continue
        trained = [p for p in group["params"] if p.requires_grad]
        without = [p for p in trained if optimizer.state.get(p, {}).get("momentum_buffer") is None]
        if len(without) == len(trained):
            continue
        for parameter in without:
            if parameter in thawed:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
