"""Augmentations compared with slow, obvious implementations, and the statistics of random ones."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from resnet_cli.data.loading import transforms as A
from resnet_cli.data.loading.augment import Augment
from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator


def source(seed=0):
    return seeded_generator("cpu", seed)


def images(b=6, c=3, h=8, w=8, seed=0):
    pixels = torch.randint(0, 256, (b, h, w, c), dtype=torch.uint8, generator=source(seed))
    return pixels.permute(0, 3, 1, 2)


def assert_channels_last(batch):
    assert batch.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(4, 9), st.integers(4, 9), st.integers(1, 3),
    st.sampled_from(["zero", "reflect"]), st.integers(0, 99),
)  # fmt: skip
def test_crop_is_a_window_of_the_padded_image(b, c, h, w, padding, mode, seed):
    batch = images(b, c, h, w, seed)
    cropped = A.random_crop(batch, padding, mode, source(seed))
    offsets = torch.randint(0, 2 * padding + 1, (2, b), generator=source(seed))
    torch_mode = "constant" if mode == "zero" else "reflect"
    padded = torch.nn.functional.pad(batch.float(), [padding] * 4, mode=torch_mode).to(torch.uint8)
    for i, (top, left) in enumerate(offsets.T.tolist()):
        assert torch.equal(cropped[i], padded[i, :, top : top + h, left : left + w])
    assert_channels_last(cropped)


def test_crop_takes_every_offset():
    batch = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(400, -1, -1, -1)
    first = A.random_crop(batch, 2, "reflect", source())[:, 0, 8, 8]
    assert len(first.unique()) == 25


def test_functions_take_images_in_any_memory_order():
    batch = images()
    plain = batch.contiguous()
    assert torch.equal(A.random_crop(plain, 2, "zero", source()), A.random_crop(batch, 2, "zero", source()))
    assert torch.equal(A.random_flip(plain, source()), A.random_flip(batch, source()))


def test_flip_mirrors_about_half_and_leaves_the_rest():
    batch = images(400)
    flipped = A.random_flip(batch, source())
    same = (flipped == batch).flatten(1).all(1)
    mirrored = (flipped == batch.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250
    assert_channels_last(flipped)


def test_alternating_flip_shows_both_sides_in_any_two_epochs():
    batch = images(300)
    indices = torch.arange(1000, 1300)
    epochs = [A.alternating_flip(batch, indices, epoch, seed=5) for epoch in range(3)]
    first = (epochs[0] == batch.flip(3)).flatten(1).all(1)
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    assert 110 < int(first.sum()) < 190
    other_seed = (A.alternating_flip(batch, indices, 0, seed=6) == batch.flip(3)).flatten(1).all(1)
    assert 90 < int((first ^ other_seed).sum()) < 210


def test_nothing_is_sent_to_the_device_by_a_copy_that_waits():
    class Copies(TorchFunctionMode):
        def __init__(self):
            self.waiting = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.Tensor.to and isinstance(args[1], torch.device):
                self.waiting.append(not (kwargs or {}).get("non_blocking", False))
            return func(*args, **(kwargs or {}))

    chances = {"blur": 0.5, "erase": 0.5}
    augment = Augment(flip="alternating", resized_crop=(0.3, 1.0), policy="randaugment", rotation=5, **chances)
    batch, indices = images(20), torch.arange(20)
    with Copies() as copies:
        changed = augment.transform_pixels(batch, indices, epoch=1, seed=2, generator=source())
        augment.erase_boxes(changed.float(), indices, epoch=1, seed=2)
    assert len(copies.waiting) > 5
    assert not any(copies.waiting)


def test_alternating_flip_belongs_to_the_image_not_its_place():
    batch, indices = images(20), torch.arange(20)
    order = torch.randperm(20, generator=source())
    shuffled = A.alternating_flip(batch[order], indices[order], 0, 1)
    assert torch.equal(shuffled, A.alternating_flip(batch, indices, 0, 1)[order])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(0, 99))
def test_cutout_erases_one_square(size, seed):
    batch = torch.ones(4, 2, 8, 10)
    erased = A.cutout(batch, size, source(seed)) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    for hole in erased[:, 0]:
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert int(hole.sum()) == int(rows * columns)
        assert 1 <= int(rows) <= size
        assert 1 <= int(columns) <= size


def test_cutout_in_the_middle_is_whole():
    areas = (A.cutout(torch.ones(200, 1, 32, 32), 4, source()) == 0).sum((1, 2, 3))
    assert areas.max() == 16
    assert (areas == 16).float().mean() > 0.7


def test_a_whole_cutout_is_anywhere_where_nothing_is_clipped():
    erased = (A.cutout(torch.ones(4000, 1, 7, 6), 4, source(), whole=True) == 0)[:, 0]
    assert (erased.sum((1, 2)) == 16).all()
    corners = erased.flatten(1).int().argmax(1).bincount().tolist()
    expected = {6 * row + column for row in range(4) for column in range(3)}
    assert {index for index, count in enumerate(corners) if count} == expected
    assert all(abs(corners[index] - 4000 / 12) < 5 * (4000 / 12) ** 0.5 for index in expected)


def test_cutout_is_as_often_left_as_right_and_above_as_below():
    often = (A.cutout(torch.ones(2000, 1, 8, 8), 5, source()) == 0).float().mean((0, 1))
    for half, other in ((often[:4], often[4:]), (often[:, :4], often[:, 4:])):
        assert half.mean() == pytest.approx(float(other.mean()), rel=0.1)


def test_color_jitter_changes_brightness_contrast_and_saturation():
    grey = torch.full((50, 3, 4, 4), 100, dtype=torch.uint8)
    bright = A.color_jitter(grey, 0.5, 0, 0, source()).float()
    assert bright.flatten(1).std(1).max() == 0  # an even image stays even
    assert bright.min() >= 50
    assert bright.max() <= 150
    assert bright.std() > 15
    assert torch.equal(A.color_jitter(grey, 0, 0.5, 0.5, source()), grey)  # grey has neither contrast nor colour
    batch = images(50)
    colourless = A.color_jitter(batch, 0, 0, 1.0, source()).float()
    spread = (colourless.amax(1) - colourless.amin(1)).mean((1, 2))
    assert spread.min() < 0.2 * spread.max()
    luma = lambda x: (x * torch.tensor(A.GREY_WEIGHTS)[:, None, None]).sum(1)  # noqa: E731
    inside = ((colourless > 0) & (colourless < 255)).all(1)
    assert (luma(colourless) - luma(batch.float()))[inside].abs().max() < 1.5


def test_color_jitter_contrast_scales_the_distance_from_the_mean():
    batch = (images(40, c=1) // 4 + 96).expand(-1, 3, -1, -1)  # grey, far from black and white
    changed = A.color_jitter(batch, 0, 0.5, 0, source()).float()
    assert (changed.mean((1, 2, 3)) - batch.float().mean((1, 2, 3))).abs().max() < 1
    ratio = changed.flatten(1).std(1) / batch.float().flatten(1).std(1)
    assert ratio.min() > 0.45
    assert ratio.max() < 1.55
    assert ratio.max() - ratio.min() > 0.5


def test_saturation_of_grey_images_is_refused():
    with pytest.raises(ValueError, match=r"3 channels, these have 1"):
        A.color_jitter(images(c=1), 0, 0, 0.5, source())


def test_mixup_blends_images_and_labels_alike():
    batch, labels = torch.eye(4).reshape(4, 4, 1, 1), torch.arange(4)
    mixed, targets = A.mixup(batch, labels, 1.0, 4, source())
    assert torch.allclose(mixed.flatten(1), targets)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert 0 < targets[0, 0] < 1
    assert targets[0, 3] == 1 - targets[0, 0]  # the neighbour


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200))
def test_cutmix_labels_are_the_areas(seed):
    batch = torch.eye(5).reshape(5, 5, 1, 1).expand(-1, -1, 6, 8)
    mixed, targets = A.cutmix(batch, torch.arange(5), 1.0, 5, source(seed))
    assert torch.allclose(mixed.mean((2, 3)), targets, atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(5))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_mixing_share_is_beta_distributed(alpha):
    draws = torch.stack([A._sample_symmetric_beta(alpha, source(seed), torch.device("cpu")) for seed in range(3000)])
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
    torch.manual_seed(0)
    quarter = torch.distributions.Beta(alpha, alpha).sample((20_000,)).quantile(0.25)
    assert float((draws < quarter).float().mean()) == pytest.approx(0.25, abs=0.04)


def test_augment_applies_its_steps_in_order():
    batch, indices = images(), torch.arange(6)
    both = Augment(crop=2, flip="random", brightness=0.3, contrast=0.2, saturation=0.1)
    g = source(7)
    expected = A.random_flip(A.random_crop(batch, 2, "zero", g), g)
    expected = A.color_jitter(expected, 0.3, 0.2, 0.1, g)
    assert torch.equal(both.transform_pixels(batch, indices, epoch=1, seed=2, generator=source(7)), expected)
    alternating = Augment(crop_padding="reflect", flip="alternating")
    expected = A.alternating_flip(batch, indices, 1, 2)
    assert torch.equal(alternating.transform_pixels(batch, indices, epoch=1, seed=2, generator=source()), expected)


def test_augment_mixes_after_normalisation():
    batch, labels = images().float(), torch.arange(6)
    g = source(3)
    erased = A.cutout(batch, 3, g)
    expected = A.mixup(erased, labels, 0.4, 6, g)
    found = Augment(cutout=3, mixup=0.4).transform_normalised(batch, labels, num_classes=6, generator=source(3))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    found = Augment(cutmix=0.7).transform_normalised(batch, labels, num_classes=6, generator=source(3))
    assert torch.equal(found[0], A.cutmix(batch, labels, 0.7, 6, source(3))[0])


def test_mixup_with_cutmix_takes_turns():
    batch, labels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(-1, -1, 8, 8), torch.arange(4)
    both = Augment(mixup=1.0, cutmix=1.0)
    kinds = []
    for seed in range(60):
        mixed, targets = both.transform_normalised(batch, labels, num_classes=4, generator=source(seed))
        assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-5)
        kinds.append(bool((mixed == mixed.round()).all()))  # pasted pixels are whole numbers, blended ones are not
    assert 15 < sum(kinds) < 45


def test_nothing_is_on_by_default():
    batch, labels = images(), torch.arange(6)
    assert Augment().transform_pixels(batch, labels, epoch=0, seed=0, generator=source()) is batch
    assert Augment().transform_normalised(batch, labels, num_classes=6, generator=source()) == (batch, labels)


def test_validate_names_all_impossible_settings():
    with pytest.raises(InputError) as caught:
        Augment(crop=8, crop_padding="reflect", cutout=12, saturation=0.2).validate((1, 8, 10))
    crop, cutout, saturation = caught.value.problems
    assert "data.augment.crop=8" in crop
    assert "up to 7" in crop
    assert "data.augment.cutout=12" in cutout
    assert "up to 10" in cutout
    assert "data.augment.saturation=0.2" in saturation
    with pytest.raises(InputError, match="up to 8"):
        Augment(crop=9).validate((3, 8, 10))
    with pytest.raises(InputError, match="cutout=9: 8x10 images allow up to 8"):
        Augment(cutout=9, cutout_whole=True).validate((3, 8, 10))
    Augment(crop=8, cutout=10, saturation=1).validate((3, 8, 10))


ON = {
    "flip": "random", "crop": 1, "cutout": 1, "policy": "augmix", "resized_crop": (0.5, 1), "scale": (0.5, 1),
    "repeats": 2, "transforms": [torch.nn.Identity()],
}  # fmt: skip
SETTINGS = {
    "crop_padding", "cutout_whole", "randaugment_ops", "randaugment_magnitude", "autoaugment_policy", "augmix_severity",
    "erase_area",
}  # fmt: skip


@pytest.mark.parametrize("option", [name for name in inspect.signature(Augment).parameters if name not in SETTINGS])
def test_an_augmentation_is_off_when_every_option_is(option):
    assert Augment().is_off
    assert not Augment(**{option: ON.get(option, 0.5)}).is_off
