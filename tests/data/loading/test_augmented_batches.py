"""Augmented batches of the loaders: the same for every backend, number of workers, batch size and point of resuming."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from resnet_cli.data import Augment, DatasetSplit, make_loaders
from resnet_cli.data.loading import geometry as G
from resnet_cli.data.loading.user_transforms import find_problems
from resnet_cli.errors import InputError
from tests.support import tiers
from tests.support.augmentation import noise_images
from tests.support.loaders import small_data_set, small_loaders

PER_SAMPLE = [
    {"policy": "randaugment"}, {"policy": "trivial_augment"}, {"policy": "autoaugment"}, {"policy": "augmix"},
    {"resized_crop": (0.2, 1)}, {"rotation": 40, "translate": 0.2, "scale": (0.5, 2), "shear": 20}, {"erase": 0.7},
    {"grey": 0.5}, {"blur": 0.5}, {"solarise": 0.5}, {"transforms": [v2.ColorJitter(0.4), v2.RandomVerticalFlip()]},
]  # fmt: skip
MIXED = {"policy": "randaugment", "flip": "random", "crop": 1, "resized_crop": (0.3, 1), "erase": 0.5, "mixup": 0.3}


def epochs(loader, *numbers):
    return [[batch.clone() for batch, _ in loader.epoch(number)] for number in numbers]


def by_label_and_order(loader, number):
    """Images of an epoch in their order, whatever the batches."""
    return torch.cat([images for images, _ in loader.epoch(number)])


@pytest.mark.parametrize("augment", PER_SAMPLE, ids=lambda augment: next(iter(augment.values()), ""))
def test_draws_do_not_depend_on_the_batch(augment):
    one, other = (small_loaders(augment=augment, batch_size=size, train_size=40).train for size in (8, 20))
    images = by_label_and_order(one, 1)
    assert torch.equal(images, by_label_and_order(other, 1))
    plain = by_label_and_order(small_loaders(augment=None, train_size=40).train, 1)
    changed = (images != plain).flatten(1).any(1)
    assert changed.float().mean() > 0.25
    assert not torch.equal(images, by_label_and_order(one, 2))
    assert not torch.equal(images, by_label_and_order(small_loaders(augment=augment, train_size=40, seed=2).train, 1))


@pytest.mark.parametrize(
    "augment",
    tiers.mostly_slow([*PER_SAMPLE, MIXED, MIXED | {"repeats": 3}], every=4),
    ids=lambda a: next(iter(a.values())),
)
def test_backends_and_numbers_of_workers_yield_the_same_batches(augment):
    expected = epochs(small_loaders(augment=augment).train, 0, 1)
    for workers in (0, 2):
        train = small_loaders(augment=augment, backend="stream", workers=workers).train
        for mine, theirs in zip(expected, epochs(train, 0, 1), strict=True):
            assert all(map(torch.equal, mine, theirs))


@pytest.mark.parametrize("augment", [MIXED, MIXED | {"repeats": 3}])
def test_an_epoch_continues_in_its_middle(augment):
    train = small_loaders(augment=augment).train
    whole = list(train.epoch(3))
    rest = list(train.epoch(3, start=4))
    assert len(rest) == len(whole) - 4
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[4:], strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


def test_repeats_show_an_image_several_times_in_a_batch_each_time_augmented_anew():
    options = {"batch_size": 8, "train_size": 40}
    plain = small_loaders(augment={"repeats": 4}, **options).train
    train = small_loaders(augment={"repeats": 4, "resized_crop": (0.2, 1), "rotation": 90}, **options).train
    assert len(train) == len(plain) == 5
    for (same, _), (images, _) in zip(plain.epoch(1), train.epoch(1), strict=True):
        copies = torch.arange(8) % 2  # those of an image are two places apart
        for image in range(2):
            assert all(torch.equal(same[copies == image][0], other) for other in same[copies == image])
            assert len({tuple(other.flatten().tolist()) for other in images[copies == image]}) == 4
    with pytest.raises(InputError, match=r"data\.augment\.repeats=9: a batch has 8 images"):
        small_loaders(augment={"repeats": 9})


def test_erasing_has_its_probability_and_erases_after_normalisation():
    images = torch.rand(2000, 1, 12, 12) + 1
    erased = Augment(erase=0.25).erase_boxes(images, torch.arange(2000), epoch=0, seed=0)
    kept = (erased == images).flatten(1).all(1)
    assert 0.21 < 1 - kept.float().mean() < 0.29
    assert (erased[~kept] == 0).any()
    assert Augment().erase_boxes(images, torch.arange(2000), epoch=0, seed=0) is images


def test_evaluation_takes_the_centre_of_validation_and_test_images_alone():
    whole, centre = small_loaders(augment=None), small_loaders(augment=None, eval_crop=0.67)
    for name in ("val", "test"):
        before, after = getattr(whole, name), getattr(centre, name)
        raw = torch.cat([images for images, _ in before])
        pixels = whole.test.resident.images if name == "test" else before.resident.images[before.indices]
        expected = G.enlarge_center(pixels.permute(0, 3, 1, 2), 0.67).permute(0, 2, 3, 1)
        assert torch.equal(torch.cat([images for images, _ in after]), after.normalize(expected))
        assert not torch.equal(raw, after.normalize(expected))
    assert torch.equal(by_label_and_order(whole.train, 0), by_label_and_order(centre.train, 0))


def test_transforms_leave_the_global_random_streams_as_they_were():
    class Own(torch.nn.Module):
        def forward(self, image):
            return image + torch.randint(0, 9, (), dtype=torch.uint8) + np.random.randint(9)

    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    images, numbers = noise_images(20), torch.arange(20)

    def apply(images, numbers):
        source = torch.Generator()
        return Augment(transforms=[Own()]).transform_pixels(images, numbers, epoch=1, seed=2, generator=source)

    found = apply(images, numbers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(apply(images[5:9], numbers[5:9]), found[5:9])
    assert len((found.int() - images.int()).flatten(1)[:, 0].unique()) > 5


def searching(image):
    return {}["table"]


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (v2.Resize(5), "data.augment.transforms[0]: Resize changes the size of the image from 3x8x8 to 3x5x5"),
        (v2.RandomResize(5, 9), "changes the size"),
        (v2.ToDtype(torch.float32, scale=True), "returns float32; it must stay uint8"),
        (v2.Normalize([0.5] * 3, [0.5] * 3), "Normalize does not take a uint8 image of 3x8x8"),
        (torch.nn.Linear(3, 3), "Linear does not take a uint8 image"),
        (searching, "image of 3x8x8: KeyError: 'table' (test_augmented_batches.py:"),
        (v2.ToPILImage(), "returns a Image, not an image"),
        (5, "data.augment.transforms[0]: int is not a transform"),
    ],
)
def test_what_is_no_transform_is_refused_with_one_line(transform, problem):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    (line,) = find_problems([transform], (3, 8, 8))
    assert problem in line
    assert "\n" not in line
    assert torch.equal(torch.get_rng_state(), state)
    assert find_problems([v2.RandomVerticalFlip(), v2.RandomErasing(), v2.RandomInvert()], (3, 8, 8)) == []


def test_a_transform_that_changes_the_size_now_and_then_is_refused_when_it_does():
    class Rare(torch.nn.Module):
        def forward(self, image):
            return image[:, 1:] if image[0, 0, 0] == 77 else image

    with pytest.raises(InputError, match="Rare changes the size"):
        Augment(transforms=[Rare()]).transform_pixels(
            noise_images(9), torch.arange(9), epoch=0, seed=0, generator=torch.Generator()
        )


def test_colours_of_other_numbers_of_channels_are_refused():
    with pytest.raises(InputError) as caught:
        Augment(policy="randaugment", grey=0.5, saturation=0.5).validate((5, 8, 8))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "data.augment.saturation=0.5", "data.augment.grey=0.5", "data.augment.policy=randaugment"
    ]  # fmt: skip
    Augment(policy="randaugment").validate((1, 8, 8))
    with pytest.raises(InputError, match=r"data\.augment\.scale=\[2, 1\]: the first"):
        Augment(scale=(2, 1)).validate((3, 8, 8))
    with pytest.raises(InputError, match=r"data\.augment\.erase_area=\[0.3, 0.1\]: the first"):
        Augment(erase_area=(0.3, 0.1)).validate((3, 8, 8))
    with pytest.raises(InputError, match=r"data\.augment\.blur=0\.5: 1x8 images"):
        Augment(blur=0.5).validate((3, 1, 8))
    names = {
        "rotation": 9,
        "translate": 0.1,
        "erase": 1,
        "blur": 1,
        "solarise": 1,
        "resized_crop": (0.5, 1),
        "shear": 9,
    }
    images = noise_images(12, channels=5)
    split = DatasetSplit(images.permute(0, 2, 3, 1), torch.arange(12) % 3)
    data = small_data_set()
    data = type(data)(name="x", class_names=data.class_names, train=split, test=split)
    loaders = make_loaders(data, device="cpu", seed=0, val_fraction=0, augment=Augment(**names))
    assert [batch.shape for batch, _ in loaders.train] == [(12, 5, 16, 16)]
