"""The perceptron, its form as a head, and the classifier on top."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models import MLP, ArgMaxClassifier
from resnet_cli.models.layers.activations import Activation, ActivationSpec, CReLU, Maxout
from resnet_cli.models.mlp import classifier_head


def test_layers_in_order_with_the_weights_of_plain_layers():
    torch.manual_seed(0)
    own = nn.Softsign()
    model = MLP(6, [5, 4, 4, 3], ["relu", own, None, "none"])
    torch.manual_seed(0)
    plain = [nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)]
    kinds = [nn.Linear, nn.ReLU, nn.Linear, nn.Softsign, nn.Linear, nn.Identity, nn.Linear, nn.Identity]
    assert [type(m) for m in model.layers] == kinds
    assert model.layers[3] is own
    x = torch.randn(7, 2, 3)
    h = plain[2](own(plain[1](plain[0](x.flatten(1)).relu())))
    assert torch.equal(model(x), plain[3](h))


def test_mlp_refusals():
    with pytest.raises(ValueError, match="nonlins: 1 given for 2 layers"):
        MLP(3, [4, 5], ["relu"])
    with pytest.raises(ValueError, match="did you mean sigmoid"):
        MLP(3, [4], ["sigmod"])
    with pytest.raises(ValueError, match=r"dims=\[\]"):
        MLP(3, [], [])


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(get_args(Activation))), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.3]),
)
def test_widths_follow_the_nonlinearities(layers, dropout):
    """Every unit in `dims` is one unit, whatever maxout and CReLU make of the widths between."""
    dims, nonlins = zip(*layers, strict=True)
    if nonlins[-1] == "crelu":
        with pytest.raises(ValueError, match=f"nonlins: the last is crelu, which would make {2 * dims[-1]} outputs"):
            MLP(3, dims, nonlins)
        return
    model = MLP(3, dims, nonlins, dropout=dropout)
    assert model(torch.randn(4, 3, 1)).shape == (4, dims[-1])
    linears = [m for m in model.layers if isinstance(m, nn.Linear)]
    assert [m.out_features // (2 if n == "maxout" else 1) for m, n in zip(linears, nonlins, strict=True)] == list(dims)
    assert sum(isinstance(m, nn.Dropout) for m in model.layers) == (len(dims) - 1 if dropout else 0)


def test_modules_have_widths_too():
    model = MLP(3, [4, 5, 2], [Maxout(3), CReLU(), None])
    assert [m.weight.shape for m in model.layers if isinstance(m, nn.Linear)] == [(12, 3), (5, 4), (2, 10)]


def test_head_drops_units_after_each_hidden_activation():
    head = classifier_head(6, [5, 4], 3, ActivationSpec("tanh"), 0.25)
    hidden = [nn.Linear, nn.Tanh, nn.Dropout]
    assert [type(m) for m in head.layers] == [*hidden, *hidden, nn.Linear, nn.Identity]
    assert {m.p for m in head.layers if isinstance(m, nn.Dropout)} == {0.25}


def test_classifier_takes_the_highest_score():
    scores = torch.tensor([[0.0, 2.0, 1.0], [5.0, -1.0, 4.0]])
    classifier = ArgMaxClassifier(nn.Identity())
    assert torch.equal(classifier(scores), scores)
    assert classifier.classify(scores).tolist() == classifier.classify_scores(scores).tolist() == [1, 0]
    assert torch.allclose(classifier.predict_proba(scores), scores.exp() / scores.exp().sum(1, keepdim=True))
    assert torch.equal(classifier.predict_proba_scores(scores), classifier.predict_proba(scores))


def test_classifier_runs_its_model():
    classifier = ArgMaxClassifier(nn.Linear(4, 3))
    x = torch.randn(5, 4)
    assert torch.equal(classifier.classify(x), classifier.model(x).argmax(1))
    assert len(list(classifier.parameters())) == 2
