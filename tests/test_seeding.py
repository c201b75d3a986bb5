"""Randomness as a function of its parts, the same everywhere."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.seeding import derive_seed, python_random_state_kept, seed_python, seeded_generator

parts = st.lists(st.integers() | st.text(), max_size=4)


def test_mix_gives_these_numbers_for_ever():
    assert derive_seed(0, "order", 0) == 1483281915508598133
    assert derive_seed(1, "augment", 3, 7) == 4285799812284239028


@settings(max_examples=100, deadline=None)
@given(parts, parts)
def test_mix_tells_different_parts_apart(a, b):
    assert 0 <= derive_seed(*a) < 2**63
    assert (derive_seed(*a) == derive_seed(*b)) == ([(type(x), x) for x in a] == [(type(x), x) for x in b])


@pytest.mark.parametrize(("a", "b"), [((1,), ("1",)), (("ab", "c"), ("a", "bc")), ((1, 23), (12, 3)), ((), ("",))])
def test_mix_tells_spellings_apart(a, b):
    assert derive_seed(*a) != derive_seed(*b)


def test_generator_depends_on_its_parts_only():
    first = torch.rand(4, generator=seeded_generator("cpu", 3, "order", 1))
    torch.rand(100)
    assert torch.equal(first, torch.rand(4, generator=seeded_generator("cpu", 3, "order", 1)))
    assert not torch.equal(first, torch.rand(4, generator=seeded_generator("cpu", 3, "order", 2)))


def test_generator_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    seeded_generator("cpu", 1).get_state()
    assert torch.equal(torch.rand(3), expected)


def test_the_global_states_of_python_and_numpy_are_kept():
    seed_python(1)
    expected = random.random(), np.random.rand()
    seed_python(1)
    with python_random_state_kept():
        seed_python(2**40)
        assert (random.random(), np.random.rand()) != expected
    assert (random.random(), np.random.rand()) == expected
