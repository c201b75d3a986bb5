"""Grey, blur and solarise compared with torchvision's."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from resnet_cli.data.loading import color
from tests.support.augmentation import draws, noise_images, same_numbers


def test_grey_and_solarise_change_pixels_as_torchvision():
    images = noise_images(6)
    assert torch.equal(color.grey(images), functional.rgb_to_grayscale(images, num_output_channels=3))
    assert torch.equal(color.solarise_half(images), functional.solarize(images, 128))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_changes_pixels_as_torchvision(channels):
    """To one level: the kernel is applied along rows, then along columns."""
    images = noise_images(20, (12, 17), channels)
    sigma = draws(20).between("s", *color.BLUR_SIGMA)
    for size in (3, 7):
        found = color.blur(images, sigma, size)
        expected = [functional.gaussian_blur(i, [size, size], [s]) for i, s in zip(images, sigma.tolist(), strict=True)]
        difference = (found.int() - torch.stack(expected).int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3


def test_the_kernel_of_a_blur_grows_with_the_image():
    assert [color.blur_kernel_size(size, 300) for size in (2, 32, 64, 224)] == [3, 3, 7, 23]


def test_sigma_is_drawn_as_torchvision_draws_it():
    torch.manual_seed(0)
    expected = [v2.GaussianBlur(3, color.BLUR_SIGMA).make_params([])["sigma"][0] for _ in range(800)]
    assert same_numbers(draws().between("blur sigma", *color.BLUR_SIGMA), expected) > 0.01
