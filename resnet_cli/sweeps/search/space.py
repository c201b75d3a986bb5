"""The search space: Hydra's sweep syntax as dimensions from which Optuna samples. Does not import Optuna."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, get_args

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from resnet_cli.config.selection import SelectBy, select_by_of
from resnet_cli.errors import InputError


@dataclass(frozen=True)
class Categorical:
    """Values without an order, as they are spelt in an override."""

    values: Sequence[str]

    def suggest(self, trial: Any, name: str) -> str:
        """Return the trial's value, sampling one if it has none yet."""
        return str(trial.suggest_categorical(name, self.values))

    def examples(self) -> Sequence[str]:
        """Return all values."""
        return self.values


@dataclass(frozen=True)
class IntRange:
    """Integers from `low` to `high`, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: Any, name: str) -> str:
        """Return the trial's value, sampling one if it has none yet."""
        return str(trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log))

    def examples(self) -> Sequence[str]:
        """Return both ends."""
        return [str(self.low), str(self.high)]


@dataclass(frozen=True)
class FloatRange:
    """Numbers from `low` to `high`.

    Args:
        low: The smallest number.
        high: The largest number.
        log: Sample on a logarithmic scale.
        grid: The only values, `step` apart, spelt as in a grid sweep; empty if every number is one.
        step: The distance between two values of the grid.
    """

    low: float
    high: float
    log: bool = False
    grid: Sequence[float] = ()
    step: float | None = None

    def suggest(self, trial: Any, name: str) -> str:
        """Return the trial's value, sampling one if it has none yet.

        `repr` spells a float such that parsing it returns the same float.
        """
        value = float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))
        return repr(min(self.grid, key=lambda number: abs(number - value)) if self.grid else value)

    def examples(self) -> Sequence[str]:
        """Return both ends."""
        return [repr(self.low), repr(self.high)]


Dimension = Categorical | IntRange | FloatRange


@dataclass(frozen=True)
class Space:
    """The overrides of a search.

    Args:
        fixed: Overrides of every job.
        dimensions: The dimension of each key that varies, by the key as an override spells it.
        overrides_by_key: All overrides as the user spelt them.
    """

    fixed: Sequence[str]
    dimensions: dict[str, Dimension]
    overrides_by_key: dict[str, str]

    def overrides(self, trial: Any) -> list[str]:
        """Return the overrides of a trial's job, sampling values that the trial does not have yet."""
        sampled = [f"{key}={dimension.suggest(trial, key.lstrip('+'))}" for key, dimension in self.dimensions.items()]
        return [*self.fixed, *sampled]

    def examples(self) -> Iterator[list[str]]:
        """Yield overrides of jobs that together contain every category and both ends of every range."""
        first = {key: dimension.examples()[0] for key, dimension in self.dimensions.items()}
        yield [*self.fixed, *(f"{key}={value}" for key, value in first.items())]
        for key, dimension in self.dimensions.items():
            for value in dict.fromkeys(dimension.examples()[1:]):
                yield [*self.fixed, *(f"{k}={v}" for k, v in {**first, key: value}.items())]

    def fixed_value(self, key: str) -> Any:
        """Return the value of a key that an override sets and that does not vary; None for other keys."""
        override = self.overrides_by_key.get(key)
        if override is None or self.varies(key):
            return None
        return OverridesParser.create().parse_override(override).value()

    def varies(self, key: str) -> bool:
        """Return whether a key has a dimension."""
        return any(name.lstrip("+") == key for name in self.dimensions)

    def select_by(self, settings: Mapping[str, Any]) -> str:
        """Return the metric that the jobs are compared by.

        Args:
            settings: The composed config of the search, which lacks the overrides in `hydra.sweeper.params`.
        """
        fixed = self.fixed_value("trainer.select_by")
        return str(fixed) if fixed in get_args(SelectBy) else select_by_of(settings)


def parse_space(overrides: Sequence[str], loader: ConfigLoader) -> Space:
    """Return the search space of overrides; of two overrides of a key, the last one counts.

    Args:
        overrides: Overrides in Hydra's sweep syntax.
        loader: Lists the options of config groups.

    Raises:
        InputError: an override cannot be searched, or none varies.
    """
    parsed: dict[str, Override] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        parsed[override.get_key_element()] = override
    spelling = {key.lstrip("+"): str(override.input_line).lstrip("+") for key, override in parsed.items()}
    dimensions, problems = {}, []
    for key, override in parsed.items():
        if not override.is_sweep_override():
            continue
        try:
            is_group = bool(loader.get_group_options(override.key_or_group, results_filter=ObjectType.CONFIG))
            dimensions[key] = _parse_dimension(override, is_group=is_group)
        except ValueError as error:
            problems.append(f"{spelling[key.lstrip('+')]}: {error}")
    if not parsed or not (dimensions or problems):
        problems.append("nothing to search: at least one key needs an interval(a,b), a range(a,b) or a choice(a,b)")
    if problems:
        raise InputError(*problems)
    fixed = [str(override.input_line) for key, override in parsed.items() if key not in dimensions]
    return Space(fixed, dimensions, spelling)


def _parse_dimension(override: Override, *, is_group: bool) -> Dimension:
    value = override.value()
    tags = value.tags if isinstance(value, Sweep) else set()
    if getattr(value, "shuffle", False):
        raise ValueError("a search has no order to shuffle; leave out shuffle")
    is_number = isinstance(value, IntervalSweep | RangeSweep)
    if is_group and is_number:
        raise ValueError("a group takes a choice(a,b) of its options, not numbers")
    if tags - ({"log"} if is_number else set()):
        raise ValueError(f"tag {', '.join(sorted(tags))}: only interval and range take a tag, which is log")
    if isinstance(value, IntervalSweep):
        return _parse_interval(value, log="log" in tags)
    if isinstance(value, RangeSweep):
        return _parse_range(value, log="log" in tags)
    texts = list(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise ValueError("no choice" if isinstance(value, ChoiceSweep) else "no option of this name")
    return Categorical(texts)


def _parse_interval(value: IntervalSweep, *, log: bool) -> IntRange | FloatRange:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("an interval takes two finite numbers, the smaller one first")
    if log and low <= 0:
        raise ValueError("a logarithmic interval starts above 0")
    is_int = isinstance(low, int) and isinstance(high, int)  # int(interval(a,b)); interval(a,b) alone has floats
    make: Callable[..., IntRange | FloatRange] = IntRange if is_int else FloatRange
    return make(low, high, log=log)


def _parse_range(value: RangeSweep, *, log: bool) -> IntRange | FloatRange:
    numbers = list(value.range())
    if not numbers:
        raise ValueError("an empty range")
    low, high, step = min(numbers), max(numbers), abs(value.step)
    if log and (low <= 0 or step != 1):
        raise ValueError("a logarithmic range starts above 0 and has the step 1")
    if all(isinstance(number, int) for number in numbers):
        return IntRange(int(low), int(high), int(step), log)
    # In decimal arithmetic, so that the end is 0.8 and not 0.7999999999999999.
    exact_high = float(Decimal(str(low)) + (len(numbers) - 1) * Decimal(str(step)))
    return FloatRange(float(low), exact_high, grid=numbers, step=float(step))
