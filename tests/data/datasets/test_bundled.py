"""The bundled digits, and generated images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.data import digits, noise, synthetic


def test_digits_are_all_there():
    data = digits(image_size=8)
    assert len(data.train) == 1442
    assert len(data.test) == 355
    both = torch.cat([data.train.images, data.test.images])
    labels = torch.cat([data.train.labels, data.test.labels])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # sum of scikit-learn's copy, whose values go from 0 to 16, after rounding to 0..255
    values = (both.double() * 16 / 255).round()
    assert values.sum() == 561718
    assert both.max() == 255
    data.validate()


def test_digits_splits_are_in_proportion_and_disjoint():
    data = digits(image_size=8)
    share = torch.bincount(data.test.labels) / (torch.bincount(data.test.labels) + torch.bincount(data.train.labels))
    assert (share - 355 / 1797).abs().max() < 0.005
    seen = {bytes(image.flatten().tolist()) for image in data.train.images}
    assert not any(bytes(image.flatten().tolist()) in seen for image in data.test.images)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_digits_come_in_the_size_asked_for(size):
    data = digits(image_size=size)
    assert data.train.images.shape == (1442, size, size, 1)
    small = digits(image_size=8).train.images.float().mean()
    assert data.train.images.float().mean() == pytest.approx(float(small), rel=0.03)


def test_digits_fit_into_fifty_kilobytes(repository):
    assert (repository / "resnet_cli" / "data" / "datasets" / "digits.npz").stat().st_size < 50_000


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(1, 20), st.integers(1, 4))
def test_synthetic_has_any_shape_and_is_a_function_of_its_arguments(count, classes, size, channels):
    options = {"count": count, "test_count": 5, "classes": classes, "image_size": size, "channels": channels}
    data, again, other = synthetic(**options), synthetic(**options), synthetic(**options, image_seed=1)
    assert data.train.images.shape == (count, size, size, channels)
    assert data.train.images.dtype == torch.uint8
    assert torch.equal(data.train.images, again.train.images)
    assert not torch.equal(data.train.images, other.train.images)
    assert set(data.train.labels.tolist()) == set(range(min(count, classes)))


def test_synthetic_classes_can_be_learnt_but_not_memorised():
    data = synthetic(count=400, test_count=200, classes=4, image_size=16, noise=0.05)
    means = torch.stack([data.train.images[data.train.labels == k].float().mean(0) for k in range(4)])
    distances = (data.test.images.float()[:, None] - means).flatten(2).norm(dim=2)
    assert (distances.argmin(1) == data.test.labels).float().mean() > 0.9
    same_size = synthetic(count=200, test_count=200, classes=4, image_size=16)
    assert not torch.equal(same_size.test.images, same_size.train.images)


def test_noise_of_synthetic_images():
    quiet, loud = (synthetic(count=64, test_count=2, classes=2, image_size=8, noise=x) for x in (0.0, 0.2))
    difference = (quiet.train.images.float() - loud.train.images.float())[
        quiet.train.images.float().sub(128).abs() < 40
    ]
    assert difference.std() == pytest.approx(0.2 * 255, rel=0.1)


def test_noise_is_random_in_images_and_labels():
    data = noise(count=3000, test_count=50, classes=4, image_size=6)
    again, other = noise(count=3000, test_count=50, classes=4, image_size=6), noise(count=3000, image_seed=1)
    assert data.train.images.shape == (3000, 6, 6, 1)
    assert torch.equal(data.train.images, again.train.images)
    assert not torch.equal(data.train.labels[:100], other.train.labels[:100])
    assert not torch.equal(data.test.images, data.train.images[:50])
    assert data.train.images.float().mean().item() == pytest.approx(127.5, abs=1.5)
    for label in range(4):
        chosen = data.train.images[data.train.labels == label].float()
        assert len(chosen) == pytest.approx(750, abs=100)
        assert chosen.mean(0).sub(127.5).abs().max() < 20  # classes have no mean of their own; its deviation is 2.7
