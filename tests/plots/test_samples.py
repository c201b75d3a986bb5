"""samples.png: pixels and names of a batch."""

import io

import numpy as np
import torch
from PIL import Image

from resnet_cli.plots.contact_sheet import GAP, LINE, MARGIN, MIN_TILE
from resnet_cli.plots.samples import caption_lines, draw_samples

NAMES = ["cat", "dog", "owl"]


def draw(images, labels, names=NAMES, mean=(0.5,), std=(0.25,)):
    return draw_samples(images, labels, class_names=names, mean=mean, std=std, title="run")


def pixels_of(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_samples_show_the_pixels_before_the_normalisation_in_their_places():
    values = torch.tensor([[0.0, 51, 102, 255]]).view(4, 1, 1, 1).expand(4, 1, 8, 8) / 255
    found = pixels_of(draw((values - 0.5) / 0.25, torch.tensor([0, 1, 2, 0])))
    top = MARGIN + 2 * LINE
    for place, value in enumerate((0, 51, 102, 255)):
        left = MARGIN + place * (MIN_TILE + GAP)
        assert (found[top : top + MIN_TILE, left : left + MIN_TILE] == value).all()


def test_samples_of_any_number_of_channels_and_size_are_drawn_the_same_twice():
    for channels, height, width in ((1, 8, 8), (2, 7, 5), (3, 300, 20), (13, 1, 1)):
        images = torch.randn(40, channels, height, width, generator=torch.Generator().manual_seed(0))
        images[0] = float("nan")
        labels = torch.arange(40) % 3
        options = {"mean": [0.5] * channels, "std": [0.2] * channels}
        assert draw(images, labels, **options) == draw(images, labels, **options)


def test_captions_name_the_class_the_shares_of_mixed_images_and_several_labels():
    assert caption_lines(torch.tensor(1), NAMES) == ["dog"]
    assert caption_lines(torch.tensor([0.3, 0.0, 0.7]), NAMES) == ["70% owl", "30% cat"]
    assert caption_lines(torch.tensor([0.0, 1.0, 0.0]), NAMES) == ["dog"]
    assert caption_lines(torch.tensor([1.0, 0.0, 1.0]), NAMES) == ["cat", "owl"]
    assert caption_lines(torch.zeros(3), NAMES) == ["no label"]


def test_captions_of_long_names_and_of_several_lines_stay_in_their_cell():
    names = ["long " * 50, "two\nlines", "日本"]
    image = pixels_of(draw(torch.zeros(8, 1, 4, 4), torch.tensor([0] + [1] * 7), names))
    cell = MIN_TILE + GAP
    between = image[MARGIN + 2 * LINE :, MARGIN + MIN_TILE : MARGIN + cell - 1]
    assert (between == 255).all()
