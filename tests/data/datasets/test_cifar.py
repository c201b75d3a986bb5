"""CIFAR in torchvision's layout, from a tiny copy of the files that a local server provides."""

import hashlib
import pickle
import shutil
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from resnet_cli.data import cifar10, cifar100
from resnet_cli.data.datasets import cifar
from resnet_cli.errors import InputError

NAMES = ["airplane", "automobile", "bird", "cat"]
FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
PER_BATCH = 4


def rows(seed):
    return np.random.default_rng(seed).integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)


def make_cifar10(root, **changes):
    """Create a folder like cifar-10-batches-py with four classes and four images in each file."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, name in enumerate(FILES[:6]):
        batch = {"data": rows(i), "labels": [0, 1, 2, 3], "batch_label": name, "filenames": ["x"] * PER_BATCH}
        (folder / name).write_bytes(pickle.dumps(batch | changes.get(name, {})))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({"label_names": NAMES, "num_vis": 3072} | changes.get("meta", {}))
    )
    return folder


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Make a tiny copy the known CIFAR-10: its checksums, and the URL of its archive on a local server."""
    served = tmp_path / "served"
    folder = make_cifar10(served)
    archive = served / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    train, test, names = ({name: md5(folder / name) for name in split} for split in (FILES[:5], FILES[5:6], FILES[6:]))
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        changed = replace(cifar.CIFAR10, url=url, archive_md5=md5(archive), train=train, test=test, names=names)
        monkeypatch.setattr(cifar, "CIFAR10", changed)
        yield archive
        server.shutdown()


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_whole(data):
    assert data.class_names == tuple(NAMES)
    assert len(data.train) == 5 * PER_BATCH
    expected = torch.from_numpy(rows(1).reshape(-1, 3, 32, 32)).permute(0, 2, 3, 1)
    assert torch.equal(data.train.images[PER_BATCH : 2 * PER_BATCH], expected)
    assert torch.equal(data.test.images, torch.from_numpy(rows(5).reshape(-1, 3, 32, 32)).permute(0, 2, 3, 1))
    assert data.train.labels.tolist() == [0, 1, 2, 3] * 5
    data.validate()


def problem_of(function, **options):
    with pytest.raises(InputError) as caught:
        function(**options)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def test_reads_a_re_encoded_copy(tmp_path):
    make_cifar10(tmp_path)
    assert_whole(cifar10(root=str(tmp_path), download=False, verify=False))


def test_re_encoded_copy_is_refused_by_checksum(tmp_path):
    folder = make_cifar10(tmp_path)
    problem = problem_of(cifar10, root=str(tmp_path))
    assert str(folder / "data_batch_1") in problem
    assert "data.verify=false" in problem
    assert "c99cafc152244af753f735de768cd75f" in problem


def test_downloads_once_and_leaves_nothing_else(tmp_path, known):
    root = tmp_path / "new" / "root"
    assert_whole(cifar10(root=str(root)))
    assert contents(root) == sorted(["cifar-10-batches-py", *(f"cifar-10-batches-py/{name}" for name in FILES)])
    known.unlink()
    assert_whole(cifar10(root=str(root)))


def test_unpacks_an_archive_without_a_download(tmp_path, known):
    root = tmp_path / "root"
    root.mkdir()
    known.rename(root / known.name)
    assert_whole(cifar10(root=str(root), download=False))
    assert (root / known.name).exists()


def test_found_where_people_have_it(tmp_path, known):
    folder = make_cifar10(tmp_path / "a")
    assert_whole(cifar10(root=str(folder), download=False))
    archive = tmp_path / "b" / "my copy.tgz"
    archive.parent.mkdir()
    shutil.copy(known, archive)
    assert_whole(cifar10(root=str(archive), download=False))


def test_an_archive_that_was_packed_again_is_genuine(tmp_path, known, caplog):
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / known.name, "w:gz", compresslevel=1) as tar:
        tar.add(make_cifar10(tmp_path / "a"), "cifar-10-batches-py")
    assert md5(root / known.name) != md5(known)
    with caplog.at_level("INFO", "resnet_cli"):
        assert_whole(cifar10(root=str(root), download=False))
    assert "downloading" not in caplog.text


def test_an_archive_of_other_content_is_refused_and_leaves_nothing(tmp_path, known):
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / known.name, "w:gz") as tar:
        tar.add(make_cifar10(tmp_path / "a", data_batch_2={"labels": [3, 2, 1, 0]}), "cifar-10-batches-py")
    problem = problem_of(cifar10, root=str(root), download=False)
    assert problem.startswith(f"{root / known.name}: its data_batch_2 has the MD5 ")
    assert contents(root) == [known.name]


