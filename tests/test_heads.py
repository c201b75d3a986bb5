"""The head of a net: by its number of outputs, its name and its place; and that it is the same for every use."""

import pytest
import torch
from torch import nn

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.heads import LAYERS, find_head, head_parameters
from resnet_cli.models.transfer import transfer
from resnet_cli.optimizers import build_optimizer, depth
from resnet_cli.optimizers.depth import find_blocks
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.schedules import RunLength
from resnet_cli.session import build
from resnet_cli.session.freezing import build_freezing, require_trained_groups
from resnet_cli.training.state import TrainState
from tests.support import tiers
from tests.support.runs import assert_equal, tiny
from tests.support.settings import settings_of

PRESETS = sorted({path.stem for path in (CONFIG_FOLDER / "model").glob("*.yaml")} - {"scalar_chain", "timm"})


class HeadFirst(nn.Module):
    """Registers its head before the layers that are called before it."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        return self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("classes", [10, 16, 64])
@pytest.mark.parametrize("name", tiers.mostly_slow(PRESETS, every=8))
def test_the_head_of_a_preset_is_its_last_layer(name, classes):
    """Runs of earlier versions, whose head was the last layer, resume with the same parameter groups."""
    with torch.device("meta"):
        model = build.instantiate("model", settings_of(f"model={name}")["model"], {
            "in_size": (3, 32, 32), "in_channels": 3, "out_classes": classes, "num_classes": classes,
        })  # fmt: skip
    last = [module for module in model.modules() if isinstance(module, LAYERS)][-1]
    assert find_head(model, classes) == [last] == find_head(model)


@pytest.mark.parametrize("classes", [5, 8])
def test_a_head_that_is_registered_first(classes):
    model = HeadFirst(classes)
    assert head_parameters(model, classes) == ["head.weight", "head.bias"]
    optimizer = build_optimizer(model, torch.optim.SGD, lr=0.1, head_lr=0.5, layer_decay=0.5, num_classes=classes)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[f"{name}.weight"] for name in ("head", "second", "first")] == [0.5, 0.05, 0.025]
    blocks = [[names[parameter] for parameter in block] for block in find_blocks(model, classes)]
    assert blocks == [["first.weight", "first.bias"], ["second.weight", "second.bias"]]
    built = build.optimizer({"_target_": "torch.optim.SGD", "lr": 0.1, "head_lr": 0.5}, model, classes)
    assert {id(p) for p in built.param_groups[-1]["params"]} == {id(p) for p in model.head.parameters()}
    stored = dict(HeadFirst(classes + 1).state_dict())
    assert set(transfer(model, stored, in_channels=3, num_classes=classes).new) == {"head.weight", "head.bias"}


HEAD_FIRST = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head, self.first = nn.Linear(8, num_classes), nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.head(self.first(images).relu().mean((2, 3)))
"""


def test_runs_of_former_versions_keep_their_rule_for_the_head(train, tmp_path, monkeypatch):
    """It was the last layer, whose learning rate `optimizer.head_lr` set."""
    (tmp_path / "nets_with_head_first.py").write_text(HEAD_FIRST)
    own = ["model._target_=nets_with_head_first.Net", "optimizer.head_lr=0.5", "schedule=constant"]

    def mark_as_former(state):
        post_init(state)
        state.splits_evenly = False

    def weights_of(run):
        return checkpoints.load(RunDir(tmp_path / run).last)["state"]["model"]

    with monkeypatch.context() as former:
        post_init = TrainState.__post_init__
        former.setattr(TrainState, "__post_init__", mark_as_former)
        former.setattr(depth, "find_head", lambda model, num_classes=None: find_head(model))
        assert train(*tiny(*own, "hydra.run.dir=whole"))[0] == 0
        assert train(*tiny(*own, "hydra.run.dir=parts", "trainer.epochs=1"))[0] == 0
    assert train("resume=parts", "trainer.epochs=2", "trust=true")[0] == 0
    assert train(*tiny(*own, "hydra.run.dir=now"))[0] == 0
    assert_equal(weights_of("parts"), weights_of("whole"))
    assert not torch.equal(weights_of("now")["head.weight"], weights_of("whole")["head.weight"])


def test_the_rate_of_a_head_that_is_trained_beside_frozen_layers():
    model, optimizer = HeadFirst(), {"_target_": "torch.optim.SGD", "head_lr": 0.5}
    freezing = build_freezing({**settings_of()["trainer"], "freeze": "first|second"}, model, RunLength(10, 10))
    require_trained_groups(optimizer, model, freezing, 5)
    freezing = build_freezing({**settings_of()["trainer"], "freeze": "head"}, model, RunLength(10, 10))
    with pytest.raises(InputError, match=r"optimizer\.head_lr=0\.5 applies only to"):
        require_trained_groups(optimizer, model, freezing, 5)


def test_a_layer_without_an_output_for_each_class():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Flatten())
    assert find_head(model, 5) == find_head(model) == [model[1]]
    assert find_head(nn.Sequential(nn.ReLU()), 5) == []
    assert find_head(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5)), 5)[0].in_features == 5, "not both"


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("levit_128", ["head.linear", "head_dist.linear"]),
        ("crossvit_9_240", ["head.0", "head.1"]),
        ("swiftformer_xs", ["head", "head_dist"]),
        ("volo_d1_224", ["aux_head", "head"]),
        ("seresnet18", ["fc"]),
    ],
)
def test_nets_of_timm_with_several_heads(name, heads):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    names = {module: name for name, module in model.named_modules()}
    assert [names[head] for head in find_head(model, 7)] == heads
