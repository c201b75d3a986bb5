"""Weights that are fitted to a net of other classes, channels and image sizes."""

import pytest
import torch
from torch import nn

from resnet_cli.heads import head_parameters
from resnet_cli.models import CifarResNet
from resnet_cli.models.transfer import nearest_mismatch, transfer


def net(channels=3, classes=10, **options):
    return CifarResNet((channels, 8, 8), classes, depth=8, **options)


def fitted(model, stored, **sizes):
    return transfer(model, stored, **{"in_channels": 3, "num_classes": 10, **sizes})


def test_equal_nets_take_everything():
    stored = net().state_dict()
    found = fitted(net(), stored)
    assert found.tensors.keys() == stored.keys()
    assert (found.adapted, found.new, list(found.left), found.fraction) == ({}, {}, [], 1.0)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.encoder_q."])
def test_a_common_prefix_of_the_stored_names_is_taken_off(prefix):
    stored = net().state_dict()
    found = fitted(net(), {f"{prefix}{name}": value for name, value in stored.items()} | {"queue": torch.ones(3)})
    assert all(found.tensors[name] is value for name, value in stored.items())
    assert found.left == ["queue"]


def test_a_net_inside_another_module_takes_the_weights_of_the_net():
    model = nn.ModuleDict({"backbone": net(), "scale": nn.Linear(2, 2)})
    stored = net().state_dict()
    found = fitted(model, stored)
    assert {name.removeprefix("backbone.") for name in found.tensors} == set(stored)
    assert set(found.new) == {"scale.weight", "scale.bias"}


def test_the_head_is_new_for_another_number_of_classes():
    found = fitted(net(classes=4), net().state_dict(), num_classes=4)
    assert set(found.new) == {"head.linear.weight", "head.linear.bias"}
    assert found.new["head.linear.weight"] == "10 classes in the file"
    assert found.fraction == 1.0
    assert found.left == []


def test_the_head_is_new_for_as_many_other_classes_and_a_layer_of_that_width_is_not():
    model = CifarResNet((3, 8, 8), 16, depth=8)  # its first stage is 16 wide
    found = fitted(model, model.state_dict(), num_classes=16, other_classes=True)
    assert set(found.new) == {"head.linear.weight", "head.linear.bias"} == set(head_parameters(model, 16))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 4), (3, 8), (4, 3)])
def test_the_first_convolution_is_adapted_to_other_channels(before, after):
    stored = net(before).state_dict()
    model = net(after)
    (name,) = [key for key, value in stored.items() if value.ndim == 4 and value.shape[1] == before][:1]
    found = fitted(model, stored, in_channels=after)
    assert list(found.adapted) == [name]
    assert found.adapted[name] == f"{before} -> {after} channels"
    model.load_state_dict(found.tensors)
    if before == 3:
        helpers = pytest.importorskip("timm.models")
        expected = helpers.adapt_input_conv(after, stored[name].clone())
        torch.testing.assert_close(found.tensors[name], expected)
    if after == 1:
        grey = torch.randn(2, 1, 8, 8)
        torch.testing.assert_close(
            torch.conv2d(grey, found.tensors[name]), torch.conv2d(grey.expand(2, 3, 8, 8), stored[name])
        )


class Positions(nn.Module):
    def __init__(self, side, tokens=1):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, side * side + tokens, 6))
        self.body = nn.Linear(6, 6)


def test_a_table_of_positions_is_interpolated():
    timm_layers = pytest.importorskip("timm.layers")
    before, after = Positions(4), Positions(6)
    found = fitted(after, before.state_dict())
    assert list(found.adapted) == ["pos_embed"]
    expected = timm_layers.resample_abs_pos_embed(before.pos_embed, [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(found.tensors["pos_embed"], expected)
    assert torch.equal(found.tensors["pos_embed"][:, 0], before.pos_embed[:, 0])


def test_a_layer_behind_flattened_images_of_another_size_is_new_and_the_rest_is_taken():
    def flat(side):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * side * side, 32), nn.Linear(32, 10)
        )

    found = fitted(flat(16), flat(8).state_dict())
    assert found.new == {"2.weight": "[32, 1024], [32, 256] in the file"}
    assert found.fraction == 1.0


def test_a_wider_net_takes_too_little_and_the_nearest_is_named():
    wide, narrow = net(width=2), net(width=1)
    found = fitted(narrow, wide.state_dict())
    assert found.fraction < 0.1
    assert (
        "main_path.conv1.weight [16, 16, 3, 3], the file's most similar tensor is "
        "stages.0.0.main_path.conv1.weight [32, " in nearest_mismatch(narrow, wide.state_dict(), found)
    )


def test_integers_are_no_weights():
    stored = {name: value.to(torch.int8) for name, value in net().state_dict().items()}
    assert fitted(net(), stored).fraction == 0
