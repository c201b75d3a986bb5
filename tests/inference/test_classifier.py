"""A trained run as a classifier: the same numbers from every form of an image, in threads and after pickling."""

import io
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli import load_run
from resnet_cli.data import arrays
from resnet_cli.errors import InputError
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of


@pytest.fixture(scope="module")
def classifier(trained_run):
    return load_run(trained_run)


@pytest.fixture(scope="module")
def files(trained_run):
    return sorted((trained_run.parent / "photos").rglob("*.png"))


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def opened(files, stack):
    return [stack.enter_context(Image.open(file)) for file in files[:5]]


def test_every_form_of_an_image_gives_the_same_probabilities(classifier, files, opened, stack):
    expected = classifier(files[:5])
    assert expected.shape == (5, 3)
    torch.testing.assert_close(expected.sum(1), torch.ones(5))
    forms = {
        "texts": [str(file) for file in files[:5]],
        "bytes": [file.read_bytes() for file in files[:5]],
        "an array of names": np.array([str(file) for file in files[:5]]),
        "an array of paths": np.array(files[:5]),
        "files": [stack.enter_context(file.open("rb")) for file in files[:5]],
        "files in memory": [io.BytesIO(file.read_bytes()) for file in files[:5]],
        "Pillow images": opened,
        "decoded Pillow images": [Image.open(file).convert("RGB") for file in files[:5]],
        "arrays": [np.asarray(Image.open(file)) for file in files[:5]],
        "a batch": np.stack([np.asarray(Image.open(file)) for file in files[:5]]),
        "a tensor": torch.stack([torch.tensor(np.asarray(Image.open(file))) for file in files[:5]]),
        "a tensor of channels first": torch.stack(
            [torch.tensor(np.asarray(Image.open(file))).permute(2, 0, 1) for file in files[:5]]
        ),
    }
    for name, images in forms.items():
        assert torch.equal(classifier(images), expected), name
    torch.testing.assert_close(classifier(files[0])[0], classifier(files[:1])[0])
    written = io.BytesIO()
    opened[0].save(written, "PNG")  # its position is the end
    for single in (written, stack.enter_context(files[0].open("rb")), np.array(str(files[0]))):
        assert torch.equal(classifier(single), classifier(files[:1]))
    assert torch.equal(classifier(np.asarray(Image.open(files[0]))), classifier(files[:1]))


def test_images_read_together_have_the_pixels_of_each_alone(classifier, tmp_path):
    """Small ones of one size are scaled in one call, large ones by themselves; one that is none spoils no other."""
    files = []
    for index, size in enumerate([(40, 30), (300, 200), (40, 30), (16, 16), (30, 40), (300, 200)]):
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(files[-1])
    (tmp_path / "text.png").write_text("no image")
    preprocessing = classifier.preprocessing
    alone = [preprocessing.read(file) for file in files]
    found = preprocessing.read_each([*files[:3], tmp_path / "text.png", *files[3:]])
    assert "text.png: not an image" in str(found.pop(3))
    assert all(map(torch.equal, found, alone))
    assert torch.equal(preprocessing.read_all(files), torch.stack(alone))


def prepared(trained_run, **data):
    """The preprocessing of the run as if it had been trained with these settings of group `data`."""
    run = open_trained(str(trained_run))
    return Classifier(replace(run, settings={**run.settings, "data": data})).preprocessing


