"""The chain of one number per layer: its gradients against the product written by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.errors import InputError
from resnet_cli.models import ScalarChain
from resnet_cli.session import build

FUNCTIONS = {  # f and its derivative
    "tanh": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "relu": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "sigmoid": (lambda x: 1 / (1 + math.exp(-x)), lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2),
    "none": (lambda x: x, lambda x: 1.0),
}


def by_hand(weights, start, target, name, residual):
    """States, and dL/dw_i = (z_n - t) * prod over j > i of (dz_j / dz_{j-1}) * f'(w_i z_{i-1}) * z_{i-1}."""
    f, slope = FUNCTIONS[name]
    z = [start]
    for w in weights:
        z.append(f(w * z[-1]) + residual * z[-1])
    gradients = []
    for i, w in enumerate(weights):
        later = [weights[j] * slope(weights[j] * z[j]) + residual for j in range(i + 1, len(weights))]
        gradients.append((z[-1] - target) * math.prod(later) * slope(w * z[i]) * z[i])
    return z, gradients


@settings(max_examples=60)
@given(
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=12),
    start=st.floats(-5, 5),
    target=st.floats(-3, 3),
    name=st.sampled_from(sorted(FUNCTIONS)),
    residual=st.booleans(),
)
def test_gradients_are_the_product_written_by_hand(weights, start, target, name, residual):
    chain = ScalarChain(
        depth=len(weights), activation_type=name, residual=residual, start=start, target=target, weight=weights
    )
    states, gradients = by_hand(weights, start, target, name, residual)
    assert chain.states() == pytest.approx(states, rel=1e-12, abs=1e-12)
    assert chain.loss().item() == pytest.approx((states[-1] - target) ** 2 / 2, rel=1e-12, abs=1e-12)
    assert chain.weight_gradients() == pytest.approx(gradients, rel=1e-9, abs=1e-9)


def test_the_defaults_are_the_example_of_the_notes():
    chain = ScalarChain()
    assert (chain.states()[0], chain.target) == (10.0, 1.0)
    with torch.no_grad():  # as a caller that only evaluates would
        gradients = chain.weight_gradients()
    assert gradients == pytest.approx([0, -0.0727, -0.1319, -0.1892], abs=5e-5)
    assert chain.weights.grad is None
    chain.loss().backward()
    assert chain.weights.grad.tolist() == gradients


def test_a_residual_chain_without_branches_passes_the_gradient_on_unchanged():
    plain, residual = (ScalarChain(depth=50, weight=0.0, start=2.0, residual=on) for on in (False, True))
    assert residual.weight_gradients() == [2.0] * 50  # (z_n - target) * f'(0) * z_0 at every depth
    assert plain.weight_gradients()[:-1] == [0.0] * 49


def test_maps_numbers_each_for_itself():
    chain = ScalarChain(depth=2, weight=[0.5, -1.0], activation_type="lrelu", activation_params={"negative_slope": 0.1})
    numbers = torch.tensor([2.0, -2.0], dtype=torch.float64)
    assert chain(numbers).tolist() == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("name", ["maxout", "crelu"])
def test_activations_that_need_channels_are_refused(name):
    with pytest.raises(InputError, match=f"activation_type='{name}': needs several channels"):
        ScalarChain(activation_type=name)


def test_a_list_of_weights_has_one_for_each_layer():
    with pytest.raises(InputError, match="weight: 3 given for depth=2"):
        ScalarChain(depth=2, weight=[1.0, 1.0, 1.0])


def test_is_no_classifier():
    node = {"_target_": "resnet_cli.models.ScalarChain"}
    with pytest.raises(InputError, match=r"it takes numbers \[B\], not images.*--gradients"):
        build.model(node, in_size=(1, 8, 8), num_classes=10, seed=0)
