"""Labels of other images in the run's classes, where some are of none of these, and the advice to leave them out."""

import shlex
from types import SimpleNamespace

import torch

from resnet_cli.evaluation.images import EvaluatedImages, _is_known, _options_without

PLACES = torch.tensor([1, -1, 0])  # three classes; the run has the third and the first of them


def test_of_several_labels_those_that_the_run_does_not_know_are_dropped():
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    images = EvaluatedImages((), [], None, PLACES, 2)
    assert images._relabelled(labels).tolist() == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]


def test_an_image_is_left_out_if_the_run_knows_none_of_its_labels():
    assert _is_known(torch.tensor([0, 1, 2, 1]), PLACES).tolist() == [True, False, True, False]
    several = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert _is_known(several, PLACES).tolist() == [True, False, True]


def test_the_advice_quotes_names_of_classes_and_has_the_place_of_images_that_have_moved():
    data = {"_target_": "resnet_cli.data.image_folder", "root": "photos", "cache": None}
    moved = {**data, "root": "new photos", "cache": "pixels"}
    run = SimpleNamespace(run=None, settings={"data": data}, other_data=moved)
    _, _, options = _options_without(run, "test", ["Cherry_(sour)", "it's", "1.0", "cat"], None).partition(" with ")
    classes = """classes=["Cherry_(sour)","it's","1.0",cat]"""
    assert shlex.split(options) == ["--split", "test", "--data", "root=new photos", "--data", classes]
