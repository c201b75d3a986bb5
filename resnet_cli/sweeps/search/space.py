"""What a search may choose from: Hydra's sweep syntax as dimensions that Optuna samples. Imports no Optuna."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from resnet_cli.errors import InputError


@dataclass(frozen=True)
class Choices:
    """Values without an order, as they are spelt in an override."""

    values: Sequence[str]

    def suggest(self, trial: Any, name: str) -> str:
        """The trial's value; of one that has none yet, a new one."""
        return str(trial.suggest_categorical(name, self.values))

    def examples(self) -> Sequence[str]:
        """All values."""
        return self.values


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: Any, name: str) -> str:
        """The trial's value; of one that has none yet, a new one."""
        return str(trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log))

    def examples(self) -> Sequence[str]:
        """The ends."""
        return [str(self.low), str(self.high)]


@dataclass(frozen=True)
class Real:
    """Numbers from `low` to `high`.

    Args:
        low: The smallest.
        high: The largest.
        log: Spread them by their logarithms.
        grid: The only ones, `step` apart; each is spelt as in a grid sweep.
        step: Between two of them.
    """

    low: float
    high: float
    log: bool = False
    grid: Sequence[float] = ()
    step: float | None = None

    def suggest(self, trial: Any, name: str) -> str:
        """The trial's value; of one that has none yet, a new one. `repr` spells a float so that it is read exactly."""
        value = float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))
        return repr(min(self.grid, key=lambda one: abs(one - value)) if self.grid else value)

    def examples(self) -> Sequence[str]:
        """The ends."""
        return [repr(self.low), repr(self.high)]


@dataclass(frozen=True)
class Space:
    """A search's overrides.

    Args:
        fixed: Those of every job.
        free: A dimension for each key, as it is spelt in an override.
        given: All as they were given, by key.
    """

    fixed: Sequence[str]
    free: dict[str, Choices | Whole | Real]
    given: dict[str, str]

    def overrides(self, trial: Any) -> list[str]:
        """The overrides of a trial."""
        chosen = [f"{key}={dimension.suggest(trial, key.lstrip('+'))}" for key, dimension in self.free.items()]
        return [*self.fixed, *chosen]

    def examples(self) -> Iterator[list[str]]:
        """Overrides of jobs that together have every choice and both ends of every range."""
        first = {key: dimension.examples()[0] for key, dimension in self.free.items()}
        yield [*self.fixed, *(f"{key}={value}" for key, value in first.items())]
        for key, dimension in self.free.items():
            for value in dict.fromkeys(dimension.examples()[1:]):
                yield [*self.fixed, *(f"{k}={v}" for k, v in {**first, key: value}.items())]


def parse(overrides: Sequence[str], loader: ConfigLoader) -> Space:
    """The space that these overrides span; of two with one key the last counts.

    Raises:
        InputError: one of them makes no dimension, or none does.
    """
    parsed: dict[str, Override] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        parsed[override.get_key_element()] = override
    given = {key.lstrip("+"): str(one.input_line).lstrip("+") for key, one in parsed.items()}
    free, problems = {}, []
    for key, override in parsed.items():
        if not override.is_sweep_override():
            continue
        try:
            is_group = bool(loader.get_group_options(override.key_or_group, results_filter=ObjectType.CONFIG))
            free[key] = _dimension(override, is_group=is_group)
        except ValueError as error:
            problems.append(f"{given[key.lstrip('+')]}: {error}")
    if not parsed or not (free or problems):
        problems.append("nothing to search: give at least one key an interval(a,b), a range(a,b) or a choice(a,b)")
    if problems:
        raise InputError(*problems)
    return Space([str(one.input_line) for key, one in parsed.items() if key not in free], free, given)


def _dimension(override: Override, *, is_group: bool) -> Choices | Whole | Real:
    value = override.value()
    tags = value.tags if isinstance(value, Sweep) else set()
    if getattr(value, "shuffle", False):
        raise ValueError("a search goes through nothing in order; leave out shuffle")
    is_number = isinstance(value, IntervalSweep | RangeSweep)
    if is_group and is_number:
        raise ValueError("a group has no numbers; it takes a choice(a,b) of its options")
    if tags - ({"log"} if is_number else set()):
        raise ValueError(f"tag {', '.join(sorted(tags))}: only interval and range take a tag, which is log")
    if isinstance(value, IntervalSweep):
        return _interval(value, log="log" in tags)
    if isinstance(value, RangeSweep):
        return _range(value, log="log" in tags)
    texts = list(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise ValueError("no option of this name" if not isinstance(value, ChoiceSweep) else "no choice")
    return Choices(texts)


def _interval(value: IntervalSweep, *, log: bool) -> Whole | Real:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("an interval has two numbers, the smaller one first")
    if log and low <= 0:
        raise ValueError("by logarithms the smallest number is above 0")
    is_whole = isinstance(low, int) and isinstance(high, int)  # int(interval(a,b)); interval(a,b) alone has floats
    make: Callable[..., Whole | Real] = Whole if is_whole else Real
    return make(low, high, log=log)


def _range(value: RangeSweep, *, log: bool) -> Whole | Real:
    numbers = list(value.range())
    if not numbers:
        raise ValueError("an empty range")
    low, high, step = min(numbers), max(numbers), abs(value.step)
    if log and (low <= 0 or step != 1):
        raise ValueError("by logarithms a range starts above 0 and has the step 1")
    if all(isinstance(number, int) for number in numbers):
        return Whole(int(low), int(high), int(step), log)
    exact = float(Decimal(str(low)) + (len(numbers) - 1) * Decimal(str(step)))  # 0.8, not 0.7999999999999999
    return Real(float(low), exact, grid=numbers, step=float(step))
