"""Whether runs that differ in their seeds reach a goal: a t-test, an interval, and how many more seeds it takes."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from resnet_cli.config.counts import counted
from resnet_cli.report.keys import comparable_settings, comparison_key
from resnet_cli.report.measures import Statistics
from resnet_cli.runs.reading import Run

LEVEL = 0.05  # of the test; the interval covers 1 - LEVEL
GOAL_COLUMNS = ("goal_measure", "goal", "goal_low", "goal_high", "goal_p", "goal_more_seeds", "goal_result")
MOST_RUNS = 1000  # that are looked at to find how many more seeds the goal would take


@dataclass(frozen=True)
class Goal:
    """A figure to surpass in the mean over seeds.

    Args:
        measure: The property of a run, such as `test_accuracy`.
        value: The figure; of a loss the mean has to be below.
        over: Keys besides seeds and folds over which groups are averaged; their runs differ in more than the seed.
    """

    measure: str
    value: float
    over: Collection[str] = ()

    @property
    def title(self) -> str:
        """The heading of a column."""
        return f"goal {self.measure} {'<' if self.is_loss else '>'} {self.value:g}"

    @property
    def is_loss(self) -> bool:
        """True if smaller is better."""
        return self.measure.endswith("_loss")


@dataclass(frozen=True)
class GoalResult:
    """Whether the runs of a group reach a goal.

    Args:
        words: The result, in a few words.
        low: Lower end of the 95 % interval of the mean; None for fewer than two runs.
        high: Its upper end.
        p: How likely a mean as good as this one, or a better one, is if the true mean only equals the goal.
        more_seeds: How many more runs make p less than 0.05, if mean and deviation stay; None if no number does, or it
            is not known.
        decimals: Decimals of the interval: those that the table has for the metric.
    """

    words: str
    low: float | None = None
    high: float | None = None
    p: float | None = None
    more_seeds: int | None = None
    decimals: int = 2

    @property
    def interval(self) -> str:
        """The interval as text; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.{self.decimals}f} to {self.high:.{self.decimals}f}"


def assess_goal(runs: Sequence[Run], goal: Goal) -> GoalResult:
    """Assess whether the finished runs of a group, for each seed the newest, reach a goal."""
    found = Statistics.from_values(run.measure(goal.measure) for run in runs)
    if found is None:
        return GoalResult("not measured" if runs else "no finished run")
    keys = ("data.fold", *goal.over)
    comparable = comparable_settings(runs)
    settings = [{**run.settings, **comparable[run.folder]} for run in runs]
    differing = [key for key in keys if len({comparison_key(own.get(key)) for own in settings}) > 1]
    if differing:
        return GoalResult(f"runs differ in {', '.join(differing)}: no test over seeds")
    gain = found.mean - goal.value if not goal.is_loss else goal.value - found.mean
    side = _format_gain(gain, is_loss=goal.is_loss)
    if found.std is None:
        return GoalResult(f"{side} in the only run: a test takes two seeds")
    if found.std == 0 and gain > 0:
        return GoalResult(f"{side} in all {found.n} runs, whose results are equal: no test")
    low, high = interval(found)
    p = one_sided_p(gain, found.std, found.n)
    decimals = 4 if goal.is_loss else 2
    if p < LEVEL:
        return GoalResult(f"reached, {_format_p(p)}", low, high, p, 0, decimals)
    if gain <= 0:
        return GoalResult(f"not reached: {side}, {_format_p(p)}", low, high, p, decimals=decimals)
    more = more_seeds(gain, found.std, found.n)
    takes = counted(more, "more seed") if more is not None else f"over {MOST_RUNS:,} seeds"
    return GoalResult(
        f"not significant: {side}, {_format_p(p)}; about {takes} needed if mean and deviation stay the same",
        low,
        high,
        p,
        more,
        decimals,
    )


def goal_values(runs: Sequence[Run], goal: Goal) -> list[object]:
    """Return the result in full precision, in the order of `GOAL_COLUMNS`; None where there is no number."""
    found = assess_goal(runs, goal)
    return [goal.measure, goal.value, found.low, found.high, found.p, found.more_seeds, found.words]


def _format_gain(gain: float, *, is_loss: bool) -> str:
    if gain == 0:
        return "equal"
    return f"{'above' if (gain > 0) != is_loss else 'below'} by {abs(gain):.2g}"


def _format_p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def interval(values: Statistics) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two values or more, by Student's t distribution."""
    assert values.std is not None, "of two values or more"
    half = quantile(1 - LEVEL / 2, values.n - 1) * values.std / math.sqrt(values.n)
    return values.mean - half, values.mean + half


def one_sided_p(gain: float, std: float, n: int) -> float:
    """Return the p value of the one-sample t-test that the true mean is better than the goal.

    Args:
        gain: How much better the mean is.
        std: Sample standard deviation.
        n: Number of values, two or more.
    """
    if std == 0:
        return 0.0 if gain > 0 else 1.0
    return upper_tail(gain * math.sqrt(n) / std, n - 1)


def more_seeds(gain: float, std: float, n: int) -> int | None:
    """Return how many more values make the test significant, if mean and deviation stay; None for more than 1,000."""
    return next((total - n for total in range(n, MOST_RUNS + 1) if one_sided_p(gain, std, total) < LEVEL), None)


def upper_tail(t: float, df: int) -> float:
    """Return P(T > t) of Student's distribution with a whole number of degrees of freedom.

    The finite sums of Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = df % 2 == 1
    term = cosine if is_odd else 1.0
    total = 0.0 if df == 1 else term
    for k in range(3 if is_odd else 2, df - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return max(0.0, (1 - inside) / 2)


def quantile(probability: float, df: int) -> float:
    """Return the t below which Student's distribution has a probability of more than a half."""
    low, high = 0.0, 1.0
    while 1 - upper_tail(high, df) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - upper_tail(middle, df) < probability else (low, middle)
    return high
