"""Scores over views of images, beside the plain ones of the same reading."""

import pytest
import torch
from torch import nn

from resnet_cli.training.evaluation import evaluate
from resnet_cli.training.tta import AveragedViews
from tests.support.trainers import loader, make_trainer


def sided_net():
    """A net that a mirror image and a shift make answer otherwise."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("tta", ["flip", "flip_translate"])
def test_both_scores_are_those_of_two_evaluations(tta):
    net = sided_net()
    both = evaluate(net, loader(), device=torch.device("cpu"), tta=tta)
    plain = evaluate(net, loader(), device=torch.device("cpu"))
    views = evaluate(AveragedViews(net, tta), loader(), device=torch.device("cpu"))
    assert (both.loss, both.accuracy, both.balanced_accuracy) == (plain.loss, plain.accuracy, plain.balanced_accuracy)
    assert plain.tta is None
    assert (both.tta.loss, both.tta.accuracy) == (views.loss, views.accuracy)
    assert both.tta.loss != plain.loss
    assert both.count == both.tta.count


def test_batches_are_read_once():
    reads = []

    class Counted(list):
        def __iter__(self):
            reads.append(1)
            return super().__iter__()

    evaluate(sided_net(), Counted(loader()), device=torch.device("cpu"), tta="flip_translate")
    assert reads == [1]


def test_the_mean_over_views_is_taken_in_float32():
    net = sided_net()
    trainer = make_trainer(net, precision="bf16")
    found = trainer.evaluate(loader(), tta="flip").tta
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net.eval()
        outputs = [(net(x).float() + net(x.flip(-1)).float()) / 2 for x, _ in loader()]
    labels = torch.cat([y for _, y in loader()])
    assert found.loss == pytest.approx(nn.functional.cross_entropy(torch.cat(outputs), labels).item(), rel=1e-6)


def test_shifted_views_keep_the_memory_format_of_the_images():
    seen = []

    def net(images):
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return images.mean((2, 3))

    AveragedViews(net, "flip_translate")(torch.rand(2, 3, 5, 4).to(memory_format=torch.channels_last))
    assert seen == [True] * 6
