"""Parameter groups by pattern, and their learning rates by schedule."""

import pytest
import torch
from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.optimizers import Muon, build_optimizer, parameter_groups
from resnet_cli.training.step import set_lr
from tests.support.small_nets import described, gradients, names_of, net


def test_by_default_all_trainable_parameters_form_one_group_in_order():
    model = net()
    model[0].weight.requires_grad_(False)
    (group,) = parameter_groups(model)
    assert described(model, [group]) == {"all": [name for name, _ in model.named_parameters()][1:]}
    assert set(group) == {"params", "name"}


def test_norms_and_biases_can_go_without_decay():
    model = net()
    model.register_parameter("map_bias", nn.Parameter(torch.zeros(2, 6, 6)))
    groups = parameter_groups(model, decay_norm_and_bias=False)
    assert described(model, groups) == {
        "all": ["0.weight", "3.weight", "5.weight"],
        "all, no decay": ["map_bias", "0.bias", "1.weight", "1.bias", "5.bias"],
    }
    assert "weight_decay" not in groups[0]
    assert groups[1]["weight_decay"] == 0


def test_the_first_matching_pattern_wins_and_no_decay_stands():
    model = net()
    groups = parameter_groups(
        model,
        decay_norm_and_bias=False,
        groups={r"^5\.": {"lr": 1.0, "weight_decay": 0.3}, "bias$": {"lr_scale": 64}},
    )
    assert described(model, groups) == {
        "other": ["0.weight", "3.weight"],
        "other, no decay": ["1.weight"],
        "^5\\.": ["5.weight"],
        "^5\\., no decay": ["5.bias"],
        "bias$, no decay": ["0.bias", "1.bias"],
    }
    assert [group.get("weight_decay") for group in groups] == [None, 0, 0.3, 0, 0]


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.AdamW, Muon])
def test_lr_replaces_and_lr_scale_multiplies(factory):
    model = net()
    overrides = {r"^0\.": {"lr": 2.0}, r"^3\.": {"lr": 2.0, "lr_scale": 0.5}, r"^5\.": {"lr_scale": 3}}
    optimizer = build_optimizer(model, factory, groups=overrides, lr=0.25)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in names_of(model, group)}
    rest = 0.1 if factory is Muon else 0.25  # its sgd_lr
    assert rates == pytest.approx(
        {
            "0.weight": 2, "0.bias": 2, "1.weight": rest, "1.bias": rest, "3.weight": 1, "5.weight": 0.75,
            "5.bias": 3 * rest,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"mlp": {}, "5.weigth": {}},
            r"'mlp' matches no parameter; the nearest are .*\ngroups: '5.weigth'.* 5.weight",
        ),
        ({"[": {}}, r"groups: '\[' is not a regular expression"),
        ({"weight": {}, "5.weight": {}}, r"'5.weight' matches only parameters that are frozen or that an earlier"),
        ({"5": {"learning_rate": 1.0}}, r"groups\.5\.learning_rate: no such option; did you mean lr"),
        ({"5": {"momentun": 1.0}}, r"groups\.5\.momentun: no such option; did you mean momentum\?"),
        ({"5": {"shedule": {}}}, r"groups\.5\.shedule: no such option; did you mean schedule\?"),
        ({"a": {"match": "5"}}, r"groups\.a\.match: no such option; the pattern is the key, as in \{5: \{lr: 0\.1\}\}"),
        ({"5": {"params": []}}, r"groups\.5\.params: no such option"),
        (
            {"5": {"lr": "fast"}, "3": {"lr_scale": -1}},
            r"groups\.5\.lr='fast': it takes a number.*\n.*\.3\.lr_scale=-1",
        ),
        ({"5": {"nesterov": 1}}, r"groups\.5\.nesterov=1: it takes true or false"),
    ],
)
def test_wrong_groups_are_refused_with_the_nearest_names(overrides, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(net(), torch.optim.SGD, groups=overrides, lr=0.1)


def test_sgd_on_groups_is_plain_sgd_when_nothing_is_on():
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    ours, plain = net(), net()
    optimizers = build_optimizer(ours, torch.optim.SGD, **options), torch.optim.SGD(plain.parameters(), **options)
    for step in range(3):
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            gradients(model, step)
            optimizer.step()
    assert all(map(torch.equal, ours.parameters(), plain.parameters()))


@pytest.mark.parametrize("tensor", [False, True])
def test_set_lr_scales_each_group_by_its_own_base_and_goes_on_after_a_restart(tensor):
    def build():
        lr = torch.tensor(0.25) if tensor else 0.25
        optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=lr)
        optimizer.param_groups[1]["lr"] = torch.tensor(2.0) if tensor else 2.0
        return optimizer

    def rates(optimizer):
        assert all(isinstance(group["lr"], torch.Tensor) == tensor for group in optimizer.param_groups)
        return [float(group["lr"]) for group in optimizer.param_groups]

    optimizer = build()
    for factor in (0.5, 0.0, 1.0, 0.25):
        set_lr(optimizer, factor)
        assert rates(optimizer) == [0.25 * factor, 2 * factor]
    again = build()
    again.load_state_dict(optimizer.state_dict())
    set_lr(again, 0.5)
    assert rates(again) == [0.125, 1]


@pytest.mark.parametrize(
    ("optimizer", "options", "words"),
    [
        (torch.optim.AdamW, {"betas": 0.9}, r"betas=0\.9: it takes a list of 2 numbers from 0 to below 1"),
        (torch.optim.AdamW, {"betas": [0.9]}, r"betas=\[0\.9\]: it takes a list of 2"),
        (torch.optim.AdamW, {"betas": [0.9, 1.5]}, r"betas=\[0\.9, 1\.5\]: it takes a list of 2"),
        (torch.optim.AdamW, {"betas": [0.9, "a"]}, r"betas=\[0\.9, 'a'\]: it takes a list of 2"),
        (torch.optim.Rprop, {"etas": [0.5, -1.0]}, r"etas=\[0\.5, -1\.0\]: it takes a list of 2 numbers 0 or more"),
        (torch.optim.SGD, {"momentum": 1.5}, r"momentum=1\.5: it takes a number from 0 to below 1"),
        (torch.optim.Adagrad, {"initial_accumulator_value": 1.0}, "has no effect on a group; set optimizer.initial"),
    ],
)
def test_options_of_groups_have_the_ranges_of_the_optimizers_own(optimizer, options, words):
    with pytest.raises(InputError, match=rf"^groups\.\^0\.(.*: )?{words}"):
        build_optimizer(net(), optimizer, groups={"^0": options})


def test_valid_lists_reach_their_group():
    optimizer = build_optimizer(net(), torch.optim.AdamW, groups={"^0": {"betas": [0, 0.5], "lr": 0}})
    assert optimizer.param_groups[-1]["betas"] == [0, 0.5]
