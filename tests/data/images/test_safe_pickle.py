"""The restricted unpickler reads arrays of every pickle protocol and calls no function that a file names."""

import io
import os
import pickle
import subprocess

import numpy as np
import pytest

from resnet_cli.data.images.safe_pickle import load_arrays
from resnet_cli.errors import InputError

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.arange(3, dtype=">i4"),
    np.linspace(0, 1, 5),
    np.array([True, False]),
    np.zeros((0, 3), np.uint8),
]


def written(tmp_path, content):
    path = tmp_path / "batch"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_reads_arrays_numbers_text_and_containers(tmp_path, protocol):
    batch = {
        "data": ARRAYS,
        "labels": [1, 2, np.int64(3)],
        "f": np.float32(0.5),
        "names": ("é", "b"),
        "raw": b"\xff",
        1: None,
    }
    found = load_arrays(written(tmp_path, pickle.dumps(batch, protocol)))
    for expected, array in zip(ARRAYS, found["data"], strict=True):
        assert np.array_equal(array, expected)
        assert array.dtype == expected.dtype
    assert found["labels"] == [1, 2, 3]
    assert (found["f"], found["names"], found["raw"], found[1]) == (0.5, ("é", "b"), b"\xff", None)


def test_reads_names_of_numpy_1_and_byte_keys(tmp_path):
    content = pickle.dumps({b"data": np.arange(3)}, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    assert load_arrays(written(tmp_path, content))["data"].tolist() == [0, 1, 2]


def test_reads_python_2_pickles(tmp_path):
    content = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
        b"\x87Rq\x04(K\x01K\x03\x85cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff"
        b"\xff\xff\xffK\x00tb\x89U\x03\x01\x02\xfftbs."
    )
    assert load_arrays(written(tmp_path, content))["data"].tolist() == [1, 2, 255]


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "os.system": lambda canary: Call(os.system, f"touch {canary}"),
    "subprocess": lambda canary: Call(subprocess.Popen, ["touch", canary]),
    "eval": lambda canary: Call(eval, f"open({canary!r}, 'w')"),
    "open": lambda canary: Call(io.open, canary, "w"),
    "getattr": lambda canary: Call(getattr, "x", "upper"),
    "numpy.load": lambda canary: Call(np.load, canary),
    "nested": lambda canary: {"data": [np.arange(3), {"x": Call(os.system, f"touch {canary}")}]},
    "object array": lambda canary: np.array([Call(os.system, f"touch {canary}")], dtype=object),
    "records": lambda canary: np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
    "times": lambda canary: np.zeros(2, dtype="M8[s]"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_everything_else_and_calls_nothing(tmp_path, name, protocol):
    canary = tmp_path / "canary"
    path = written(tmp_path, pickle.dumps(HOSTILE[name](str(canary)), protocol))
    with pytest.raises(InputError, match="rejected: ") as caught:
        load_arrays(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not canary.exists()


def test_refusal_names_the_function(tmp_path):
    with pytest.raises(InputError, match=r"refers to posix\.system"):
        load_arrays(written(tmp_path, pickle.dumps(Call(os.system, "true"), 4)))


@pytest.mark.parametrize("content", [
    b"", b"text", pickle.dumps({"data": ARRAYS})[:-30], b"\x80\x04K\x01", b"\x80\x04]\x94h\x00a.",
    b"\x80\x02cnumpy\nndarray\n)\x81(K\x01K\x09\x85cnumpy\ndtype\nU\x02u1\x85RU\x01\x00tb.",
])  # fmt: skip
def test_damaged_files_are_one_line(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_arrays(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(tmp_path / "nothing")


@pytest.mark.slow
def test_lists_that_grow_without_bound_are_refused(tmp_path):
    value = [1]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(InputError, match="more than 5,000,000 values"):
        load_arrays(written(tmp_path, pickle.dumps(value)))
