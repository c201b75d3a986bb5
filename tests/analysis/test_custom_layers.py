"""Depth and receptive field of nets with layers of their own: right where they can be known, and else unknown."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.analysis.layer_table import depth, receptive_field

SIZE = (3, 16, 16)


class StandardisedConv(nn.Conv2d):
    def forward(self, inputs):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(inputs, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


class CosineLinear(nn.Linear):
    def forward(self, inputs):
        return F.linear(F.normalize(inputs, dim=-1), F.normalize(self.weight, dim=-1))


class SameConv(nn.Conv2d):
    """Pads as much as the size of the images requires."""

    def forward(self, inputs):
        return super().forward(F.pad(inputs, (0, 1, 0, 1)))


class PaddedIfEven(nn.Conv2d):
    """Has the shape of a plain convolution only with images of an odd side."""

    def forward(self, inputs):
        return super().forward(F.pad(inputs, (2, 2, 2, 2)) if inputs.shape[-1] % 2 == 0 else inputs)


class BlurredConv(nn.Conv2d):
    """Has the shape of a plain convolution, but sees more."""

    def forward(self, inputs):
        return super().forward(F.avg_pool2d(inputs, 3, 1, 1))


class MaskedConv(nn.Conv2d):
    """Sees only the upper half of its windows."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask[:, :, 1:] = 0

    def forward(self, inputs):
        return self._conv_forward(inputs, self.weight * self.mask, self.bias)


class TwoStepConv(nn.Conv2d):
    """Multiplies by two matrices, one after the other."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.mix = nn.Parameter(torch.randn(self.out_channels, self.out_channels, 1, 1))

    def forward(self, inputs):
        return F.conv2d(super().forward(inputs), self.mix)


class SamePooling(nn.MaxPool2d):
    def forward(self, inputs):
        return super().forward(F.pad(inputs, (0, 1, 0, 1)))


class Net(nn.Module):
    """Two 3x3 convolutions, the second of a given class, and a linear layer of a given class."""

    def __init__(self, conv=nn.Conv2d, linear=nn.Linear, between=()):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), conv(8, 8, 3, padding=1)
        self.between = nn.Sequential(*between)
        self.head = linear(8, 5)

    def forward(self, images):
        maps = self.between(self.second(self.first(images).relu()).relu())
        return self.head(maps.mean((2, 3)))


@pytest.mark.parametrize("options", [{"conv": StandardisedConv}, {"linear": CosineLinear}], ids=str)
def test_layers_with_another_forward_for_the_same_windows(options):
    model = Net(**options)
    state = torch.get_rng_state()
    assert (depth(model, SIZE), receptive_field(model, SIZE)) == (3, (5, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert (depth(model.to("meta"), SIZE), receptive_field(model, SIZE)) == (3, (5, 5))


@pytest.mark.parametrize("function", [F.max_pool2d, torch.max_pool2d])
def test_max_pooling_as_a_function_sees_whole_windows(function):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, maps):
            return self.conv(function(maps, 2, 2, 0, 1, True))

    assert receptive_field(Net(between=[Pooled()]), SIZE) == (5 + 1 + 4, 5 + 1 + 4)


class WeightReader(nn.Module):
    """Computes with the weight of a layer that it does not call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, maps):
        return F.conv2d(maps, self.layer.weight, padding=1)


class OwnWeight(nn.Module):
    """Computes with a weight that no layer owns."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.randn(8, 8, 3, 3)))

    def forward(self, maps):
        return F.conv2d(maps, getattr(self, self.name), padding=1)


class Positions(nn.Module):
    """Adds to every place."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 8, 16, 16))

    def forward(self, maps):
        return maps + F.interpolate(self.pos_embed, maps.shape[-2:])


@pytest.mark.parametrize(
    "options",
    [
        *({"conv": conv} for conv in (SameConv, PaddedIfEven, BlurredConv, MaskedConv, TwoStepConv)),
        *({"between": [layer]} for layer in (
            SamePooling(2), WeightReader(), OwnWeight("weight"), OwnWeight("kernels"), nn.ConvTranspose2d(8, 8, 2, 2)
        )),
    ],
    ids=str,
)  # fmt: skip
def test_layers_that_cannot_be_followed_make_both_unknown(options):
    model = Net(**options)
    assert model(torch.zeros(2, *SIZE)).shape == (2, 5)
    assert (depth(model, SIZE), receptive_field(model, SIZE)) == (None, None)


def test_parameters_that_are_added_and_layers_that_are_not_called_do_no_harm():
    unused = Net(between=[Positions()])
    unused.auxiliary = BlurredConv(8, 8, 3, padding=1)
    assert (depth(unused, SIZE), receptive_field(unused, SIZE)) == (3, (5, 5))


def test_a_gradient_that_vanishes_is_no_field():
    class Signs(nn.Module):
        def forward(self, maps):
            return maps.sign()

    assert receptive_field(Net(between=[Signs()]), SIZE) is None


class SEModule(nn.Module):
    def __init__(self, kernel_size=1, out_channels=8):
        super().__init__()
        self.squeeze = nn.Conv2d(8, 4, kernel_size, padding=kernel_size // 2)
        self.excite = nn.Conv2d(4, out_channels, 1)

    def forward(self, maps):
        gates = self.excite(self.squeeze(maps.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return maps * gates.mean(1, keepdim=True)


class SEBlock(SEModule):
    pass


class SqueezeExcite(SEModule):
    pass


class EffectiveSEModule(SEModule):
    pass


class Gate(SEModule):
    pass


@pytest.mark.parametrize("kind", [SEModule, SEBlock, SqueezeExcite, EffectiveSEModule])
def test_squeeze_and_excitation_is_known_by_its_name_and_its_pointwise_layers(kind):
    assert depth(Net(between=[kind()]), SIZE) == 3
    assert depth(Net(between=[kind(kernel_size=3)]), SIZE) == 5
    assert depth(Net(between=[kind(out_channels=1)]), SIZE) == 5
    assert depth(Net(between=[Gate()]), SIZE) == 5


@pytest.mark.parametrize(
    ("name", "size", "layers", "field"),
    [
        ("nf_resnet26", 64, 26, (64, 64)),
        ("resnetv2_50x1_bit", 32, 50, (32, 32)),
        ("tf_mobilenetv3_small_100", 64, None, None),
        ("seresnet18", 64, 18, (64, 64)),
        ("efficientnet_b0", 64, 50, (64, 64)),
        ("ese_vovnet19b_dw", 64, 38, (64, 64)),
        ("beit_base_patch16_224", 224, None, None),
        ("vit_tiny_patch16_224", 224, 50, None),
    ],
)
def test_nets_of_timm(name, size, layers, field):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (depth(model, (3, size, size)), receptive_field(model, (3, size, size))) == (layers, field)
