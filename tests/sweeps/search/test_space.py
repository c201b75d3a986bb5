"""The search space: what it samples, and which overrides it refuses."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings, strategies

from resnet_cli.errors import InputError
from resnet_cli.sweeps.search import space as spaces

optuna = pytest.importorskip("optuna")


class NoGroups:
    """The only method of Hydra's config loader that `parse_space` calls."""

    def get_group_options(self, group, results_filter=None):
        return ["resnet8", "resnet20", "cnn"] if group == "model" else []


def parse(*overrides):
    return spaces.parse_space(overrides, NoGroups())


@settings(max_examples=20)
@given(strategies.floats(1e-12, 1e6), strategies.floats(1e-12, 1e6), strategies.booleans())
def test_a_number_in_an_override_is_the_sampled_one_bit_for_bit(a, b, log):
    low, high = sorted((a, b))
    if low == high:
        return
    inside = f"interval({low!r},{high!r})"
    space = parse(f"++optimizer.lr=tag(log,{inside})" if log else f"++optimizer.lr={inside}")
    (override,) = space.overrides(optuna.trial.FixedTrial({"optimizer.lr": a}))
    parsed = OverridesParser.create().parse_override(override)
    assert parsed.key_or_group == "optimizer.lr"
    assert parsed.value() == a
    assert type(parsed.value()) is float


def test_the_space_of_overrides_is_their_grid():
    space = parse("++a=range(32,129,32)", "++b=range(0.1,0.9,0.1)", "model=glob(resnet*)", "++c=8,x,'a b'", "++d=7",
                  "++e=int(interval(1,5))", "++f=tag(log,range(1,9))")  # fmt: skip
    assert space.fixed == ["++d=7"]
    assert space.dimensions["++a"] == spaces.IntRange(32, 128, 32)
    by_hydra = OverridesParser.create().parse_override("b=range(0.1,0.9,0.1)").value()  # 1.3 and 1.4 round differently
    assert space.dimensions["++b"].grid == list(by_hydra.range()) == pytest.approx([n / 10 for n in range(1, 9)])
    assert (space.dimensions["++b"].low, space.dimensions["++b"].high) == (0.1, 0.8)
    assert space.dimensions["model"].values == ["resnet8", "resnet20"]
    assert space.dimensions["++c"].values == ["8", "x", "'a b'"]
    assert space.dimensions["++e"] == spaces.IntRange(1, 5)
    assert space.dimensions["++f"] == spaces.IntRange(1, 8, log=True)
    seen = {override for job in space.examples() for override in job}
    assert {"++a=32", "++a=128", "++b=0.1", "++b=0.8", "++c=8", "++c='a b'", "++d=7", "++e=5", "model=resnet20"} <= seen


@pytest.mark.parametrize(
    ("override", "varies", "select_by"),
    [
        ("++trainer.select_by=val_loss", False, "val_loss"),  # as in `hydra.sweeper.params`, which is not composed
        ("trainer.select_by='val_loss'", False, "val_loss"),
        ("++trainer.select_by=val_loss,val_accuracy", True, "val_map"),
        ("trainer.epochs=7", False, "val_map"),
    ],
)
def test_a_fixed_metric_of_a_search_is_what_its_jobs_are_compared_by(override, varies, select_by):
    space = parse("++a=1,2", override)
    assert space.varies("trainer.select_by") is varies
    assert space.select_by({"trainer": {"select_by": "val_map"}}) == select_by


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=interval(0,1)", "model=interval(0,1): a group takes a choice(a,b) of its options, not numbers"),
        ("model=glob(vgg*)", "no option of this name"),
        ("++a=interval(1,0.1)", "a=interval(1,0.1): an interval takes two finite numbers, the smaller one first"),
        ("++a=interval(0,inf)", "the smaller one first"),
        ("++a=tag(log,interval(0,1))", "a logarithmic interval starts above 0"),
        ("++a=tag(log,range(2,9,2))", "has the step 1"),
        ("++a=tag(large,interval(0,1))", "tag large: only interval and range take a tag, which is log"),
        ("++a=tag(log,choice(1,2))", "tag log"),
        ("++a=shuffle(range(4))", "leave out shuffle"),
        ("++a=range(4,4)", "an empty range"),
        ("++a=1", "nothing to search"),
    ],
)
def test_an_invalid_space_is_refused(override, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        parse(override)
