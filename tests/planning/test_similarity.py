"""Facts about images of one class: what is mirrored, turned, and told by colour or size."""

import pytest
import torch

from resnet_cli.planning.similarity import Sample, measure_similarity


def images_of(make, count=120, classes=2, side=16):
    """Images of a class that `make(generator, label)` draws, in turn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = [make(generator, int(label)) for label in labels]
    return Sample.of(images, [float(image.shape[0] ** 2) for image in images], labels, classes)


def noise(generator, low=0, high=60, side=16):
    return torch.randint(low, high, (side, side, 3), generator=generator, dtype=torch.uint8)


def arrow(generator, label):
    """A bright bar on the left or on the right: the class is where it is."""
    image = noise(generator)
    image[:, slice(0, 4) if label else slice(12, 16)] += 150
    return image


def bar(generator, label):
    """A horizontal bar or a vertical one, in the middle."""
    image = noise(generator)
    image[(slice(6, 10), slice(None)) if label else (slice(None), slice(6, 10))] += 150
    return image


def test_a_class_that_is_another_one_when_it_is_mirrored():
    found = measure_similarity(images_of(arrow))
    assert found["neighbour_accuracy"] == 1
    assert found["mirrored"] < 0
    assert found["upside_down"] == pytest.approx(1)


def test_a_class_that_is_another_one_when_it_is_turned():
    found = measure_similarity(images_of(bar))
    assert found["mirrored"] == found["upside_down"] == pytest.approx(1)
    assert found["turned"] < 0


def test_nothing_is_said_where_neighbours_tell_nothing():
    found = measure_similarity(images_of(lambda generator, label: noise(generator)))
    assert found["mirrored"] is found["upside_down"] is found["turned"] is None
    assert found["colour_accuracy"] < 0.5


def test_nothing_is_said_of_changes_where_few_images_leave_it_to_chance():
    all_right = measure_similarity(images_of(arrow, count=6))
    assert all_right["neighbour_accuracy"] == 1
    assert all_right["mirrored"] is not None

    def half_noise(generator, label):
        shows_it = int(torch.randint(2, (), generator=generator))
        return arrow(generator, label) if shows_it else noise(generator)

    few, many = (measure_similarity(images_of(half_noise, count=count)) for count in (30, 1500))
    assert few["neighbour_accuracy"] > 0.5
    assert few["mirrored"] is None
    assert many["mirrored"] < 0.1


def test_colour_and_scale_that_tell_the_class():
    found = measure_similarity(images_of(lambda g, label: noise(g, high=60) + 100 * label))
    assert found["colour_accuracy"] == 1
    assert found["scale_accuracy"] == 0
    found = measure_similarity(images_of(lambda g, label: noise(g, side=8 + 8 * label)))
    assert found["scale_accuracy"] == 1


def test_an_image_says_nothing_about_itself():
    labels = torch.arange(6)  # each image is the only one of its class
    sample = Sample.of([noise(torch.Generator().manual_seed(i)) for i in range(6)], [1.0] * 6, labels, 6)
    found = measure_similarity(sample)
    assert found["neighbour_accuracy"] == found["colour_accuracy"] == 0


def with_copies(sample, times):
    """Return a sample with each image several times."""
    images = sample.images_BCHW.repeat(times, 1, 1, 1)
    return Sample(images, sample.labels.repeat(times), sample.areas.repeat(times), sample.classes)


def test_copies_do_not_change_what_is_said_of_mirrored_images():
    def sometimes_clear(generator, label):
        is_clear = int(torch.randint(10, (), generator=generator)) < 6
        return bar(generator, label) if is_clear else noise(generator)

    once = images_of(sometimes_clear, count=900)
    found = measure_similarity(once)
    assert found["neighbour_accuracy"] < 0.9
    assert found["mirrored"] > 0.8
    copied = measure_similarity(with_copies(once, 3))
    for name in ("neighbour_accuracy", "mirrored", "upside_down", "turned"):
        assert copied[name] == found[name]


def test_images_of_which_all_are_copies_say_nothing_of_changes():
    found = measure_similarity(images_of(lambda generator, label: torch.full((16, 16, 3), 90 + label).byte()))
    assert found["mirrored"] is None
    assert found["colour_accuracy"] == 1  # copies count in it