def test_augmentation_of_ones_own_changes_no_preparation(trained_run, caplog):
    own = {"augment": {"_target_": "own_augmentation.QuarterTurns"}, "resize": "squash", "interpolation": "bicubic",
           "background": "#204060", "range": [0, 4095], "eval_crop": 0.875}  # fmt: skip
    found = prepared(trained_run, **{**open_trained(str(trained_run)).settings["data"], **own})
    assert (found.decoding.resize, found.decoding.interpolation) == ("squash", "bicubic")
    assert (found.decoding.background, found.decoding.value_range) == ("#204060", [0, 4095])
    assert found.eval_crop == 0.875
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("data", "by", "reason"),
    [
        (
            {"_target_": "own_data.shapes", "eval_crop": 0.875, "resize": "sqash", "range": [3, 1]},
            "data.eval_crop=0.875 alone",
            "data._target_=own_data.shapes is not imported without --trust (trust=True of load_run)",
        ),
        (
            {"_target_": "resnet_cli.data.image_folder", "root": "photos", "resize": "pad", "sharpness": 2},
            "data.resize=pad alone",
            "data.sharpness: unknown key",
        ),
        ({"_target_": "own_data.shapes", "noise": 0.1}, "the defaults alone", "data._target_=own_data.shapes is not"),
    ],
)
def test_preparation_that_is_left_out_is_warned_of(trained_run, caplog, data, by, reason):
    found = prepared(trained_run, **data)
    assert found.eval_crop == data.get("eval_crop", 1.0)
    assert found.decoding.resize == ("pad" if data.get("resize") == "pad" else "crop")
    assert found.decoding.value_range is None
    (line,) = caplog.messages
    assert line.startswith(f"{trained_run / 'checkpoints/best.pt'}: images are prepared by {by}: {reason}")


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.uint16, np.float32])
def test_the_range_of_a_run_on_arrays_applies_to_arrays_of_any_type(trained_run, tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 20, (24, 10, 8, 3)).astype(dtype)
    labels = np.arange(24) % 3
    np.savez(tmp_path / "x.npz", x_train=values, y_train=labels, x_test=values[:5], y_test=labels[:5])
    of_loader = arrays(file=str(tmp_path / "x.npz"), range=[0, 16]).test.images
    node = {"_target_": "resnet_cli.data.arrays", "file": "x.npz", "range": [0, 16]}
    assert torch.equal(prepared(trained_run, **node).read_all(values[:5]), of_loader)


def test_the_range_of_image_files_applies_to_no_array_of_8_bits(trained_run):
    node = {**open_trained(str(trained_run)).settings["data"], "range": [0, 16]}
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    assert torch.equal(prepared(trained_run, **node).read(values), torch.from_numpy(values))


def test_logits_are_those_of_the_test_loader(trained_run, classifier):
    run = open_trained(str(trained_run))
    loader = run.loaders().test
    with torch.inference_mode():
        expected = torch.cat([run.model(images) for images, _ in loader])
        labels = torch.cat([labels for _, labels in loader])
    names = run.loaders().samples["test"][0].images.source.names
    found = classifier.logits([trained_run.parent / "photos" / name for name in names])
    torch.testing.assert_close(found, expected)
    accuracy = 100 * (found.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(record_of(trained_run)["test"]["accuracy"])


def test_classify_features_and_batches(classifier, files):
    assert classifier.class_names == ("circle", "square", "stripes")
    assert torch.equal(classifier.classify(files), classifier(files).argmax(1))
    features = classifier.features(files[:4])
    head = [part for part in classifier.model.modules() if isinstance(part, torch.nn.Linear)][-1]
    torch.testing.assert_close(features @ head.weight.detach().T + head.bias.detach(), classifier.logits(files[:4]))
    small = load_run(classifier_path(classifier, files), batch_size=3)
    torch.testing.assert_close(small(files[:7]), classifier(files[:7]))
    assert classifier([]).shape == (0, 3)


def classifier_path(classifier, files):
    return files[0].parent.parent.parent / "run" / "checkpoints" / "best.pt"


def test_threads_share_a_classifier(classifier, files):
    expected = classifier(files)
    fresh = load_run(classifier_path(classifier, files))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(fresh, [files] * 8):
            assert torch.equal(found, expected)
        features = list(pool.map(fresh.features, [files] * 8))
    assert all(torch.equal(found, features[0]) for found in features)


def test_a_classifier_can_be_pickled(classifier, files):
    classifier.features(files[0])
    copied = pickle.loads(pickle.dumps(classifier))
    assert torch.equal(copied(files[:3]), classifier(files[:3]))
    assert torch.equal(copied.features(files[:3]), classifier.features(files[:3]))


@pytest.mark.parametrize(("precision", "switch"), [("fp32", "ieee"), ("tf32", "tf32")])
def test_a_gpu_computes_float32_as_in_training(trained_run, monkeypatch, precision, switch):
    matmul, conv, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []

    class Net(torch.nn.Module):
        def forward(self, images):
            seen.append((matmul.fp32_precision, conv.fp32_precision))
            return torch.zeros(len(images), 3)

    monkeypatch.setattr("resnet_cli.inference.classifier._is_gpu", lambda device: True)
    run = open_trained(str(trained_run))
    before = matmul.fp32_precision, conv.fp32_precision
    try:
        matmul.fp32_precision = conv.fp32_precision = "tf32" if switch == "ieee" else "ieee"
        changed = matmul.fp32_precision, conv.fp32_precision
        Classifier(replace(run, model=Net(), backend=replace(run.backend, precision=precision)))(
            np.zeros((10, 8, 3), "u1")
        )
        assert (matmul.fp32_precision, conv.fp32_precision) == changed
    finally:
        matmul.fp32_precision, conv.fp32_precision = before
    assert seen == [(switch, switch)]


def test_a_temperature_divides_the_logits(trained_run, files):
    warm = load_run(trained_run, temperature=2.0)
    torch.testing.assert_close(warm(files[:3]), (warm.logits(files[:3]) / 2).softmax(1))


def test_a_temperature_changes_no_label_of_several(trained_run, files):
    run = replace(open_trained(str(trained_run)), data={**open_trained(str(trained_run)).data, "labels": "multi"})
    run = replace(run, thresholds=[0.2, 0.7, 0.55])
    labels = Classifier(run).classify(files)
    assert labels.any()
    assert torch.equal(Classifier(run, temperature=3.0).classify(files), labels)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("missing.png", "missing.png: cannot be decoded: No such file"),
        (b"no image", "an image in memory: not an image"),
        (np.zeros((4, 4, 2), np.uint8), "an array of 4x4x2 is not an image of 3 channels"),
        (
            np.zeros((4, 4, 3), np.float32),
            "float32 values, but the run was trained without data.range and takes only unsigned values of 8 or 16 bits",
        ),
        (Image.new("F", (4, 4)), "floating-point values, but the run was trained without data.range and takes only"),
        ([3.5], "a float is not an image"),
        (io.StringIO("text"), "an image in an open file: opened as text; open image files with mode 'rb'"),
        (io.BytesIO(b"no image"), "an image in an open file: not an image"),
        (np.array(["missing.png"]), "missing.png: cannot be decoded: No such file"),
    ],
)
def test_what_is_no_image_is_refused(classifier, image, message):
    with pytest.raises(InputError, match=message):
        classifier(image)


