"""Weights are found in files of every usual kind, and hostile files execute nothing and exhaust nothing."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.weight_files import read_weights

TENSORS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([0.5, -0.5])}
AVERAGES = {name: value + 1 for name, value in TENSORS.items()}


def same(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "container"),
    [
        (TENSORS, ""),
        ({"state_dict": TENSORS, "epoch": 3, "arch": "resnet20"}, "state_dict"),
        ({"net": TENSORS, "acc": 93.5}, "net"),
        ({"model": {"state_dict": TENSORS}, "optimizer": {"lr": 0.1}}, "model.state_dict"),
    ],
)
def test_a_state_dict_is_found_in_what_training_programs_save(tmp_path, content, container, zipped):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "x.pth")
    assert same(found.tensors, TENSORS)
    assert found.container == container


def test_averages_come_before_the_weights_that_they_are_of(tmp_path):
    torch.save({"state_dict": TENSORS, "state_dict_ema": AVERAGES}, tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth")
    assert same(found.tensors, AVERAGES)
    assert found.container == "state_dict_ema"


def test_a_checkpoint_names_its_classes(tmp_path):
    data = {"class_names": ["a", "b"], "in_size": [3, 8, 8]}
    checkpoints.save(tmp_path / "x.pt", {"config": {}, "data": data, "state": {"model": TENSORS}})
    found = read_weights(tmp_path / "x.pt")
    assert same(found.tensors, TENSORS)
    assert found.class_names == ("a", "b")


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(TENSORS, tmp_path / "x.safetensors")
    assert same(dict(sorted(read_weights(tmp_path / "x.safetensors").tensors.items())), dict(sorted(TENSORS.items())))


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "x.safetensors").write_bytes(b"")
    monkeypatch.setattr("resnet_cli.runs.weight_files.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"x\.safetensors: needs .*pip install 'resnet-cli\[safetensors\]'"):
        read_weights(tmp_path / "x.safetensors")


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def legacy(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


NUMBER = b"\x8a\x05" + (2_500_000_000).to_bytes(5, "little")


def legacy_bytes():
    """A legacy file of a tensor whose storage holds 7777 numbers, said by the bytes `M a \\x1e` before `N`."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(7777)}, buffer, _use_new_zipfile_serialization=False)
    assert buffer.getvalue().count(b"M\x61\x1eN") == 1
    return buffer.getvalue()


def declared(path):
    """A storage that is said to hold 2.5 billion numbers, as `torch.save` would have written it."""
    path.write_bytes(legacy_bytes().replace(b"M\x61\x1eN", NUMBER + b"N"))


def declared_otherwise(path):
    """The same with the number taken from the pickle's memo."""
    before, start, after = legacy_bytes().partition(b"\x80\x02}q\x00X\x01\x00\x00\x00x")
    content = before + b"\x80\x02" + NUMBER + b"q\xc8" + start[2:] + after
    assert start
    path.write_bytes(content.replace(b"M\x61\x1eN", b"h\xc8N"))


def table_without_bytes(path):
    header = b'{"x":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'
    path.with_suffix(".safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def tar(path):
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("storages"))


def deflated(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("x/data.pkl", pickle.dumps({"x": 1}, 2))
        target.writestr("x/data/0", bytes(1 << 24))


MKDIR = Call(os.mkdir, "canary")
HOSTILE = {
    "a call": lambda path: torch.save({"x": torch.ones(1), "y": MKDIR}, path),
    "a call in a legacy file": lambda path: legacy(path, {"x": torch.ones(1), "y": MKDIR}),
    "a pickle alone": lambda path: path.write_bytes(pickle.dumps(MKDIR)),
    "a whole net": lambda path: torch.save(torch.nn.Linear(1, 1), path),
    "a large storage": declared,
    "a large storage from the memo": declared_otherwise,
    "a stretched tensor": lambda path: torch.save({"x": torch.zeros(1).expand(5_000_000_000)}, path),
    "many views": lambda path: legacy(path, {str(n): torch.zeros(1_000_000).expand(1000, -1) for n in range(3)}),
    "a table without bytes": table_without_bytes,
    "an archive of storages": tar,
    "compressed": deflated,
    "no tensors": lambda path: torch.save({"state_dict": {"x": 1}}, path),
    "a list": lambda path: torch.save([torch.ones(1)], path),
    "not finite": lambda path: torch.save({"x": torch.tensor([1.0, float("nan")])}, path),
    "nothing": lambda path: path.write_bytes(b""),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    HOSTILE[name](tmp_path / "x.pth")
    (tmp_path / "canary").rmdir() if (tmp_path / "canary").exists() else None  # made while it was written
    file = next(path for path in tmp_path.iterdir() if path.stem == "x")
    if file.suffix == ".safetensors":
        pytest.importorskip("safetensors")
    allocated = []
    monkeypatch.setattr(torch, "UntypedStorage", lambda size, **_: allocated.append(size) or 1 / 0)
    with pytest.raises(InputError) as caught:
        read_weights(file)
    (line,) = caught.value.problems
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    assert not (tmp_path / "canary").exists()
    assert max(allocated, default=0) < 1 << 24


def test_the_nearest_file_is_named(tmp_path):
    torch.save(TENSORS, tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(InputError, match=r"no such file; did you mean .*resnet18-f37072fd\.pth"):
        read_weights(tmp_path / "resnet18-f37072.pth")
