"""Blocks deleted and swapped: what is left computes what it should, and everything is put back."""

import copy

import pytest
import torch

from resnet_cli.analysis.block_deletion import (
    can_be_deleted,
    deleted,
    find_blocks,
    random_deletions,
    random_swaps,
    single_deletions,
    swapped,
)  # fmt: skip
from resnet_cli.models import CifarResNet, ResidualMLP

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def build(**options):
    torch.manual_seed(0)
    return CifarResNet((1, 8, 8), 3, **{"depth": 20, **options}).eval()


def test_blocks_have_their_shapes_in_order():
    blocks = find_blocks(build(), IMAGES)
    assert [block.name for block in blocks] == [f"stages.{s}.{i}" for s in range(3) for i in range(3)]
    assert [block.keeps_shape for block in blocks] == [True, True, True, False, True, True, False, True, True]
    assert (blocks[3].in_shape, blocks[3].out_shape) == ((16, 8, 8), (32, 4, 4))
    assert find_blocks(torch.nn.Flatten(), IMAGES) == []


@pytest.mark.parametrize("options", [{}, {"order": "preactivation"}, {"shortcut": "exclusive_gating"}])
def test_a_deleted_block_is_its_branch_times_zero(options):
    model = build(**options)
    twin = copy.deepcopy(model)
    for name in ("stages.0.1", "stages.1.0"):
        twin.get_submodule(name).main_path.register_forward_hook(lambda _, __, outputs: 0 * outputs)
    before = model(IMAGES)
    with deleted(model, ["stages.0.1", "stages.1.0"]):
        assert torch.allclose(model(IMAGES), twin(IMAGES), atol=1e-6)
    assert not torch.equal(twin(IMAGES), before)
    assert torch.equal(model(IMAGES), before)


def test_a_plain_block_is_deleted_where_the_shape_stays():
    model = build(residual=False)
    blocks = find_blocks(model, IMAGES)
    assert [can_be_deleted(model, block) for block in blocks] == [block.keeps_shape for block in blocks]
    with deleted(model, ["stages.0.1"]):
        expected = model.stages[0][2](model.stages[0][0](model.stem(IMAGES)))
        assert torch.equal(model.stages[0](model.stem(IMAGES)), expected)
    assert single_deletions(model, blocks, lambda: 50.0)["stages.1.0"] is None


def test_swapped_blocks_have_changed_places_one_pair_after_the_other():
    model = build()
    a, b, c = model.stages[0]
    with swapped(model, [("stages.0.0", "stages.0.1"), ("stages.0.1", "stages.0.2")]):
        assert list(model.stages[0]) == [b, c, a]
    assert list(model.stages[0]) == [a, b, c]
    with pytest.raises(RuntimeError), swapped(model, [("stages.0.0", "stages.0.1")]):
        raise RuntimeError
    assert list(model.stages[0]) == [a, b, c]
    with swapped(model, [("stages.0.0", "stages.0.0")]):
        assert list(model.stages[0]) == [a, b, c]


def test_random_choices_are_powers_of_two_of_blocks_that_keep_the_shape():
    model = ResidualMLP((1, 8, 8), 3, width=8, dims=[8, 8, 8, 8, 8]).eval()
    names = [block.name for block in find_blocks(model, IMAGES)]
    kept = [type(model.get_submodule(name)) for name in names]

    def accuracy():
        return 20.0 * sum(type(model.get_submodule(name)) in kept for name in names)

    deletions = random_deletions(model, find_blocks(model, IMAGES), accuracy)
    assert [(row.count, row.mean, row.low, row.high) for row in deletions] == [
        (1, 80, 80, 80), (2, 60, 60, 60), (4, 20, 20, 20),
    ]  # fmt: skip
    assert [row.mean for row in random_swaps(model, find_blocks(model, IMAGES), accuracy)] == [100] * 3