def test_an_archive_in_a_read_only_folder_is_read(tmp_path, known, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(known, root)
    assert_whole(cifar10(root=str(root), download=False))
    assert contents(root) == [known.name]


@pytest.mark.parametrize("there", [True, False])
def test_failed_download_is_one_line_and_leaves_nothing(tmp_path, known, there):
    known.unlink()
    root = tmp_path / "a" / "b"
    if there:
        root.mkdir(parents=True)
    problem = problem_of(cifar10, root=str(root))
    for words in ("could not fetch http://", str(root / "cifar-10-python.tar.gz"), str(root / "cifar-10-batches-py"),
                  "data=digits"):  # fmt: skip
        assert words in problem
    assert contents(root) == [] if there else not (tmp_path / "a").exists()


def test_download_with_a_wrong_checksum_is_not_kept(tmp_path, known):
    known.write_bytes(known.read_bytes()[:-100])
    assert "could not fetch" in problem_of(cifar10, root=str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_cut_archive_is_named_with_the_fix(tmp_path, known):
    root = tmp_path / "root"
    root.mkdir()
    cut = root / known.name
    cut.write_bytes(known.read_bytes()[:-100])
    for verify in (True, False):
        problem = problem_of(cifar10, root=str(root), verify=verify)
        assert problem.startswith(f"{cut}: damaged")
        assert "delete it" in problem
    assert contents(root) == [known.name]
    cut.unlink()
    assert_whole(cifar10(root=str(root)))


def test_missing_without_download_names_the_paths(tmp_path):
    problem = problem_of(cifar10, root=str(tmp_path / "root"), download=False)
    for words in ("data.download=true", "https://", str(tmp_path / "root" / "cifar-10-batches-py"), "data=digits"):
        assert words in problem
    assert not (tmp_path / "root").exists()


def test_missing_file_is_fetched_and_the_others_are_kept(tmp_path, known):
    root = tmp_path / "root"
    cifar10(root=root)
    (root / "cifar-10-batches-py" / "data_batch_2").unlink()
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"changed")
    assert "data_batch_3: its MD5" in problem_of(cifar10, root=str(root))
    assert (root / "cifar-10-batches-py" / "data_batch_3").read_bytes() == b"changed"
    assert (root / "cifar-10-batches-py" / "data_batch_2").exists()


@pytest.mark.parametrize(("file", "change", "words"), [
    ("data_batch_2", {"data": np.zeros((4, 99), np.uint8)}, "not uint8 (images, 3072)"),
    ("data_batch_2", {"data": np.zeros((4, 3072), np.float32)}, "float32"),
    ("test_batch", {"labels": [0, 1]}, "4 images but labels"),
    ("test_batch", {"labels": ["a", "b", "c", "d"]}, "labels"),
    ("meta", {"label_names": 3}, "not a list of class names"),
])  # fmt: skip
def test_batches_of_another_form_are_named(tmp_path, file, change, words):
    make_cifar10(tmp_path, **{file: change})
    problem = problem_of(cifar10, root=str(tmp_path), verify=False)
    assert words in problem
    assert str(tmp_path / "cifar-10-batches-py" / ("batches.meta" if file == "meta" else file)) in problem


def test_batch_without_labels_is_named(tmp_path):
    folder = make_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": rows(0)}))
    assert "test_batch: has no entry 'labels'" in problem_of(cifar10, root=str(tmp_path), verify=False)


def test_more_images_than_bytes_are_refused(tmp_path):
    folder = make_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": [rows(0)[0]] * 50, "labels": [0] * 50}))
    assert "test_batch: 50 images, more than" in problem_of(cifar10, root=str(tmp_path), verify=False)


def test_payload_in_place_of_a_batch_is_not_run_even_with_its_checksum(tmp_path, known, monkeypatch):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "canary",)

    folder = make_cifar10(tmp_path / "root")
    (folder / "data_batch_1").write_bytes(pickle.dumps(Payload()))
    train = {**cifar.CIFAR10.train, "data_batch_1": md5(folder / "data_batch_1")}
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, train=train))
    assert "rejected" in problem_of(cifar10, root=str(tmp_path / "root"))
    assert not (tmp_path / "canary").exists()


def test_cifar100_has_its_own_names_and_files(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for i, name in enumerate(("train", "test")):
        batch = {b"data": rows(i), b"fine_labels": [0, 1, 1, 0], b"coarse_labels": [0] * 4}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "fish"], "coarse_label_names": ["x"]}))
    data = cifar100(root=str(tmp_path), verify=False, mean=[0.5, 0.5, 0.5])
    assert data.class_names == ("apple", "fish")
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.mean == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_files_are_those_that_torchvision_knows(name):
    theirs, ours = getattr(torchvision.datasets, name), getattr(cifar, name)
    assert (ours.url, ours.archive, ours.archive_md5) == (theirs.url, theirs.filename, theirs.tgz_md5)
    assert (ours.folder, ours.names_key) == (theirs.base_folder, theirs.meta["key"])
    assert [[list(pair) for pair in split.items()] for split in (ours.train, ours.test)] == [
        theirs.train_list,
        theirs.test_list,
    ]
    assert ours.names == {theirs.meta["filename"]: theirs.meta["md5"]}
