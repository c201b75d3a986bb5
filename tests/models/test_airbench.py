"""The airbench network: its size, its norms without scale, its initialisation."""

import pytest
import torch
from torch import nn

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.models import Airbench
from resnet_cli.models.inspection import count_parameters


def small(**options):
    torch.manual_seed(0)
    return Airbench((3, 25, 27), 4, widths=[24, 30, 8], **options)


def test_counts():
    with torch.device("meta"):
        model = Airbench((3, 32, 32), 10)
    assert count_parameters(model) == sum(p.numel() for p in model.parameters()) == 1_971_640
    assert f"{count_multiply_adds(model, (3, 32, 32)) / 1e6:.2f}" == "118.15"
    assert model.features[0].out_channels == 24


def test_norms_learn_a_shift_only():
    model = small()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    model(torch.randn(4, 3, 25, 27)).sum().backward()
    assert norm.bias.grad.abs().sum() > 0
    plain = nn.BatchNorm2d(24, eps=1e-12, momentum=0.4)
    x = torch.randn(4, 24, 3, 3)
    norm.reset_running_stats()
    assert torch.allclose(norm(x), plain(x), atol=1e-5)
    assert torch.allclose(norm.running_var, plain.running_var)


def test_partial_identity_passes_inputs_on():
    convs = [m for m in small().features[1:] if isinstance(m, nn.Conv2d)]
    x = torch.randn(1, 24, 5, 5)
    assert torch.equal(convs[0](x), x)
    assert torch.equal(convs[2](x)[:, :24], x), "24 channels into 30: the first 24 are the input"
    wide = torch.randn(1, 30, 5, 5)
    assert torch.equal(convs[4](wide), wide[:, :8]), "30 channels into 8: the outputs are the first 8 inputs"
    default = [m for m in small(init="default").features[1:] if isinstance(m, nn.Conv2d)]
    assert not torch.equal(default[0](x), x)
    assert torch.equal(default[2].weight[24:], convs[2].weight[24:]), "the other outputs keep their draw"


def test_whitening_is_partial_identity_with_a_white_first_convolution():
    nets = {init: small(init=init) for init in ("partial_identity", "whitening")}
    white, other = nets["whitening"], nets["partial_identity"]
    assert white.init == Airbench((3, 32, 32), 10).init == "whitening"
    images = torch.randn(50, 3, 25, 27) @ torch.randn(27, 27)
    images /= images.std()
    (line,) = white.initialise_from_data(images)
    assert line.startswith("whitening on 50 images: 24 of 24 filters of features.0, eigenvalues ")
    changed = [
        n for (n, a), b in zip(white.state_dict().items(), other.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    ]  # fmt: skip
    assert changed == ["features.0.weight", "features.0.bias"]
    outputs = white.features[0](images).detach().transpose(0, 1).flatten(1)
    covariance = torch.cov(outputs, correction=0)
    torch.testing.assert_close(covariance[:12, :12], torch.eye(12), rtol=0, atol=0.05)
    torch.testing.assert_close(outputs[12:], -outputs[:12])
    assert other.initialise_from_data(images) == small(init="default").initialise_from_data(images) == []


def test_an_unknown_init_is_refused():
    with pytest.raises(ValueError, match="init='he': must be one of default, partial_identity, whitening"):
        small(init="he")


def test_scores_are_scaled():
    a, b = small(scale=1.0).eval(), small(scale=0.25).eval()
    x = torch.randn(2, 3, 25, 27)
    assert torch.allclose(a(x) * 0.25, b(x))
    assert a(x).shape == (2, 4)


@pytest.mark.parametrize("side", [28, 49, 64])
def test_other_sizes(side):
    model = Airbench((1, side, side), 3, widths=[4, 4, 4])
    assert model(torch.zeros(2, 1, side, side)).shape == (2, 3)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match=r"in_size=\[3, 24, 32\]: height and width must be 25 or more"):
        Airbench((3, 24, 32), 10)


def test_the_network_of_airbench96():
    with torch.device("meta"):
        model = Airbench(
            (3, 32, 32), 10, widths=[128, 384, 512], convolutions=3, skip_connections=True, norm_momentum=0.1
        )
    filters = 9 * sum(a * b + 2 * b * b for a, b in [(24, 128), (128, 384), (384, 512)])
    assert count_parameters(model) == 24 * 13 + filters + 3 * (128 + 384 + 512) + 5120
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert len(norms) == 9


def test_shortcuts_go_around_the_later_convolutions_of_a_group():
    model = small(convolutions=3, skip_connections=True, init="default").eval()
    first, block = model.features[2:6], model.features[6]
    x = torch.randn(2, 24, 8, 8)
    inside = first(x)
    a, norm_a, _, b, norm_b = block.main_path
    expected = nn.functional.gelu(norm_b(b(nn.functional.gelu(norm_a(a(inside))))) + inside)
    torch.testing.assert_close(model.features[2:7](x), expected)


def test_the_last_layer_starts_with_a_given_spread():
    spread, plain = small(head_std=1.0), small()
    assert spread.head.weight.std().item() == pytest.approx(1)
    torch.testing.assert_close(spread.head.weight, plain.head.weight / plain.head.weight.std())
