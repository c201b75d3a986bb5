"""The perceptron, the activations and the classifier on top."""

import pytest
import torch
from torch import nn

from resnet_cli.models import MLP, ArgMaxClassifier
from resnet_cli.models.activations import LAYERS, activation


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


def test_activations():
    x = torch.linspace(-2, 2, 8)[None]
    for name in set(LAYERS) - {"maxout", "crelu"}:
        assert activation(name)(x).shape == x.shape
    assert torch.equal(activation("none")(x), x)
    assert torch.equal(activation("elu", {"alpha": 2.0})(x), nn.functional.elu(x, 2.0))
    assert activation("relu") is not activation("relu")
    with pytest.raises(ValueError, match=r"activation_params\.alfa: ELU takes alpha, inplace; did you mean alpha\?"):
        activation("elu", {"alfa": 2.0})
    with pytest.raises(ValueError, match=r"activation_params\.alpha: Identity takes no options"):
        activation("none", {"alpha": 2.0})


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
