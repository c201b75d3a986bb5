"""Arrays as data sets: names, layouts, types and labels found or refused in one line, and nothing executed."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import DatasetSplit, arrays, read_image
from resnet_cli.data.datasets.array_names import find_arrays
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.errors import InputError

LABELS = np.array([0, 1, 2] * 4)


def images(*shape, dtype=np.uint8, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def problems_of(**options):
    with pytest.raises(InputError) as caught:
        arrays(**options)
    return caught.value.problems


def problem_of(**options):
    (problem,) = problems_of(**options)
    return problem


@pytest.fixture
def npz(tmp_path):
    """Save arrays; return the path."""

    def save(**content):
        np.savez(tmp_path / "x.npz", **content)
        return str(tmp_path / "x.npz")

    return save


def of_labels(npz, labels, **options):
    return arrays(file=npz(x_train=images(12, 4, 4), y_train=labels), **options)


NAMES = [
    ["x_train", "y_train", "x_val", "y_val", "x_test", "y_test"],  # Keras
    ["train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"],  # MedMNIST
    ["X_train", "Y_train", "X_valid", "Y_valid", "X_test", "Y_test"],
    ["trainX", "trainY", "validX", "validY", "testX", "testY"],
    ["Xtr", "Ytr", "Xval", "Yval", "Xte", "Yte"],
    ["train_set_x", "train_set_y", "val_set_x", "val_set_y", "test_set_x", "test_set_y"],
    ["data", "target", "val/data", "val/target", "eval/data", "eval/target"],
    ["images", "labels", "eval.images", "eval.labels", "test.images", "test.labels"],
    ["train_arr_0", "train_arr_1", "dev_arr_0", "dev_arr_1", "test_arr_0", "test_arr_1"],
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_usual_names_are_found(tmp_path, names, caplog):
    places = [f"{split}_{role}" for split in ("train", "val", "test") for role in ("images", "labels")]
    assert find_arrays(tmp_path, names, {}) == dict(zip(places, names, strict=True))
    assert caplog.messages == []


def test_arrays_without_names_go_by_their_position(tmp_path):
    np.savez(tmp_path / "x.npz", images(12, 4, 4, 3), LABELS, images(6, 4, 4, 3, seed=1), LABELS[:6])
    data = arrays(file=str(tmp_path / "x.npz"))
    assert (len(data.train), len(data.test), data.val) == (12, 6, None)
    assert data.test.images.numpy().tobytes() == images(6, 4, 4, 3, seed=1).tobytes()


def test_names_of_the_config_come_first(npz, caplog):
    path = npz(x_train=images(12, 4, 4), y_train=LABELS, big=images(12, 5, 5), codes=LABELS[::-1])
    data = arrays(file=path, arrays={"train_images": "big", "train_labels": "codes"})
    assert data.train.size == (1, 5, 5)
    assert "not x_train, y_train" in caplog.text


def test_images_of_two_splits_are_refused_in_new_runs_and_one_of_them_can_be_left_out(npz, caplog):
    path = npz(x_train=images(12, 4, 4), y_train=LABELS, x_val=images(6, 4, 4, seed=1), y_val=LABELS[:6])
    given = {"test_images": "x_val", "test_labels": "y_val"}
    data = arrays(file=path, arrays=given)
    data.validate()
    assert (len(data.val), len(data.test)) == (6, 6)
    with pytest.raises(InputError) as caught:
        data.validate_new()
    assert caught.value.problems == (
        f"{path}: x_val is both val_images and test_images; set val_images: null in data.arrays to use it once",
    )
    caplog.clear()
    data = arrays(file=path, arrays=given | {"val_images": None})
    data.validate_new()
    assert (len(data.train), data.val, len(data.test)) == (12, None, 6)
    assert caplog.messages == []


def test_names_that_are_not_found_or_not_unique_are_said(npz):
    content = {"x_train": images(12, 4, 4), "train_images": images(12, 4, 4), "y_train": LABELS}
    assert "x_train and train_images may both be train_images; choose one with data.arrays={train_images" in problem_of(
        file=npz(**content)
    )
    unnamed = problems_of(file=npz(pictures=images(12, 4, 4), codes=LABELS))
    assert len(unnamed) == 2
    assert "no array is named x_train, train_images or images ('pictures', 'codes')" in unnamed[0]
    assert "data.arrays={train_labels: NAME}" in unnamed[1]
    given = {"train_image": "x_train", "train_labels": "y_trian"}
    wrong = problems_of(file=npz(x_train=images(12, 4, 4), y_train=LABELS), arrays=given)
    assert wrong[0].startswith("data.arrays.train_image: unknown")
    assert wrong[0].endswith("did you mean train_images?")
    assert wrong[1].endswith("did you mean y_train?")


@pytest.mark.parametrize(
    ("place", "expected"),
    [("images", "train_images"), ("x_test", "test_images"), ("y", "train_labels"), ("train_image", "train_images")],
)
def test_a_role_without_a_split_is_that_of_the_training_split(npz, place, expected):
    (line,) = problems_of(file=npz(x_train=images(4, 8, 8, 3)), arrays={place: "x_train"})
    assert line.endswith(f"; did you mean {expected}?")


def test_text_labels_that_are_measurements_are_too_many_classes(npz):
    words = np.array([f"{i / 10}" for i in range(1, 7)])
    line = problem_of(file=npz(x_train=images(6, 8, 8, 3), y_train=words))
    assert line.endswith("6 different labels, such as 0.1: too many for classes")


def test_a_split_without_labels_is_left_out_with_a_warning(npz, caplog):
    data = arrays(file=npz(x_train=images(12, 4, 4), y_train=LABELS, x_test=images(5, 4, 4)))
    assert len(data.test) == 2  # held out
    assert "x_test has no test_labels and is not used" in caplog.text


@pytest.mark.parametrize(
    ("shape", "layout", "found", "size"),
    [
        ((12, 8, 6, 3), "auto", "NHWC", (3, 8, 6)),
        ((12, 3, 8, 6), "auto", "NCHW", (3, 8, 6)),
        ((12, 8, 6), "auto", "NHW", (1, 8, 6)),
        ((12, 8, 6, 1), "auto", "NHWC", (1, 8, 6)),
        ((12, 8, 8, 13), "auto", "NHWC", (13, 8, 8)),
        ((12, 13, 8, 8), "auto", "NCHW", (13, 8, 8)),
        ((12, 3, 3, 3), "NHWC", "NHWC", (3, 3, 3)),
        ((12, 8, 6, 3), "NCHW", "NCHW", (8, 6, 3)),
        ((12, 2, 8, 6), "NCHW", "NCHW", (2, 8, 6)),
    ],
)
def test_layouts(npz, shape, layout, found, size):
    original = images(*shape)
    data = arrays(file=npz(x_train=original, y_train=LABELS, x_test=original, y_test=LABELS), layout=layout)
    assert data.train.size == size
    expected = {"NHWC": original, "NCHW": original.transpose(0, 2, 3, 1) if len(shape) == 4 else None}
    assert np.array_equal(data.train.images.numpy(), expected.get(found, original[..., None]))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((12, 5, 8, 6), "(uint8 [12, 5, 8, 6]): which axis has the channels? data.layout=NHWC says the last one"),
        ((12, 64), "these are flattened: save x.reshape(-1, 8, 8)"),
        ((12, 65), "images have 3 or 4 axes, [N, H, W, C], [N, C, H, W] or [N, H, W]"),
        ((12, 2, 2, 2, 3), "images have 3 or 4 axes"),
        ((12, 0, 4, 3), "no images in it"),
    ],
)
def test_shapes_that_are_no_images(npz, shape, words):
    assert words in problem_of(file=npz(x_train=images(*shape), y_train=LABELS))


def test_layouts_that_do_not_fit(npz):
    path = npz(x_train=images(12, 4, 4), y_train=LABELS)
    assert "data.layout=NHWC has 4 axes, the array has 3" in problem_of(file=path, layout="NHWC")
    path = npz(x_train=images(12, 4, 4, 3), y_train=LABELS, x_test=images(12, 4, 4), y_test=LABELS)
    assert "x_test (uint8 [12, 4, 4])" in problem_of(file=path)


def test_16_bits_are_scaled_as_files_of_16_bits_are(npz, tmp_path):
    original = images(12, 6, 5, dtype=np.uint16, high=65536)
    Image.fromarray(original[0]).save(tmp_path / "0.png")
    for value_range in (None, [100, 40_000]):
        path = npz(images=original, labels=LABELS, test_images=original, test_labels=LABELS)
        data = arrays(file=path, range=value_range)
        assert torch.equal(data.train.images[0], read_image(tmp_path / "0.png", mode="L", value_range=value_range))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int64, np.int16])
def test_a_range_scales_other_types(npz, dtype):
    original = images(12, 4, 4, 3, high=11).astype(dtype)
    data = arrays(file=npz(x=original, y=LABELS, x_test=original, y_test=LABELS), range=[0, 10])
    assert np.array_equal(data.train.images.numpy(), np.round(original.astype(float) / 10 * 255).astype(np.uint8))


def test_bools_are_black_and_white(npz):
    original = images(12, 4, 4, high=2, dtype=bool)
    data = arrays(file=npz(x=original, y=LABELS, x_test=original, y_test=LABELS))
    assert np.array_equal(data.train.images[..., 0].numpy(), original * np.uint8(255))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0, 0.9, "[0,1]"), (-0.5, 1, "[-1,1]"), (0, 254.5, "[0,255]"), (-3, 7, "[-3,7]"), (0, 5000, "[0,65535]")],
)
def test_floats_without_a_range_are_refused_with_what_to_type(npz, low, high, words):
    original = np.linspace(low, high, 12 * 16).reshape(12, 4, 4)
    assert problem_of(file=npz(x_train=original, y_train=LABELS)).endswith(
        f"x.npz: x_train (float64 [12, 4, 4]): values from {low:g} to {high:g}; set data.range={words} to the values "
        "of black and white"
    )


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite values")])
def test_values_that_are_no_numbers_are_refused(npz, value, kind):
    original = np.zeros((12, 4, 4), np.float32)
    original[7:, 1, 1] = value
    problem = problem_of(file=npz(x_train=original, y_train=LABELS), range=[0, 1])
    assert f"x_train (float32 [12, 4, 4]): {kind} in image 7" in problem


def test_values_outside_a_range_and_dark_ones_are_said(npz, caplog):
    original = np.full((12, 4, 4), 255.0)
    arrays(file=npz(x=original, y=LABELS), range=[0, 1])
    assert "100% of the values are outside data.range=[0,1]: values go from 255 to 255" in caplog.text
    arrays(file=npz(x=images(12, 4, 4, dtype=np.uint16, high=1024), y=LABELS))
    assert "dark in the range [0,65535] of the type" in caplog.text
    caplog.clear()
    arrays(file=npz(x=images(12, 4, 4, high=2), y=LABELS))
    assert "values go from 0 to 1, which is dark in the range [0,255] of the type" in caplog.text
    caplog.clear()
    arrays(file=npz(x=images(12, 4, 4, high=2), y=LABELS), range=[0, 1])
    assert "dark" not in caplog.text


@pytest.mark.parametrize("value_range", [[1, 0], [0], [0, 1, 2]])
def test_ranges_are_two_ascending_numbers(npz, value_range):
    path = npz(x=images(12, 4, 4), y=LABELS)
    assert problem_of(file=path, range=value_range).startswith("data.range=")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS, "012"),
        (LABELS.astype(np.uint8)[:, None], "012"),
        (LABELS.astype(float), "012"),
        (np.eye(3)[LABELS], "012"),
        (np.eye(3, dtype=bool)[LABELS], "012"),
        (np.array(["c", "a", "é"])[LABELS], "acé"),
        (np.char.encode(np.array(["c", "a", "é"])[LABELS], "utf-8"), "acé"),
        (LABELS > 0, "01"),
    ],
)
def test_labels(npz, labels, names, caplog):
    caplog.set_level(logging.WARNING, "resnet_cli")
    data = of_labels(npz, labels, test_fraction=0.3)
    assert data.class_names == tuple(names)
    assert caplog.messages == []
    found = torch.cat([data.train.labels, data.test.labels])
    assert found.dtype == torch.int64
    size = {"acé": [4, 4, 4], "012": [4, 4, 4], "01": [4, 8]}[names]
    assert torch.bincount(found).tolist() == size


def test_a_class_that_may_be_a_missing_label_is_said(npz, caplog):
    of_labels(npz, np.array(["a", "nan", "c"])[LABELS], test_fraction=0.3)
    assert "y_train (<U3 [12]): class 'nan': if these images have no label" in caplog.text


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS - 1, "y_train (int64 [12]): 4 labels are negative (the first: label 0 is -1)"),
        (LABELS + 0.5, "label 0 is 0.5: labels must be integers or strings"),
        (np.eye(3)[LABELS] * 0.5, "row 0 has values other than 0 and 1"),
        (np.ones((12, 3)), "row 0 has 3 ones: one class for each image is needed"),
        (LABELS[:11], "has 12 images, but"),
        (np.zeros((12, 2, 2)), "labels are [N], [N, 1] or one-hot [N, K]"),
        (np.array(5), "labels are [N], [N, 1] or one-hot [N, K]"),
        (np.array([b"\xff"] * 12), "strings are not UTF-8"),
        (np.full(12, 2**63, np.uint64), "too large for a class"),
        (np.arange(12).astype("datetime64[D]"), "of type datetime64[D]"),
    ],
)
def test_labels_that_are_no_classes(npz, labels, words):
    path = npz(x_train=images(12, 4, 4), y_train=labels)
    problem = problem_of(file=path)
    assert "x.npz: y_train" in problem
    assert words in problem


def test_labels_with_gaps_are_named(npz, caplog):
    data = of_labels(npz, LABELS * 2 + 1)
    assert data.class_names == ("1", "3", "5")
    assert "labels go from 1 to 5 without 0, 2, 4: 3 classes, named by their labels" in caplog.text


def test_labels_that_train_lacks_are_named(npz):
    content = {"x_train": images(12, 4, 4), "x_test": images(12, 4, 4)}
    problem = problem_of(file=npz(**content, y_train=LABELS, y_test=LABELS + 1))
    assert "y_test (int64 [12]): 3 not among the classes: the training labels have 3 ('0', '1', '2')" in problem
    texts = np.array(["cat", "dog", "bird"])
    problem = problem_of(file=npz(**content, y_train=texts[LABELS], y_test=np.char.replace(texts, "d", "D")[LABELS]))
    assert "'Dog'" in problem
    assert "did you mean" in problem
    assert "some labels are text" in problem_of(file=npz(**content, y_train=LABELS, y_test=texts[LABELS]))


def test_class_names_are_given_or_in_the_file(npz):
    names = ["red", "green", "blue"]
    content = {"x": images(12, 4, 4), "y": LABELS}
    assert arrays(file=npz(**content, class_names=np.array(names))).class_names == tuple(names)
    assert arrays(file=npz(**content), class_names=names).class_names == tuple(names)
    assert "2 not among the classes: data.class_names has 2 (0 to 1)" in problem_of(
        file=npz(**content), class_names=names[:2]
    )
    given = arrays(file=npz(**content, class_names=np.array(names, dtype=object)), class_names=names)
    assert given.class_names == tuple(names), "what is given in place of an array is not hindered by it"
    assert "'red' is listed twice" in problem_of(file=npz(**content), class_names=["red", "red", "blue"])
    assert "class names must be a list of strings" in problem_of(file=npz(**content, class_names=np.arange(3)))
    texts = np.array(names)[LABELS]
    order = arrays(file=npz(**content | {"y": texts}, x_test=images(12, 4, 4), y_test=texts), class_names=names)
    assert order.class_names == tuple(names)
    assert order.train.labels.tolist() == order.test.labels.tolist() == LABELS.tolist()


def test_two_files_of_arrays(tmp_path):
    np.save(tmp_path / "images.npy", images(12, 4, 4, 3))
    np.save(tmp_path / "labels.npy", LABELS)
    file, labels_file = str(tmp_path / "images.npy"), str(tmp_path / "labels.npy")
    data = arrays(file=file, labels_file=labels_file)
    both = torch.cat([data.train.images, data.test.images])
    assert both.long().sum() == images(12, 4, 4, 3).astype(int).sum()
    assert arrays(file=str(tmp_path)).train.images.equal(data.train.images)  # as a folder
    assert "data.labels_file=" in problem_of(file=file)
    assert "cannot be combined with data.labels_file" in problem_of(
        file=file, labels_file=labels_file, arrays={"class_names": "x"}
    )
    np.savez(tmp_path / "x.npz", x=images(12, 4, 4), y=LABELS)
    assert "x.npz: 2 arrays, but one is expected" in problem_of(file=str(tmp_path / "x.npz"), labels_file=labels_file)


def test_hidden_files_that_macos_leaves_beside_arrays_are_not_read(tmp_path):
    for name, values in (("x_train", images(12, 4, 4, 3)), ("y_train", LABELS)):
        np.save(tmp_path / f"{name}.npy", values)
        (tmp_path / f"._{name}.npy").write_bytes(b"Mac OS X")
    data = arrays(file=str(tmp_path))
    assert len(data.train) + len(data.test) == 12


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says what is mapped")
def test_npy_files_are_mapped_not_copied(tmp_path):
    for split in ("train", "test"):
        for name, content in (("x", images(12, 4, 4, 3)), ("y", LABELS)):
            np.save(tmp_path / f"{name}_{split}.npy", content)
    data = arrays(file=str(tmp_path))
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert {line.split("/")[-1] for line in maps} >= {"x_train.npy", "x_test.npy"}
    assert data.train.images.shape == (12, 4, 4, 3)
    assert "x_train.npy" in problem_of(file=str(tmp_path), layout="NHW")


def test_fingerprints_do_not_depend_on_how_the_array_lies(tmp_path, npz, monkeypatch):
    original = images(12, 7, 6, 3)
    labels = {"y_train": LABELS, "y_test": LABELS}
    data = arrays(file=npz(x_train=original, x_test=original, **labels))
    moved = original.transpose(0, 3, 1, 2)
    view = arrays(file=npz(x_train=moved, x_test=moved, **labels))
    assert not view.train.images.is_contiguous()
    whole = fingerprint_split(data.train, None)
    monkeypatch.setattr("resnet_cli.data.fingerprint.CHUNK_BYTES", 100)
    assert fingerprint_split(view.train, None) == whole
    changed = DatasetSplit(view.train.images.clone(), view.train.labels)
    changed.images[11, 3, 5, 2] += 1
    assert fingerprint_split(changed, None)["images"] != whole["images"]


@pytest.mark.parametrize("suffix", ["pt", "pth"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors(tmp_path, suffix, is_zip):
    pixels, labels = torch.from_numpy(images(12, 3, 4, 4)), torch.from_numpy(LABELS)
    contents = [
        {"images": pixels, "labels": labels, "class_names": ["a", "b", "c"]},
        {"train": {"x": pixels, "y": labels}, "test": {"x": pixels, "y": labels}},
        (pixels, labels),
        ((pixels, labels), (pixels, labels)),
        {"x_train": pixels.float(), "y_train": labels.tolist()},
        {"x_train": pixels.bfloat16(), "y_train": labels.to(torch.uint8)},
    ]
    path = tmp_path / f"x.{suffix}"
    for content in contents:
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        is_float = isinstance(content, dict) and "x_train" in content
        data = arrays(file=str(path), range=[0, 255] if is_float else None)
        assert data.train.size == (3, 4, 4)
        assert data.class_names == (("a", "b", "c") if "class_names" in content else ("0", "1", "2"))


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_is_executed(tmp_path, capsys):
    torch.save({"images": Harmful()}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", images=np.array([Harmful()], object), labels=LABELS)
    np.save(tmp_path / "x.npy", np.array([Harmful()], object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Harmful()))
    for name in ("x.pt", "x.npz", "x.npy", "pickle.npy"):
        labels_file = str(tmp_path / name) if name.endswith(".npy") else None
        problem = problem_of(file=str(tmp_path / name), labels_file=labels_file)
        assert str(tmp_path / name) in problem
        assert "contains Python objects" in problem
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["x.npz", "x.pt", "x.npy"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_damaged_files_are_named_in_one_line(tmp_path, name, damage):
    path = tmp_path / name
    if name == "x.npz":
        np.savez(path, images=images(12, 40, 40), labels=LABELS)
    elif name == "x.pt":
        torch.save({"images": torch.zeros(12, 40, 40), "labels": torch.zeros(12)}, path)
    else:
        np.save(path, images(12, 40, 40))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no arrays in here", "cut": content[: len(content) // 2]}[damage])
    problem = problem_of(file=str(path), labels_file=str(path) if name == "x.npy" else None)
    assert problem.startswith(str(path))
    assert "\n" not in problem


def test_files_that_are_no_arrays(tmp_path):
    np.save(tmp_path / "images.npy", images(12, 4, 4))
    assert "did you mean" in problem_of(file=str(tmp_path / "image.npy"))
    for name, words in (("x.csv", "data=csv"), ("x.pkl", "unpickling"), ("x.mat", "loadmat"), ("x", "not a file of")):
        (tmp_path / name).write_text("x")
        assert words in problem_of(file=str(tmp_path / name))
    (tmp_path / "none").mkdir()
    assert "the folder has no .npy files" in problem_of(file=str(tmp_path / "none"))


def test_the_command_trains_and_resumes_on_arrays_of_many_channels(train, tmp_path, caplog):
    content = {"x": images(48, 13, 8, 8, dtype=np.uint16, high=65536), "y": np.array(["a", "b", "c"])[[0, 1, 2] * 16]}
    np.savez(tmp_path / "x.npz", **content)
    run = ["data=arrays", "data.file=x.npz", "model=cnn", "trainer.epochs=1", "data.batch_size=16", "hydra.run.dir=d"]
    caplog.set_level(logging.INFO)
    status, out, err = train(*run, "data.augment.crop=0")
    assert (status, err) == (0, "")
    assert "images of 13x8x8, 3 classes" in out
    (tmp_path / "moved").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "moved" / "x.npz")
    assert train("resume=d", "trainer.epochs=2", "data.file=moved/x.npz")[0] == 0
    content["x"] = content["x"].copy()
    content["x"][0] = 0
    np.savez(tmp_path / "moved" / "x.npz", **content)
    status, _, err = train("resume=d", "trainer.epochs=3")
    assert status == 2
    assert "these are not the data of the run" in err
