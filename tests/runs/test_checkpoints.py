"""Checkpoints: round trips, damage, foreign files and full disks."""

import os
import pickle
import random

import pytest
import torch

import resnet_cli
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import write_atomically
from resnet_cli.runs import checkpoints

PAYLOAD = {
    "config": {"name": "x", "seed": 0, "list": [1, 2.5, None, True]},
    "data": {"class_names": ["a", "b"]},
    "state": {
        "weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0), "count": torch.tensor(3), "view": torch.arange(8.0)[::2],
    },
}  # fmt: skip
WRITTEN = {"format": checkpoints.FORMAT, "version": resnet_cli.__version__, **PAYLOAD}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    checkpoints.save(path, PAYLOAD)
    return path


def test_round_trip_is_exact_and_plain(saved):
    loaded = checkpoints.load(saved)
    assert loaded["config"] == PAYLOAD["config"]
    for name, value in PAYLOAD["state"].items():
        assert torch.equal(loaded["state"][name], value)
        assert loaded["state"][name].dtype == value.dtype
    assert torch.load(saved, weights_only=True)["format"] == checkpoints.FORMAT
    assert [p.name for p in saved.parent.iterdir()] == ["last.pt"]


def test_attributes_of_tensors_are_left_out(tmp_path):
    """torch.compile marks the tensors of an optimizer whose addresses it relies on."""
    marked = torch.arange(3.0)
    marked._dynamo_static_input_type = "unguarded"
    path = tmp_path / "last.pt"
    checkpoints.save(path, {**PAYLOAD, "state": {"momenta": [{"buffer": marked}], "pair": (marked, 1)}})
    state = checkpoints.load(path)["state"]
    assert torch.equal(state["momenta"][0]["buffer"], marked)
    assert state["pair"][1] == 1
    assert marked._dynamo_static_input_type == "unguarded"


@pytest.mark.parametrize("length", [0, 1, 100, -1, -200])
def test_truncation_is_detected(saved, length):
    content = saved.read_bytes()
    saved.write_bytes(content[:length])
    with pytest.raises(InputError, match=r"last\.pt"):
        checkpoints.load(saved)


def test_no_bit_of_the_content_can_flip_unseen(saved):
    """A flipped bit is refused, or it was in padding and everything read is still equal."""
    content = saved.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        position = draw.randrange(len(content))
        saved.write_bytes(
            content[:position] + bytes([content[position] ^ 1 << draw.randrange(8)]) + content[position + 1 :]
        )
        try:
            loaded = checkpoints.load(saved)
        except InputError:
            refused += 1
            continue
        assert checkpoints.checksum(loaded) == checkpoints.checksum(WRITTEN)
    assert refused > 15


def test_a_changed_weight_is_detected(saved):
    payload = torch.load(saved, weights_only=True)
    payload["state"]["weight"][0, 0] += 1
    torch.save(payload, saved)
    with pytest.raises(InputError, match="checksum"):
        checkpoints.load(saved)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", ["torch", "pickle"])
def test_nothing_in_a_file_is_executed(tmp_path, wrap):
    path, canary = tmp_path / "evil.pt", tmp_path / "canary"
    payload = {"format": 1, "config": {}, "data": {}, "state": Canary(canary)}
    if wrap == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match=r"evil\.pt"):
        checkpoints.load(path)
    assert not canary.exists()


def test_other_files_and_versions_are_named(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoints.load(path)
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not a checkpoint of resnet-cli"):
        checkpoints.load(path)
    torch.save({**PAYLOAD, "format": 99}, path)
    with pytest.raises(InputError, match="format 99"):
        checkpoints.load(path)


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"file: cannot be written: No space.*5 bytes needed"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_vanished_folder_is_one_line(tmp_path):
    with pytest.raises(MachineError, match="gone"):
        write_atomically(tmp_path / "gone" / "file", "x")
