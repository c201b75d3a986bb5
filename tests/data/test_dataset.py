"""Validation of data sets, and their exact statistics."""

import dataclasses

import pytest
import torch
from PIL import Image

from resnet_cli.data import Dataset, DatasetSplit, LazyImages, make_loaders
from resnet_cli.data.channel_statistics import channel_statistics
from resnet_cli.errors import InputError


def make_split(labels, c=3, h=4, w=5, seed=0):
    labels = torch.tensor(labels, dtype=torch.int64)
    pixels = torch.randint(
        0, 256, (len(labels), h, w, c), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return DatasetSplit(pixels, labels)


GOOD = Dataset("set", ("a", "b", "c"), make_split([0, 1, 2, 0]), make_split([0, 1, 2]), val=make_split([1, 2]))


def problems_of(**changes):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(GOOD, **changes).validate()
    return caught.value.problems


def test_a_good_set_passes():
    GOOD.validate()
    dataclasses.replace(GOOD, mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2]).validate()


@pytest.mark.parametrize(("changes", "words"), [
    ({"class_names": ("a", "b")}, "train split: labels go from 0 to 2, but there are 2 classes"),
    ({"test": make_split([0, 3])}, "test split: labels go from 0 to 3, but there are 3 classes"),
    ({"train": make_split([0, 1, 2, -1])}, "labels go from -1 to 2"),
    ({"class_names": ("a", "b", "c", "d")}, "the training labels have 3: no image has label 3 ('d')"),
    ({"test": make_split([])}, "test split has no images"),
    ({"val": make_split([0], h=5)}, "val split: image size differs from the training split's: 3x5x5 and 3x4x5"),
    ({"train": DatasetSplit(make_split([0]).images, torch.tensor([0, 1]))}, "has 1 image but 2 labels"),
    ({"mean": [0.5]}, "data.mean has 1 number, the images have 3 channels"),
    ({"std": [0.2, 0.0, 0.2]}, "data.std=[0.2, 0.0, 0.2]: each must be above 0"),
])  # fmt: skip
def test_inconsistencies_are_named_with_both_numbers(changes, words):
    assert any(words in problem for problem in problems_of(**changes))


@pytest.mark.parametrize(("changes", "problem"), [
    ({"mean": [123.7, 116.3, 103.5]}, "data.mean=[123.7,116.3,103.5]: each must be from 0 to 1, the scale of the images"
     "; divide by 255"),
    ({"mean": [-1, -5, 0.2]}, "data.mean=[-1,-5,0.2]: each must be from 0 to 1, the scale of the images"),
    ({"mean": [0.5, float("nan"), 0.5]}, "data.mean=[0.5,nan,0.5]: each must be from 0 to 1, the scale of the images"),
    ({"std": [1e-9, 1, 1e9]}, "data.std=[1e-09,1,1e+09]: each must be from 0 to 1, the scale of the images"),
])  # fmt: skip
def test_statistics_on_another_scale_are_refused_but_not_where_runs_are_opened(changes, problem):
    data = dataclasses.replace(GOOD, **changes)
    data.validate()
    with pytest.raises(InputError) as caught:
        data.validate_new()
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(("mean", "std"), [([0, 0, 0], [1, 1, 1]), ([0.5] * 3, [0.5] * 3), ([1.0] * 3, [1 / 255] * 3)])
def test_statistics_of_published_weights_are_on_the_scale(mean, std):
    dataclasses.replace(GOOD, mean=mean, std=std).validate_new()


def test_one_class_is_refused():
    data = Dataset("set", ("a",), make_split([0, 0]), make_split([0]))
    with pytest.raises(InputError, match="only 1 class: a classifier needs at least 2"):
        data.validate()


@pytest.mark.parametrize(("changes", "problem"), [
    ({"images": GOOD.train.images / 255}, "images are float32; must be uint8"),
    ({"images": GOOD.train.images.short()}, "images are int16; must be uint8"),
    ({"images": GOOD.train.images.numpy()}, "images are numpy.ndarray of uint8; must be a torch.Tensor of uint8"),
    ({"images": GOOD.train.images[..., 0]}, "images are [4, 4, 5]; must be [N, H, W, C]"),
    ({"labels": GOOD.train.labels.int()}, "labels are int32; must be int64 (bool [N, K] for images with"),
    ({"labels": GOOD.train.labels.float()}, "labels are float32; must be int64"),
    ({"labels": [0, 1, 2, 0]}, "labels are list; must be a torch.Tensor of int64"),
    ({"labels": torch.zeros(4, 3, dtype=torch.int64)}, "labels are int64 [4, 3]; must be int64 [N], or bool [N, K]"),
    ({"labels": torch.zeros(4, dtype=torch.bool)}, "labels are bool [4]; must be int64 [N], or bool [N, K]"),
    ({"weights": [1.0, 1.0, 1.0, 1.0]}, "weights are list; must be a tensor of floats"),
    ({"groups": [0, 0, 1, 1]}, "groups are list; must be a tensor of int64 [N]"),
    ({"groups": torch.zeros(4, 1, dtype=torch.int64)}, "groups are int64 [4, 1]; must be a tensor of int64 [N]"),
])  # fmt: skip
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_wrong_types_are_refused_in_every_split(changes, problem, part):
    (found,) = problems_of(**{part: dataclasses.replace(GOOD.train, **changes)})
    assert found.startswith(f"set: {part} split: {problem}")


