"""Parameter groups with optimizers of their own: each steps as alone, and goes on after a restart."""

import copy

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.optimizers import CombinedOptimizer, Muon, build_optimizer
from resnet_cli.training.step import lrs_by_group, set_lr
from tests.support.small_nets import described, gradients, net

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True}


def muon(groups):
    return Muon(groups, lr=0.24, renormalise=True)


def adamw(groups):
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


GROUPS = {r"^[03]\.weight": {"optimizer": muon}, r"^5\.": {"optimizer": adamw, "schedule": {}}, "^0": {"lr_scale": 2}}


def build(model, groups=GROUPS, **options):
    return build_optimizer(model, torch.optim.SGD, groups=groups, **SGD, **options)


def test_each_optimizer_has_the_parameters_of_its_pattern_and_the_run_s_the_rest():
    model = net()
    optimizer = build(model, decay_norm_and_bias=False)
    assert isinstance(optimizer, CombinedOptimizer)
    assert [type(part) for part in optimizer.combined_optimizers] == [torch.optim.SGD, Muon, torch.optim.AdamW]
    assert [described(model, part.param_groups) for part in optimizer.combined_optimizers] == [
        {"other, no decay": ["1.weight", "1.bias"], "^0, no decay": ["0.bias"]},
        {r"^[03]\.weight": ["0.weight", "3.weight"]},
        {r"^5\.": ["5.weight"], r"^5\., no decay": ["5.bias"]},
    ]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0, 0, 0.1, 0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.24, 0.01, 0.01]
    assert [group.get("schedule") for group in optimizer.param_groups] == [None] * 3 + [r"^5\."] * 2
    assert optimizer.defaults["lr"] == 0.1


def test_a_step_is_that_of_separate_optimizers():
    ours, theirs = net(), net()
    combined = build(ours)
    named = dict(theirs.named_parameters())
    separate = [
        torch.optim.SGD(
            [{"params": [named["1.weight"], named["1.bias"]]}, {"params": [named["0.bias"]], "lr": 0.2}], **SGD
        ),
        muon([named["0.weight"], named["3.weight"]]),
        adamw([named["5.weight"], named["5.bias"]]),
    ]  # fmt: skip
    for step in range(4):
        for model in (ours, theirs):
            gradients(model, step)
        set_lr(combined, 1 / (1 + step), {r"^5\.": 0.5})
        for optimizer, factor in zip(separate, (1 / (1 + step), 1 / (1 + step), 0.5), strict=True):
            set_lr(optimizer, factor)
            optimizer.step()
        combined.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_it_goes_on_exactly_after_a_restart(tmp_path):
    def train(model, optimizer, begin, end):
        for step in range(begin, end):
            set_lr(optimizer, 1 / (1 + step), {r"^5\.": 1.0})
            gradients(model, step)
            optimizer.step()

    whole, parts = net(), net()
    train(whole, build(whole), 0, 5)
    first = build(parts)
    train(parts, first, 0, 2)
    torch.save({"model": parts.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    again = net()
    again.load_state_dict(stored["model"])
    second = build(again)
    second.load_state_dict(stored["optimizer"])
    for part in second.combined_optimizers:
        assert part.state is second.state
        assert all(any(group is other for other in second.param_groups) for group in part.param_groups)
    train(again, second, 2, 5)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


def test_rates_are_told_by_group_where_they_differ():
    optimizer = build(net())
    set_lr(optimizer, 0.5, {r"^5\.": 0.25})
    assert lrs_by_group(optimizer) == pytest.approx({"other": 0.05, "^0": 0.1, r"^[03]\.weight": 0.12, r"^5\.": 0.0025})
    assert lrs_by_group(build(net(), {})) is None
    own = build(net(), {"^5": {"schedule": {}}})  # equal at first
    set_lr(own, 1.0, {"^5": 0.5})
    assert lrs_by_group(own) == {"other": 0.1, "^5": 0.05}
    assert lrs_by_group(build(net(), {}, decay_norm_and_bias=False)) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"5": {"optimizer": adamw, "lr": 1.0}}, r"groups\.5\.lr: has no effect beside an optimizer of the group"),
        ({"": {"optimizer": adamw}}, "groups: all parameters have optimizers of their own"),
        ({"head": {"optimizer": adamw}}, "'head' matches no parameter"),
        (
            {"5": {"optimizer": torch.optim.LBFGS}},
            r"groups\.5\.optimizer\._target_: LBFGS requires a closure",
        ),
    ],
)  # fmt: skip
def test_wrong_groups_are_refused(groups, message):
    with pytest.raises(InputError, match=message):
        build(net(), groups)


def test_a_copy_takes_the_same_steps():
    model = net()
    optimizer = build(model)
    gradients(model)
    optimizer.step()
    other, copied = copy.deepcopy((model, optimizer))
    assert all(part.state is copied.state for part in copied.combined_optimizers)
    gradients(model, 1)
    gradients(other, 1)
    optimizer.step()
    copied.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_closures_and_state_dicts_are_those_of_any_optimizer():
    model = net()
    optimizer = build(model)
    gradients(model)
    assert optimizer.step(lambda: 3.0) == 3.0
    state = copy.deepcopy(optimizer.state_dict())
    assert len(state["state"]) == len(list(model.parameters()))
    assert [group["name"] for group in state["param_groups"]] == ["other", "^0", r"^[03]\.weight", r"^5\."]
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
