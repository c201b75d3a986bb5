"""Numbers with their nouns."""

import pytest

from resnet_cli.config.counts import counted


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (1298, "training image", "1,298 training images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (2.5, "epoch", "2.5 epochs"),
        (3, "copy", "3 copies"),
    ],
)
def test_a_noun_has_the_number_that_goes_with_it(number, noun, expected):
    assert counted(number, noun) == expected