def test_grey_and_transparent_images_become_what_the_net_takes(classifier, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (9, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    found = classifier([tmp_path / "grey.png", tmp_path / "alpha.png", tmp_path / "deep.png"])
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device: 'gpu' is not a device; it takes auto, cpu, cuda, cuda:1 or mps"),
        ({"device": ""}, "device: '' is not a device; it takes auto, cpu, cuda, cuda:1 or mps"),
        ({"device": 1.5}, "device: 1.5 is not a device; it takes auto, cpu, cuda, cuda:1 or mps"),
        ({"checkpoint": ""}, "checkpoint: is empty; it takes best, last or a checkpoint"),
        ({"checkpoint": "worst"}, "checkpoint worst: no such file; it takes best, last or a checkpoint"),
        ({"checkpoint": 3}, "checkpoint=3: must be best, last or a file"),
        ({"temperature": "1"}, "temperature='1': must be a number above 0"),
        ({"temperature": math.inf}, "temperature=inf: must be a number above 0"),
        ({"temperature": math.nan}, "temperature=nan: must be a number above 0"),
        ({"temperature": 0}, "temperature=0: must be a number above 0"),
        ({"batch_size": "4"}, "batch_size='4': must be a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size=0: must be a whole number, at least 1"),
        ({"path": ""}, "load_run: '': must be the path of a run folder or of a checkpoint"),
        ({"path": 3}, "load_run: 3: must be the path of a run folder or of a checkpoint"),
    ],
)
def test_wrong_arguments_are_refused_by_their_names(trained_run, arguments, message):
    with pytest.raises(InputError) as caught:
        load_run(**{"path": trained_run, **arguments})
    assert str(caught.value) == message


def test_numbers_of_numpy_are_numbers(trained_run, files):
    warm = load_run(trained_run, temperature=np.float32(2), batch_size=np.int64(3))
    torch.testing.assert_close(warm(files[:5]), load_run(trained_run, temperature=2)(files[:5]))


def test_a_label_whose_threshold_is_1_in_float32_is_given():
    run = SimpleNamespace(thresholds=[torch.tensor(17.5, dtype=torch.float64).sigmoid().item()], class_names=("a",))
    probabilities_NK = torch.tensor([[19.0], [16.0]]).sigmoid()
    assert Classifier.to_labels(run, probabilities_NK).tolist() == [[True], [False]]
