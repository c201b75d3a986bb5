"""Every small preset can be traced for any number of images."""

import pytest
import torch

from resnet_cli.export import files
from resnet_cli.export.graph import ExportGraph
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session import build
from resnet_cli.session.trained import TrainedRun
from resnet_cli.training.backend import Backend

DEPTHS = (32, 44, 56, 110, 164, 1001, 1202)
# Presets that differ from a smaller one in their depth or width alone.
DEEP = {f"{kind}{depth}" for kind in ("plain", "preact", "fixup", "resnet") for depth in DEPTHS}
LARGE = {
    "resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "wrn16_4",
    "wrn16_8",
    "wrn28_10",
    "wrn40_4",
    "torchvision",
    "timm",
}
NO_CLASSIFIERS = {"scalar_chain"}


def small_presets(repository):
    names = {path.stem for path in (repository / "conf/model").glob("*.yaml")}
    return sorted(names - DEEP - LARGE - NO_CLASSIFIERS)


def as_classifier(net, in_size):
    data = {"class_names": list("abcdefghij"), "in_size": list(in_size), "mean": [0.5] * 3, "std": [0.2] * 3}
    run = TrainedRun(
        file=None, run=None, settings={}, model=net.eval(), data=data, backend=Backend(torch.device("cpu")), epoch=1,
        thresholds=None, trust=False, named={},
    )  # fmt: skip
    return Classifier(run)


@pytest.mark.slow
def test_small_presets_export(repository):
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = small_presets(repository)
    assert {"resnet20", "plain20", "preact20", "fixup20", "se_resnet20", "cnn", "airbench", "residual_mlp"} <= set(
        names
    )
    for name in names:
        size = 32 if name == "airbench" else 16
        node = compose_settings([f"model={name}", "data=cifar10"]).settings["model"]
        net = build.model(node, in_size=(3, size, size), num_classes=10, seed=0)
        classifier = as_classifier(net, (3, size, size))
        batch = images.repeat_interleave(size // 16, 1).repeat_interleave(size // 16, 2).contiguous()
        program = files.trace(ExportGraph(classifier, resizes=False).eval(), batch[:2], resizes=False)
        torch.testing.assert_close(
            program.module()(batch)[0], classifier(batch), msg=lambda text, name=name: f"{name}: {text}"
        )
