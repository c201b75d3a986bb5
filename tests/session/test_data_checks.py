"""samples.png of a run: what is in it, when it is drawn, and that it stops no run."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from resnet_cli.config.run_config import RunConfig
from resnet_cli.data import Augment, Dataset, DatasetSplit, make_loaders, synthetic
from resnet_cli.data.selection import Samples
from resnet_cli.session.data_checks import LeakWarnings, describe_rare_class, log_classes
from tests.support.runs import tiny


def loaders(**options):
    dataset = synthetic(count=96, test_count=32, classes=3, image_size=8)
    augment = Augment(crop=2, flip="random", mixup=0.4)
    return make_loaders(dataset, device="cpu", seed=1, batch_size=20, augment=augment, **options)


@pytest.mark.parametrize("backend", ["device", "stream"])
def test_the_first_batch_is_that_of_the_first_epoch(backend):
    found = loaders(backend=backend, workers=0)
    images, labels = found.train.first_batch(256)
    expected_images, expected_labels = next(iter(loaders(backend=backend, workers=0).train.epoch(0)))
    assert torch.equal(images, expected_images)
    assert torch.equal(labels, expected_labels)
    assert len(found.train.first_batch(6)[0]) == 6


def test_samples_are_drawn_once_and_a_resume_draws_them_only_if_they_are_missing(train, tmp_path):
    assert train(*tiny("trainer.epochs=1"), "hydra.run.dir=d")[0] == 0
    picture = tmp_path / "d" / "samples.png"
    picture.write_bytes(b"mine")
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    assert picture.read_bytes() == b"mine"
    picture.unlink()
    assert train("resume=d", "trainer.epochs=3")[0] == 0
    assert picture.exists()


def test_samples_that_cannot_be_drawn_stop_no_run(train, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no ink\nsecond line")

    monkeypatch.setattr("resnet_cli.session.data_checks.draw_samples", fail)
    status, out, _ = train(*tiny("trainer.epochs=1"), "hydra.run.dir=d")
    assert status == 0
    assert "samples.png could not be drawn: no ink\n" in out
    assert not (tmp_path / "d" / "samples.png").exists()


@pytest.mark.parametrize(("backend", "workers"), [("device", 0), ("stream", 0)])
def test_a_test_image_that_is_a_training_image_is_said_in_one_line(train, tmp_path, backend, workers):
    for split, seed in (("train", 0), ("test", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=seeded(seed, i, name))
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    twin = tmp_path / "photos" / "test" / "dog" / "3.png"
    (tmp_path / "photos" / "train" / "cat" / "new.png").write_bytes(twin.read_bytes())
    status, out, _ = train(
        "data=image_folder", "data.root=photos", f"data.backend={backend}", f"data.workers={workers}", "model=resnet8",
        "trainer.epochs=1", "data.cache=null", "data.val_fraction=0", "hydra.run.dir=d",
    )  # fmt: skip
    assert status == 0
    lines = [line for line in out.splitlines() if "also" in line]
    assert len(lines) == 1
    assert "1 test image is also a training image" in lines[0]
    assert f"{twin.relative_to(tmp_path)} = photos/train/cat/new.png" in lines[0].replace(f"{tmp_path}/", "")


def test_test_images_that_are_validation_images_are_warned_of_once(caplog):
    pixels, labels = torch.arange(96, dtype=torch.uint8).view(6, 4, 4, 1), torch.arange(6) % 2
    parts = {"train": slice(0, 2), "val": slice(2, 4), "test": slice(3, 6)}
    samples = {name: Samples(DatasetSplit(pixels[part], labels[part])) for name, part in parts.items()}
    warnings = LeakWarnings(SimpleNamespace(samples=samples))
    warnings.log_known()
    warnings.log_known()
    assert caplog.messages == [
        "1 test image is also a validation image (first: test image 0 = val image 1); resnet-data lists them"
    ]
    caplog.clear()
    LeakWarnings(SimpleNamespace(samples={**samples, "val": samples["test"]})).log_known()
    (line,) = caplog.messages
    assert line.startswith("3 test images are also validation images (first: test image 0 = val image 0)")
    caplog.clear()
    LeakWarnings(SimpleNamespace(samples={name: samples[name] for name in ("train", "test")})).log_known()
    assert caplog.messages == []


def seeded(*parts):
    return torch.Generator().manual_seed(hash(parts[:2]) + len(parts[2]) + ord(parts[2][0]))


def test_a_rare_class_is_named_with_keys_that_help():
    dataset = synthetic(count=96, test_count=32, classes=3, image_size=8)
    dataset.train.labels[(dataset.train.labels == 1).nonzero().flatten()[4:]] = 0
    found = make_loaders(dataset, device="cpu", seed=1, batch_size=20, augment=None, workers=0, val_fraction=0.25)
    train, val, test = (int((split.labels[at if at is not None else slice(None)] == 1).sum()) for split, at in (
        found.samples[part] for part in ("train", "val", "test")))  # fmt: skip
    name, largest = dataset.class_names[1], max(found.class_counts)
    line = describe_rare_class(found, {}, {}, "val_accuracy")
    assert line.startswith(
        f"{name}: {train} training, {val} validation, {test} test images; "
        f"{dataset.class_names[found.class_counts.index(largest)]} has {largest} training images"
    )
    assert line.endswith(
        "to weight classes equally, set loss.class_weights=balanced trainer.select_by=val_balanced_accuracy"
    )
    assert "class_weights" not in describe_rare_class(found, {"sampler": "balanced"}, {}, "val_accuracy")
    assert "equally" not in describe_rare_class(found, {}, {"class_weights": "balanced"}, "val_balanced_accuracy")
    assert describe_rare_class(loaders(workers=0), {}, {}, "val_accuracy") == ""


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((9, 0, 3), "no training image of dog"),
        ((0, 0, 3), "no training image of cat, dog"),
        ((1, 0, 0), "no training image of dog, owl"),
    ],
)
def test_weights_are_not_advised_for_classes_without_training_images(counts, expected):
    train, test = (
        DatasetSplit(torch.zeros(len(labels), 4, 4, 1, dtype=torch.uint8), labels)
        for labels in (torch.repeat_interleave(torch.arange(3), torch.tensor(counts)), torch.arange(3))
    )
    split = SimpleNamespace(train=train, samples={"train": Samples(train), "test": Samples(test)})
    split.class_counts, split.class_names, split.has_label_sets = counts, ("cat", "dog", "owl"), False
    assert describe_rare_class(split, {}, {}, "val_accuracy") == expected


def test_class_names_that_differ_only_in_case_are_warned_of(caplog):
    labels = torch.arange(3).repeat(8)
    split = DatasetSplit(torch.zeros(24, 4, 4, 1, dtype=torch.uint8), labels)
    dataset = Dataset("pets", ("Cat", "cat", "dog"), split, split)
    groups = {name: {} for name in ("model", "optimizer", "schedule", "trainer", "data", "loss")}
    log_classes(make_loaders(dataset, device="cpu", seed=0, val_fraction=0), RunConfig(name="pets", **groups))
    (line,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert line == (
        "class names that differ only in case: Cat and cat: if they are one class, merge them with data.merge, such as "
        "'data.merge={cat: [Cat, cat]}'"
    )


@pytest.mark.parametrize(
    ("sampler", "class_weights", "rare_count", "expected"),
    [
        ("balanced", "balanced", 4, "rare classes count more"),
        ("weighted", "balanced", 4, "rare classes can count more"),
        ("uniform", "balanced", 4, None),
        ("balanced", [1, 1, 3], 4, None),
        ("balanced", "balanced", 24, None),
    ],
)
def test_class_weights_on_top_of_a_sampler_are_warned_of(sampler, class_weights, rare_count, expected, caplog):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([24, 24, rare_count]))
    pixels = torch.zeros(len(labels), 4, 4, 1, dtype=torch.uint8)
    split = DatasetSplit(pixels, labels, weights=torch.ones(len(labels)))
    dataset = Dataset("rare", ("cat", "dog", "owl"), split, split)
    data = {"sampler": sampler}
    found = make_loaders(dataset, device="cpu", seed=0, val_fraction=0, **data)
    others = {name: {} for name in ("model", "optimizer", "schedule", "trainer")}
    log_classes(found, RunConfig(data=data, loss={"class_weights": class_weights}, name="rare", **others))
    lines = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert [expected in line for line in lines] == ([] if expected is None else [True])
    assert all(line.startswith(f"loss.class_weights=balanced and data.sampler={sampler}:") for line in lines)
