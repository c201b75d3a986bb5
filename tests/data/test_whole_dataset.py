"""Data sets that are read whole: one class is enough, and it does not matter which images are of which split."""

import numpy as np
import pytest

from resnet_cli.data import arrays, csv, image_folder, webdataset
from resnet_cli.data.partition import SplitOptions, partition
from resnet_cli.data.whole_dataset import undivided
from resnet_cli.errors import InputError
from tests.support.images import put_images
from tests.support.shards import png, write_shard


@pytest.fixture
def whole():
    """Return a function that reads a data set whole: its class names, and how many images are evaluated."""

    def read(load, **arguments):
        with undivided() as found:
            parts = partition(load(**arguments), SplitOptions())
        counts = {name: len(samples.indices) for name, samples in parts.samples.items()}
        if found.lacks_test:
            del counts["test"]
        return parts.dataset.class_names, sum(counts.values())

    return read


@pytest.mark.parametrize(
    ("text", "options", "names", "count"),
    [
        ("path,label\n0.png,b\n1.png,b\n", {}, ("b",), 2),
        ("path,label,split\n0.png,b,test\n1.png,a,test\n", {}, ("a", "b"), 2),
        ("path,label,split\n0.png,b,test\n1.png,b,val\n2.png,a,\n", {}, ("a", "b"), 3),
        ("path,label,split\n0.png,a,train\n1.png,b,test\n2.png,a,other\n", {}, ("a", "b"), 3),
        ("path,label\n0.png,b\n1.png,b\n", {"labels": "multi"}, ("b",), 2),
        ("path,label\n0.png,b\n1.png,a\n", {"split_column": "part"}, ("a", "b"), 2),
        ("path,label\n0.png,b\n1.png,a\n", {"weight_column": "w"}, ("a", "b"), 2),
        ("path,label,w\n0.png,b,\n1.png,a,x\n", {"weight_column": "w"}, ("a", "b"), 2),
        ("path,b,c\n0.png,1,0\n1.png,1,0\n", {"labels": "multi"}, ("b", "c"), 2),
        ("path,b,note\n0.png,1,x\n1.png,1,y\n", {"labels": "multi", "label_column": ["b"]}, ("b",), 2),
    ],
)
def test_tables(tmp_path, whole, text, options, names, count):
    put_images(tmp_path, "0.png", "1.png", "2.png")
    (tmp_path / "x.csv").write_text(text)
    arguments = {"file": str(tmp_path / "x.csv"), "cache": None, **options}
    assert whole(csv, **arguments) == (names, count)
    with pytest.raises(InputError):
        partition(csv(**arguments), SplitOptions())


def test_shards(tmp_path, whole):
    for number, label in enumerate("ab"):
        write_shard(tmp_path / f"{label}.tar", [("0.png", png(number)), ("0.cls", label.encode())])
    one = {"shards": str(tmp_path / "a.tar"), "cache": None}
    assert whole(webdataset, **one) == (("a",), 1)
    two = one | {"test_shards": str(tmp_path / "b.tar")}
    assert whole(webdataset, **two) == (("a", "b"), 2)
    for arguments in (one, two):
        with pytest.raises(InputError):
            webdataset(**arguments)


def test_arrays(tmp_path, whole):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    file = tmp_path / "x.npz"
    np.savez(file, images=images, labels=np.array(["b"] * 3))
    assert whole(arrays, file=str(file)) == (("b",), 3)
    np.savez(file, x_train=images, y_train=np.array(["b"] * 3), x_test=images, y_test=np.array(["b", "a", "b"]))
    assert whole(arrays, file=str(file)) == (("a", "b"), 6)
    test = {"x_test": images, "y_test": np.array(["b", "a", "b"])}
    np.savez(file, **test)
    assert whole(arrays, file=str(file)) == (("a", "b"), 3)
    given = {"train_images": "x_test", "train_labels": "y_test"}
    assert whole(arrays, file=str(file), arrays=given) == (("a", "b"), 3)
    np.savez(file, **test, x_val=images, y_val=np.array(["b"] * 3))
    assert whole(arrays, file=str(file)) == (("a", "b"), 6)
    np.savez(file, images=images, labels=np.array([1, 1, 1]))
    assert whole(arrays, file=str(file), class_names=["a", "b"]) == (("a", "b"), 3)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["test/a/0.png", "test/b/0.png"], ("a", "b")),
        (["val/b/0.png", "test/a/0.png"], ("a", "b")),
        (["train/b/0.png", "train/c/0.png", "test/a/0.png"], ("a", "b", "c")),
    ],
)
def test_folders(tmp_path, whole, files, names):
    root = put_images(tmp_path, *files)
    assert whole(image_folder, root=root, cache=None) == (names, len(files))
    with pytest.raises(InputError):
        image_folder(root=root, cache=None)


def test_a_folder_of_a_split_beside_classes_is_refused(tmp_path):
    put_images(tmp_path, "test/a/0.png", "b/0.png")
    with undivided(), pytest.raises(InputError, match="has test/ but no train/"):
        image_folder(root=str(tmp_path), cache=None)
