"""Class-activation maps: the formula, the package that others use, and nets without maps."""

import pytest
import torch
from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.evaluation.explain import find_feature_layer, grad_cam, overlay_maps
from resnet_cli.models import CNN, CifarResNet, ResidualMLP


def images(count=2, size=16):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def net(seed=0, **options):
    torch.manual_seed(seed)
    return CifarResNet(in_size=(3, 16, 16), out_classes=4, depth=8, **options).eval()


def test_map_is_the_weighted_sum_of_the_feature_maps():
    """With global average pooling and one linear layer, the gradient is the weight of the class (section 3.1)."""
    model = net()
    features = []
    handle = find_feature_layer(model, images()).register_forward_hook(lambda m, i, o: features.append(o.detach()))
    maps = grad_cam(model, images(), torch.tensor([1, 3]))
    handle.remove()
    head = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    expected = torch.einsum("bchw,bc->bhw", features[-1], head.weight.detach()[[1, 3]]).relu()
    expected /= expected.amax((1, 2), keepdim=True).clamp(min=1e-12)
    assert expected.any()
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("order", ["original", "preactivation"])
def test_maps_are_those_of_grad_cam(order):
    package = pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = net(order=order)
    layer = find_feature_layer(model, images())
    with package.GradCAM(model=model, target_layers=[layer]) as cam:
        activations = cam.activations_and_grads
        cam(images(), [ClassifierOutputTarget(k) for k in (0, 2)])
        expected = torch.from_numpy(
            cam.get_cam_image(
                images(), layer, [ClassifierOutputTarget(k) for k in (0, 2)], activations.activations[0].numpy(),
                activations.gradients[0].numpy(),
            )
        ).relu()  # fmt: skip
    expected /= expected.amax((1, 2), keepdim=True).clamp(min=1e-12)
    assert expected.any()
    torch.testing.assert_close(grad_cam(model, images(), torch.tensor([0, 2])), expected.float(), atol=1e-5, rtol=1e-4)


def test_nets_in_training_and_gradients_stay_as_they_were():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, images(), torch.tensor([0, 1]))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_nets_and_nets_with_pools_have_maps():
    model = net().requires_grad_(False)
    assert grad_cam(model, images(), torch.tensor([0, 1])).shape == (2, 4, 4)
    cnn = CNN((3, 16, 16), 4, channels=[4, 8], pool_every=1, hidden_dims=[]).eval()
    assert grad_cam(cnn, images(), torch.tensor([0, 1])).shape == (2, 4, 4)


def test_a_net_without_feature_maps_is_refused():
    with pytest.raises(InputError, match="--explain: ResidualMLP has no feature maps"):
        grad_cam(ResidualMLP(in_size=(3, 16, 16), out_classes=4), images(), torch.tensor([0, 1]))


def test_colours_are_strongest_where_the_map_is():
    pixels = torch.full((1, 8, 8, 1), 100, dtype=torch.uint8)
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 0] = 1
    found = overlay_maps(pixels, maps)
    assert found.shape == (1, 8, 8, 3)
    assert found[0, 0, 0].sum() > found[0, 7, 7].sum()


class Shared(nn.Module):
    """A net that uses one activation for its feature maps and for what follows them."""

    def __init__(self, is_used=True):
        super().__init__()
        self.convolution, self.head, self.activation = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.ReLU()
        self.is_used = is_used

    def forward(self, x):
        features = self.activation(self.convolution(x))
        pooled = features.mean((2, 3)) if self.is_used else x.new_ones(len(x), 4)
        return self.activation(self.head(pooled))


def test_an_activation_that_is_used_again_behind_the_feature_maps():
    torch.manual_seed(0)
    model = Shared().eval()
    nn.init.constant_(model.head.weight, 1)
    assert find_feature_layer(model, images()) is model.activation
    maps = grad_cam(model, images(), torch.tensor([0, 1]))
    assert maps.shape == (2, 14, 14)
    assert maps.amax((1, 2)).tolist() == [1, 1]


def test_feature_maps_that_are_not_used_are_refused():
    with pytest.raises(InputError, match="--explain: the classes of Shared do not depend on its last feature maps"):
        grad_cam(Shared(is_used=False).eval(), images(), torch.tensor([0, 1]))
