"""Resizing in a graph: the decoder's pixels, bit for bit, in every mode, size and number of channels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_cli.data.images.resize import resize_image
from resnet_cli.data.loading.geometry import enlarge_center
from resnet_cli.export.resize import EnlargeCenter, ResizeImages

SIDE = st.integers(1, 70)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@given(
    size=st.tuples(SIDE, SIDE), target=st.tuples(SIDE, SIDE), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99)
)
def test_pixels_are_those_of_the_decoder(resize, interpolation, size, target, channels, seed):
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, *size, channels), dtype=torch.uint8, generator=source)
    expected = torch.stack([resize_image(image, target, resize, "#ff8000", interpolation) for image in images])
    background = expected.new_tensor([255, 128, 0]).tolist() if channels == 3 else [151]
    found = ResizeImages(*target, resize, background, interpolation)(images)
    assert torch.equal(found, expected.double())


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_any_number_of_channels(channels):
    images = torch.randint(0, 256, (3, 41, 30, channels), dtype=torch.uint8)
    expected = torch.stack([resize_image(image, (16, 24), "crop", "white") for image in images])
    assert torch.equal(ResizeImages(16, 24, "crop", [255] * channels)(images), expected.double())


@given(size=st.tuples(SIDE, SIDE), fraction=st.sampled_from([0.1, 0.5, 0.875, 0.9]))
def test_the_center_is_enlarged_as_in_evaluation(size, fraction):
    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    expected = enlarge_center(images.permute(0, 3, 1, 2), fraction).permute(0, 2, 3, 1)
    assert torch.equal(EnlargeCenter(*size, fraction)(images.double()), expected.double())
