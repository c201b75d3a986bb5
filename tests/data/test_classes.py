"""Classes are left out and joined for every kind of images, in the order of the data set; wrong labels on purpose."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from resnet_cli.data import Dataset, DatasetSplit, image_folder, make_loaders, synthetic
from resnet_cli.data.classes import change_labels, choose_classes, describe_names_alike
from resnet_cli.errors import InputError

NAMES = ("ant", "bee", "cat", "dog")


def animals(count=40):
    """Return images whose pixels are 10 times their label, then their number."""

    def make(size):
        labels = torch.arange(size) % 4
        images = torch.zeros(size, 4, 4, 3, dtype=torch.uint8)
        images[..., 0] = (10 * labels)[:, None, None]
        images[..., 1] = torch.arange(size)[:, None, None]
        return DatasetSplit(images, labels, weights=torch.arange(size).double())

    return Dataset("animals", NAMES, make(count), make(16))


def loaders(data, **options):
    return make_loaders(data, device="cpu", seed=0, workers=0, **options)


def test_chosen_classes_keep_the_order_of_the_data_set_and_their_images():
    made = loaders(animals(), classes=["dog", "bee"])
    assert made.class_names == ("bee", "dog")
    assert made.counts == {"train": 18, "val": 2, "test": 8}
    for part, (split, indices) in made.samples.items():
        chosen = torch.arange(len(split)) if indices is None else indices
        assert (split.images[chosen, 0, 0, 0] == torch.tensor([10, 30])[split.labels[chosen]]).all(), part
    train = made.samples["train"][0]
    assert torch.equal(train.weights.long(), train.images[:, 0, 0, 1].long())


def test_joined_classes_take_the_place_of_their_first_member():
    made = loaders(animals(), merge={"pet": ["dog", "cat"]})
    assert made.class_names == ("ant", "bee", "pet")
    assert made.counts["test"] == 16
    split, _ = made.samples["test"]
    assert torch.bincount(split.labels).tolist() == [4, 4, 8]
    both = loaders(animals(), merge={"bee": ["bee", "ant"], "pet": ["cat"]}, classes=["pet", "bee"])
    assert both.class_names == ("bee", "pet")
    assert both.counts["test"] == 12


def test_files_that_are_left_out_are_not_read(tmp_path):
    for part in ("train", "test"):
        for name in NAMES:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (6, 6), (i, 0, 0)).save(folder / f"{i}.png")
    (tmp_path / "train" / "ant" / "9.png").write_bytes(b"no image")
    data = image_folder(root=str(tmp_path), cache=None)
    with pytest.raises(InputError, match=r"9\.png"):
        loaders(data, val_fraction=0)
    made = loaders(data, classes=["bee", "cat"], val_fraction=0.25)
    assert made.counts == {"train": 6, "val": 2, "test": 8}
    assert next(iter(made.test))[0].shape == (8, 3, 6, 6)


def test_images_have_the_size_of_the_classes_that_are_kept(tmp_path):
    for part in ("train", "test"):
        for name, side in (("ant", 8), ("bee", 4), ("cat", 4)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (side, side), (number, side, 0)).save(tmp_path / part / name / f"{number}.png")
    data = image_folder(root=str(tmp_path), cache=None)
    made = loaders(data, classes=["bee", "cat"], val_fraction=0.25)
    assert (made.in_size, made.counts) == ((3, 4, 4), {"train": 6, "val": 2, "test": 8})
    assert next(iter(made.test))[0].shape[-2:] == (4, 4)
    assert data.test.images.size == (3, 8, 8), "the data set is left as it was"
    with pytest.raises(InputError, match=r"is 4x4 pixels but .* is 8x8"):
        loaders(data)


def test_numbers_name_classes_too():
    data = animals()
    numbered = Dataset("numbered", tuple("0123"), data.train, data.test)
    assert loaders(numbered, classes=[3, 1]).class_names == ("1", "3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ["dgo", "cat"]}, r"data.classes: no class is named dgo; did you mean dog\?"),
        ({"classes": ["zzzzz", "cat"]}, r"no class is named zzzzz \(classes: ant, bee, cat, dog\)"),
        ({"classes": ["cat", "cat"]}, "cat is named twice"),
        ({"classes": ["cat"]}, "at least 2"),
        ({"classes": []}, "at least 2"),
        ({"merge": {"pet": ["dog", "catt"]}}, r"data.merge.pet: no class is named catt; did you mean cat\?"),
        ({"merge": {"pet": ["dog"], "animal": ["dog"]}}, "dog is already merged into pet"),
        ({"merge": {"bee": ["dog", "cat"]}}, "bee is already a class"),
        ({"merge": {"pet": []}}, "no classes to merge"),
        ({"merge": {"pet": ["dog", "cat"]}, "classes": ["ant", "dog"]}, "dog is merged into another class"),
        ({"merge": {"all": list(NAMES)}}, "only 1 class"),
    ],
)
def test_wrong_classes_are_named(options, words):
    with pytest.raises(InputError, match=words):
        loaders(animals(), **options)


def test_a_class_that_is_not_tested_on_is_named():
    data = animals()
    few = DatasetSplit(data.test.images[:2], data.test.labels[:2])
    with pytest.raises(InputError, match="test split has no images"):
        loaders(Dataset("animals", NAMES, data.train, few), classes=["cat", "dog"])


def test_label_noise_changes_training_labels_alone():
    clean, noisy = loaders(animals(400)), loaders(animals(400), label_noise=0.25)
    (before, indices), (after, chosen) = clean.samples["train"], noisy.samples["train"]
    assert torch.equal(indices, chosen)
    differs = before.labels != after.labels
    assert differs.sum() == differs[indices].sum() == round(0.25 * len(indices))
    assert after.labels.unique().tolist() == [0, 1, 2, 3]
    held_out = clean.samples["val"][1]
    assert torch.equal(noisy.samples["val"][0].labels[held_out], before.labels[held_out])
    assert torch.equal(noisy.samples["test"][0].labels, clean.samples["test"][0].labels)
    labels = torch.cat([labels for _, labels in noisy.train])
    assert torch.equal(torch.bincount(labels), torch.bincount(after.labels[chosen]))


def test_label_noise_names_what_it_changed():
    clean, noisy = loaders(animals(40)), loaders(animals(40), label_noise=0.25)
    changes = json.loads(noisy.format_changed_labels())
    assert clean.changed_labels == {}
    split, indices = noisy.samples["train"]
    own, given = clean.samples["train"][0].labels, split.labels
    different = [i for i in indices.tolist() if own[i] != given[i]]
    assert list(changes) == [f"train/{i}" for i in different]
    names = noisy.class_names
    assert [(names[own[i]], names[given[i]]) for i in different] == [tuple(c.values()) for c in changes.values()]


def test_label_noise_is_symmetric_nested_and_a_function_of_the_seed():
    split = DatasetSplit(torch.zeros(9000, 1, 1, 1, dtype=torch.uint8), torch.arange(9000) % 3)
    everything = torch.arange(9000)
    a, changed = change_labels(split, everything, 0.6, 3, seed=0)
    b, fewer = change_labels(split, everything, 0.2, 3, seed=0)
    assert set(fewer.tolist()) <= set(changed.tolist())
    assert torch.equal(a.labels[fewer], b.labels[fewer])
    steps = torch.bincount((a.labels - split.labels)[changed] % 3, minlength=3)
    assert steps[0] == 0
    assert abs(int(steps[1] - steps[2])) < 300
    assert not torch.equal(change_labels(split, everything, 0.2, 3, seed=1)[1], fewer)


def test_label_noise_depends_on_the_seed_of_the_split_not_of_the_run():
    def labels(seed, split_seed):
        data = synthetic(count=60, test_count=6, classes=3, image_size=4)
        made = make_loaders(data, device="cpu", seed=seed, split_seed=split_seed, label_noise=0.5, val_fraction=0)
        return made.samples["train"][0].labels

    assert torch.equal(labels(0, 0), labels(1, 0))
    assert not torch.equal(labels(0, 0), labels(0, 1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "dog", "A", "a"), ""),
        (
            ("Straße", "STRASSE", "x y", "X y"),
            "Straße and STRASSE; x y and X y: if they are one class, merge them with data",
        ),
        (
            tuple(f"{word} {k}" for k in range(5) for word in ("Cat", "cat")),
            "Cat 2 and cat 2 (and 2 more): if they are",
        ),
    ],
)
def test_names_alike_but_for_case_are_described_in_one_line(names, expected):
    line = describe_names_alike(names)
    assert expected in line
    assert bool(expected) == bool(line)
    assert "\n" not in line


def test_the_suggested_merge_joins_the_classes():
    dataset, _ = choose_classes(
        replace(animals(), class_names=("Cat", "cat", "dog", "owl")), None, {"cat": ["Cat", "cat"]}
    )
    assert describe_names_alike(("Cat", "cat", "dog", "owl")).endswith("such as 'data.merge={cat: [Cat, cat]}'")
    assert dataset.class_names == ("cat", "dog", "owl")