@pytest.mark.parametrize(("names", "problem"), [
    ((0, 1, 2), "set: class names must be strings; 0 is int"),
    (("a", "b", None), "set: class names must be strings; None is NoneType"),
])  # fmt: skip
def test_class_names_are_strings(names, problem):
    assert problems_of(class_names=names) == (problem,)


STATISTICS = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.mark.parametrize(("changes", "problem"), [
    ({"class_names": ("a", "b", "a")}, "set: two classes are named 'a'"),
    ({"val": dataclasses.replace(GOOD.val, images=GOOD.val.images / 255)},
     "set: val split: images are float32; must be uint8"),
    ({"val": dataclasses.replace(GOOD.val, names=["0", "1", "2"])}, "set: val split has 2 images but 3 names"),
    ({"train": dataclasses.replace(GOOD.train, groups=torch.arange(5))}, "set: train split has 4 images but 5 groups"),
])  # fmt: skip
def test_what_earlier_versions_trained_on_is_refused_in_new_runs_only(changes, problem):
    data = dataclasses.replace(GOOD, **STATISTICS, **changes)
    data.validate()
    with pytest.raises(InputError) as caught:
        data.validate_new()
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(("images", "mean", "problem"), [
    (GOOD.train.images / 255, 0.5, "set: train split: images are float32; must be uint8"),
    (GOOD.train.images.short(), 0.5, "set: train split: images are int16; must be uint8"),
    (GOOD.train.images, 127.0, "data.mean=[127,127,127]: each must be from 0 to 1, the scale of the images; divide by "
     "255"),
])  # fmt: skip
def test_loaders_from_python_refuse_what_new_runs_refuse(images, mean, problem):
    train = dataclasses.replace(GOOD.train, images=images)
    data = dataclasses.replace(GOOD, train=train, mean=[mean] * 3, std=[0.2] * 3)
    with pytest.raises(InputError) as caught:
        make_loaders(data, device="cpu", seed=0)
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize("options", [{}, {"classes": ["a", "b"]}, {"train_size": 2}])
def test_wrong_types_are_refused_before_options_use_the_values(options):
    split = DatasetSplit(GOOD.train.images.numpy(), GOOD.train.labels.tolist())
    with pytest.raises(InputError) as caught:
        make_loaders(Dataset("mine", (0, 1, 2), split, GOOD.test), device="cpu", seed=0, **options)
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "mine: class names must be strings",
        "mine: train split: images are numpy.ndarray of uint8",
        "mine: train split: labels are list",
    ]


def test_all_problems_come_together():
    assert len(problems_of(test=make_split([3]), mean=[1.0], std=[1.0])) == 3


def test_sizes_are_channels_first():
    assert make_split([0, 1]).size == (3, 4, 5)
    assert make_split([0, 1]).nbytes == 2 * 60
    assert len(make_split([0, 1])) == 2


def test_statistics_are_those_of_the_chosen_images():
    data = make_split([0] * 50, c=2)
    chosen = torch.arange(0, 50, 3)
    mean, std = channel_statistics(data, chosen)
    values = data.images[chosen].double().div(255).flatten(0, 2)
    assert torch.allclose(torch.tensor(mean).double(), values.mean(0), atol=1e-7)
    assert torch.allclose(torch.tensor(std).double(), values.std(0, correction=0), atol=1e-7)


def test_a_constant_channel_gets_a_spread_of_one():
    data = DatasetSplit(torch.full((3, 2, 2, 1), 51, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert channel_statistics(data, torch.arange(3)) == ((0.2,), (1.0,))


def test_statistics_of_files_are_the_same_to_the_last_bit(tmp_path):
    data = make_split([0] * 7)
    names = [f"{i}.png" for i in range(7)]
    for image, name in zip(data.images, names, strict=True):
        Image.fromarray(image.numpy()).save(tmp_path / name)
    files = DatasetSplit(LazyImages(tmp_path, names), data.labels)
    chosen = torch.tensor([0, 2, 5])
    assert channel_statistics(files, chosen) == channel_statistics(data, chosen)
