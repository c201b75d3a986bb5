"""The time that test images take which are read after training."""

import pytest
import torch

from resnet_cli.session import build
from resnet_cli.session.unread_images import decoding_seconds
from tests.support.images import write_class_folders
from tests.support.settings import settings_of


def test_test_images_that_are_not_decoded_yet_take_time(tmp_path):
    for part, count in (("train", 4), ("test", 6)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (10, 10))
    node = settings_of(
        "data=image_folder", f"data.root={tmp_path / 'photos'}", f"data.cache={tmp_path / 'cache'}",
        "data.image_size=8", "data.val_fraction=0", "data.backend=device",
    )["data"]  # fmt: skip

    def loaders(**changes):
        return build.loaders({**node, **changes}, device=torch.device("cpu"), seed=0)

    made, times = loaders(), iter([0.0, 4.0])
    assert decoding_seconds(made.test, lambda: next(times)) == 6  # eight of twelve images took four seconds
    assert decoding_seconds(loaders(backend="stream").test, lambda: pytest.fail("timed")) == 0
    list(made.test)
    for decoded in (made, loaders()):  # the latter from the cache
        assert decoding_seconds(decoded.test, lambda: pytest.fail("timed")) == 0
