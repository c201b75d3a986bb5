"""Groups stay together, every part gets its fraction of the classes as nearly as whole groups allow."""

import pytest
import torch

from resnet_cli.data.groups import GroupNames, choose_groups, hold_out_groups, number_folds_of_groups
from resnet_cli.errors import InputError


def patients(count=40, classes=3, seed=0):
    """Return labels and groups: each patient has 1 to 12 images, mostly of one class."""
    source = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 13, (count,), generator=source)
    groups = torch.arange(count).repeat_interleave(sizes)
    labels = (torch.arange(count) % classes)[groups]
    strays = torch.rand(len(groups), generator=source) < 0.2
    labels = torch.where(strays, torch.randint(0, classes, (len(groups),), generator=source), labels)
    order = torch.randperm(len(groups), generator=source)
    return labels[order], groups[order] * 7 + 3  # numbers need not be without gaps


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_held_out_groups_have_nearly_the_fraction_of_every_class(fraction, seed):
    labels, groups = patients(seed=seed)
    kept, held_out = hold_out_groups(labels, groups, fraction, seed=0)
    assert not set(groups[kept].tolist()) & set(groups[held_out].tolist())
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert abs(len(held_out) / len(labels) - fraction) < 0.03
    shares = torch.bincount(labels[held_out], minlength=3) / torch.bincount(labels, minlength=3)
    assert (shares - fraction).abs().max() < 0.12


def test_folds_of_groups_are_of_one_size_and_distribution():
    labels, groups = patients(100)
    folds = number_folds_of_groups(labels, groups, 5, seed=0)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in groups.unique())
    sizes = torch.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 6
    by_class = torch.stack([torch.bincount(labels[folds == k], minlength=3) for k in range(5)])
    assert (by_class / torch.bincount(labels) - 0.2).abs().max() < 0.06


def test_a_split_is_a_function_of_the_seed():
    labels, groups = patients()
    first, again, other = (number_folds_of_groups(labels, groups, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(hold_out_groups(labels, groups * 5, 0.2, 0)[1], hold_out_groups(labels, groups, 0.2, 0)[1])


def test_a_group_that_alone_has_a_class_is_trained_on():
    labels, groups = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2]), torch.tensor([0, 1, 0, 1, 2, 2, 2, 2])
    for seed in range(5):
        kept, _ = hold_out_groups(labels, groups, 0.5, seed)
        assert set(labels[kept].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("folds", [4, 7])
def test_no_fold_is_empty_however_unequal_the_groups_are(folds):
    groups = torch.cat([torch.zeros(500, dtype=torch.int64), torch.arange(1, 7)])
    labels = torch.arange(len(groups)) % 2
    assert len(number_folds_of_groups(labels, groups, folds, 0).unique()) == folds


def test_a_subset_has_whole_groups_of_about_the_requested_number():
    labels, groups = patients()
    chosen = choose_groups(labels, groups, 100, seed=0)
    assert abs(len(chosen) - 100) <= 6
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    assert not set(groups[chosen].tolist()) & set(groups[rest].tolist())
    assert len(choose_groups(labels, groups, len(labels), 0)) == len(labels)


def test_impossible_splits_are_refused():
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(InputError, match="the only group is needed"):
        hold_out_groups(labels, torch.zeros(4, dtype=torch.int64), 0.5, 0)
    with pytest.raises(InputError, match="each of the 2 groups has a class that no other"):
        hold_out_groups(labels, labels, 0.5, 0)
    with pytest.raises(InputError, match="there are 2; use at most 2"):
        number_folds_of_groups(labels, labels, 3, 0)
    with pytest.raises(InputError, match="choose 1 to 4"):
        choose_groups(labels, labels, 5, 0)


def test_names_have_the_group_of_the_first_bracket_or_of_the_whole_match():
    names = ["a/p1_x.png", "a/p2_x.png", "b/p1_y.png"]
    assert GroupNames(r"(p\d)_").number(names).tolist() == [0, 1, 0]
    assert GroupNames(r"^\w/").number(names).tolist() == [0, 0, 1]
    either = GroupNames(r"^a/(p\d)|^b/(p\d)|(case\d)")
    assert either.number([*names, "case1_z.png", "case2_z.png", "b/p2_z.png"]).tolist() == [0, 1, 0, 2, 3, 1]
    shared = GroupNames(r"(p\d)_")
    assert [shared.number(names[:2]).tolist(), shared.number(names[2:]).tolist()] == [[0, 1], [0]]
    with pytest.raises(InputError, match=r"does not match 1 of 3 names, such as b/p1_y.png"):
        GroupNames("x").number(names)
    with pytest.raises(InputError, match=r"data.group=\(: not a regular expression"):
        GroupNames("(")
