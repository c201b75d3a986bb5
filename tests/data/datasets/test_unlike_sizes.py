"""Parts whose images have unlike sizes: without `data.image_size`, a line names two images and the key."""

import csv
import io

import pytest
from PIL import Image

from resnet_cli import data as datasets
from resnet_cli.data import image_folder, webdataset
from resnet_cli.errors import InputError
from tests.support.shards import write_shard

SIZES = {"train": (6, 5), "val": (6, 5), "test": (9, 7)}
CLASSES = ("cat", "dog")


def image_bytes(size, value=0):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_files(root, sizes):
    """Write two images of each class of each part."""
    for part, size in sizes.items():
        for name in CLASSES:
            for index in range(2):
                file = root / part / name / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(image_bytes(size, index))
    return root


def from_folder(place, sizes, **options):
    return image_folder(root=write_files(place / "photos", sizes), **options)


def from_table(place, sizes, **options):
    root = write_files(place / "photos", sizes)
    files = sorted(root.glob("*/*/*.png"))
    with (place / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        rows.writerows([path.relative_to(root), path.parent.name, path.parent.parent.name] for path in files)
    return datasets.csv(file=place / "labels.csv", root=root, **options)


def from_shards(place, sizes, **options):
    for part, size in sizes.items():
        members = [
            (f"{index}.{extension}", content)
            for index in range(4)
            for extension, content in (("png", image_bytes(size, index)), ("cls", str(index % 2).encode()))
        ]
        write_shard(place / f"{part}.tar", members)
    named = {f"{part}_shards" if part != "train" else "shards": str(place / f"{part}.tar") for part in sizes}
    return webdataset(**named, **options)


@pytest.mark.parametrize("load", [from_folder, from_table, from_shards])
@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_of_another_size_than_the_training_images_names_two_images_and_the_key(load, part, tmp_path):
    data = load(tmp_path, {**SIZES, "test": SIZES["train"], part: (9, 7)}, cache=None)
    data.validate()
    assert data.train.size == getattr(data, part).size == (3, 5, 6)
    data.train.images.validate()
    with pytest.raises(
        InputError, match=r"is 9x7 pixels but .*train.* is 6x5: data\.image_size=N, such as 64"
    ) as caught:
        getattr(data, part).images.validate()
    assert len(caught.value.problems) == 1


def test_a_part_of_other_channels_names_the_key_too(tmp_path):
    root = write_files(tmp_path / "photos", SIZES)
    for file in root.glob("test/*/*.png"):
        Image.new("L", (6, 5)).save(file)
    data = image_folder(root=root, mode="all", image_size=4, cache=None)
    data.validate()
    with pytest.raises(InputError, match=r"has 1 channel but .*train.* has 3: data\.mode=RGB or L"):
        data.test.images.validate()


def test_images_held_out_for_testing_may_have_another_size_too(tmp_path):
    for name in CLASSES:
        for index in range(10):
            file = tmp_path / "photos" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image_bytes((20 + index, 30), index))
    data = image_folder(root=tmp_path / "photos", cache=None)
    data.validate()
    with pytest.raises(InputError, match=r"data\.image_size=N"):
        data.train.images.validate()


def test_what_the_cache_knows_from_before_the_training_images_changed_does_not_hide_a_size(tmp_path):
    options = {"cache": str(tmp_path / "cache")}
    before = from_folder(tmp_path, dict.fromkeys(SIZES, SIZES["test"]), **options)
    before.test.images.validate()
    before.test.images.load()
    after = from_folder(tmp_path, {"train": SIZES["train"]}, **options)
    for read in ("validate", "load"):
        with pytest.raises(InputError, match="is 9x7 pixels"):
            getattr(after.test.images, read)()


def test_with_a_size_all_parts_are_usable(tmp_path):
    data = from_folder(tmp_path, SIZES, image_size=4, cache=None)
    assert [len(split.images.load()) for split in (data.train, data.val, data.test)] == [4, 4, 4]
