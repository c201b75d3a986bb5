"""Affine maps, resized crops and erased boxes compared with torchvision's: pixels and distributions."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from resnet_cli.data.loading import geometry as G
from tests.support.augmentation import draws, noise_images, same_numbers

COUNT = 1000
SIZES = [(32, 32), (20, 48)]


def torchvisions(transform, size, count=COUNT):
    """Parameters that a transform of torchvision draws."""
    torch.manual_seed(0)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    return [transform.make_params([image]) for _ in range(count)]


@pytest.mark.parametrize("size", [(16, 16), (11, 18)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_affine_maps_change_pixels_as_torchvision(size, interpolation):
    images = noise_images(60, size)
    maps = G.random_affine(draws(60), size, rotation=170, translate=0.3, scale=(0.5, 1.6), shear=40)
    expected = [
        functional.affine(
            image, angle, translate, scale, shear, interpolation=v2.InterpolationMode(interpolation)
        )
        for image, angle, translate, scale, shear in zip(
            images, maps.angle.tolist(), maps.translate.tolist(), maps.scale.tolist(), maps.shear.tolist(), strict=True
        )
    ]  # fmt: skip
    difference = G.warp(images, maps.inverse(), interpolation).int() - torch.stack(expected).int()
    if interpolation == "nearest":
        assert not difference.any()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_affine_maps_are_drawn_as_torchvision_draws_them(size):
    found = G.random_affine(draws(), size, rotation=30, translate=0.2, scale=(0.5, 1.5), shear=10)
    expected = torchvisions(v2.RandomAffine(30, (0.2, 0.2), (0.5, 1.5), 10), size)
    assert same_numbers(found.angle, [p["angle"] for p in expected]) > 0.01
    assert same_numbers(found.scale, [p["scale"] for p in expected]) > 0.01
    for axis in range(2):
        assert same_numbers(found.translate[:, axis], [p["translate"][axis] for p in expected]) > 0.01
        assert same_numbers(found.shear[:, axis], [p["shear"][axis] for p in expected]) > 0.01


def test_grids_of_resized_crops_are_made_on_the_device_of_the_images():
    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type == "cpu":
                self.largest = max(self.largest, result.numel())
            return result

    boxes = G.random_crop_boxes(draws(60), (16, 20), (0.05, 1))
    with Sizes() as seen:
        found = G.resize_boxes(torch.empty(60, 3, 16, 20, dtype=torch.uint8, device="meta"), boxes)
    assert found.shape == (60, 3, 16, 20)
    assert 0 < seen.largest <= 60 * 20


@pytest.mark.parametrize("size", [(16, 16), (11, 18)])
def test_resized_crops_have_the_pixels_of_torchvisions(size):
    """To one level: torchvision's weights are whole numbers for uint8 images on a CPU."""
    images = noise_images(60, size)
    boxes = G.random_crop_boxes(draws(60), size, (0.05, 1))
    found = G.resize_boxes(images, boxes)
    rows = zip(*(part.tolist() for part in (boxes.top, boxes.left, boxes.height, boxes.width)), strict=True)
    for image, changed, (top, left, height, width) in zip(images, found, rows, strict=True):
        expected = functional.resized_crop(image, top, left, height, width, list(size))
        assert (changed.int() - expected.int()).abs().max() <= 1
    y, x = G._positions(boxes.top, boxes.height, size[0]), G._positions(boxes.left, boxes.width, size[1])
    grid = torch.stack([x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], 3)
    sampled = torch.nn.functional.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    assert torch.equal(found, sampled.round().to(torch.uint8))
    whole = G.Boxes(*(torch.full((60,), value) for value in (0, 0, *size)))
    assert torch.equal(G.resize_boxes(images, whole), images)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("size", [*SIZES, (10, 60)])
def test_resized_crops_are_drawn_as_torchvision_draws_them(size, scale):
    found = G.random_crop_boxes(draws(), size, scale)
    expected = torchvisions(v2.RandomResizedCrop(size, scale), size)
    for name in ("top", "left", "height", "width"):
        assert same_numbers(getattr(found, name), [p[name] for p in expected]) > 0.01
    assert same_numbers(found.height * found.width, [p["height"] * p["width"] for p in expected]) > 0.01
    assert same_numbers(found.width.double() / found.height, [p["width"] / p["height"] for p in expected]) > 0.01
    assert ((found.top >= 0) & (found.top + found.height <= size[0])).all()
    assert ((found.left >= 0) & (found.left + found.width <= size[1])).all()


@pytest.mark.parametrize("area", [(0.02, 0.33), (0.1, 0.5)])
@pytest.mark.parametrize("size", SIZES)
def test_erased_boxes_are_drawn_as_torchvision_draws_them(size, area):
    found = G.random_erase_boxes(draws(), size, area)
    expected = [p for p in torchvisions(v2.RandomErasing(1.0, scale=area), size) if p["v"] is not None]
    assert (found.height > 0).float().mean() == pytest.approx(len(expected) / COUNT, abs=0.02)
    kept = found.height > 0
    found = {name: getattr(found, name)[kept] for name in ("top", "left", "height", "width")}
    for ours, theirs in {"top": "i", "left": "j", "height": "h", "width": "w"}.items():
        assert same_numbers(found[ours], [p[theirs] for p in expected]) > 0.01
    assert same_numbers(found["height"] * found["width"], [p["h"] * p["w"] for p in expected]) > 0.01
    assert same_numbers(found["height"].double() / found["width"], [p["h"] / p["w"] for p in expected]) > 0.01


def test_a_box_is_erased_and_the_rest_is_kept():
    images = torch.rand(3, 2, 6, 8) + 1
    boxes = G.Boxes(*(torch.tensor(values) for values in ([0, 2, 1], [1, 0, 3], [2, 4, 0], [3, 8, 5])))
    erased = G.erase(images, boxes)
    for image, changed, (top, left, height, width) in zip(
        images, erased, [(0, 1, 2, 3), (2, 0, 4, 8), (1, 3, 0, 5)], strict=True
    ):
        assert torch.equal(changed, functional.erase(image, top, left, height, width, torch.zeros(1)))


def test_the_centre_is_enlarged_to_the_image():
    images = noise_images(5, (16, 24))
    expected = functional.resize(images[:, :, 2:14, 3:21], [16, 24])
    assert torch.equal(G.enlarge_center(images, 0.75), expected)
    assert G.enlarge_center(images, 0.001).shape == images.shape
