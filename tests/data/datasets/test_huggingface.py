"""Data sets in the formats of the library `datasets`, which need no network: saved ones, Parquet files and a cache."""

import io
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.commands.data import run as inspect_data
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.data.preferred_revision import preferring_revision
from resnet_cli.errors import InputError
from resnet_cli.session.data_revision import revision_of
from resnet_cli.session.trained import open_trained

datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def cache_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    logging.getLogger("resnet_cli").setLevel(logging.INFO)


def png(seed, size=(6, 5)):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(seed, size=(6, 5)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def table(count=12, seed=0, labels=None, **columns):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=NAMES),
            **{name: datasets.Value("string") for name in columns},
        }
    )
    rows = {
        "image": [{"bytes": png(seed + i), "path": f"{i}.png"} for i in range(count)],
        "label": [i % 3 for i in range(count)] if labels is None else labels,
    }
    return datasets.Dataset.from_dict(rows | columns, features=features)


@pytest.fixture
def load(tmp_path):
    from resnet_cli.data import huggingface

    def load(root, **options):
        return huggingface(root=str(root), **{"cache": None} | options)

    return load


def problem_of(load, *arguments, **options):
    with pytest.raises(InputError) as caught:
        load(*arguments, **options)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def save(path, **splits):
    """Save splits as Parquet files, named as on the hub."""
    path.mkdir()
    for name, content in splits.items():
        content.to_parquet(path / f"{name}-00000-of-00001.parquet")
    return path


def test_saved_sets_and_parquet_files_are_the_same_data(tmp_path, load):
    splits = {"train": table(), "validation": table(3, 100), "test": table(6, 200)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = [load(tmp_path / "saved"), load(save(tmp_path / "parquet", **splits))]
    for data in found:
        data.validate()
        assert data.class_names == tuple(NAMES)
        assert (len(data.train), len(data.val), len(data.test)) == (12, 3, 6)
        assert torch.equal(data.train.images.load(), torch.from_numpy(np.stack([pixels(i) for i in range(12)])))
        assert np.array_equal(data.test.images[5].numpy(), pixels(205))
        assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert fingerprint_split(found[0].train, None) == fingerprint_split(found[1].train, None)


def test_tables_of_other_programs_have_their_columns_found(tmp_path, load):
    import pyarrow as pa
    import pyarrow.parquet as pq

    structs = [{"bytes": png(i), "path": None} for i in range(12)]
    contents = pa.table({"img": structs, "species": [NAMES[i % 3] for i in range(12)], "id": range(12)})
    pq.write_table(contents, tmp_path / "x.parquet")
    assert "no column is known to hold the labels ('img', 'species', 'id'); set data.label_column=NAME" in problem_of(
        load, tmp_path / "x.parquet"
    )
    data = load(tmp_path / "x.parquet", label_column="species", test_fraction=0.25)
    assert data.class_names == tuple(NAMES)
    assert (len(data.train), len(data.test)) == (9, 3)
    held_out = [i for i in range(12) if any(np.array_equal(pixels(i), data.test.images[k].numpy()) for k in range(3))]
    assert [i % 3 for i in held_out] == data.test.labels.tolist()
    assert list(data.test.names) == [f"row/{i}" for i in held_out]
    plain = pa.table({"jpg": [png(i) for i in range(12)], "class": [i % 3 for i in range(12)]})
    pq.write_table(plain, tmp_path / "y.parquet")
    assert load(tmp_path / "y.parquet").class_names == ("0", "1", "2")
    assert "data.label_column=clas: " in problem_of(load, tmp_path / "y.parquet", label_column="clas")
    assert "did you mean class?" in problem_of(load, tmp_path / "y.parquet", label_column="clas")
    assert "not encoded images" in problem_of(load, tmp_path / "y.parquet", image_column="class")


def test_paths_in_a_file_are_relative_to_its_folder(tmp_path, load, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png(i))
    contents = pa.table({"image": [f"{i}.png" for i in range(6)], "label": [0, 1] * 3})
    for place, working_folder in ((folder, elsewhere), (elsewhere, folder)):
        monkeypatch.chdir(working_folder)
        pq.write_table(contents, place / "x.parquet")
        data = load(place / "x.parquet", image_column="image", test_fraction=1 / 3)
        assert sorted(len(part.images.load()) for part in (data.train, data.test)) == [2, 4]


def test_a_column_of_splits_is_reported(tmp_path, load, caplog):
    save(tmp_path / "x", train=table(split=["train", "test"] * 6))
    load(tmp_path / "x")
    assert f"{tmp_path / 'x'}: column 'split' names splits, but is not used; save a file for each split" in caplog.text
    caplog.clear()
    save(tmp_path / "y", train=table(split=["red", "test"] * 6))
    save(tmp_path / "z", train=table(split=["train"] * 12), test=table(3, 100, split=["test"] * 3))
    for name in ("y", "z"):
        load(tmp_path / name)
    assert "column 'split'" not in caplog.text


def test_errors_of_the_library_are_one_line_with_their_cause(tmp_path, load, capfd):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), tmp_path / "x.parquet"
    )
    assert "error occurred while generating" not in problem_of(load, tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    problem_of(load, tmp_path / "y.parquet")
    assert capfd.readouterr().err == ""


def test_a_folder_of_images_is_read_as_the_library_reads_it(tmp_path, load):
    for split in ("train", "test"):
        for i, name in enumerate(NAMES):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            (tmp_path / "set" / split / name / "0.png").write_bytes(png(i))
    data = load(tmp_path / "set")
    assert data.class_names == tuple(NAMES)
    assert torch.equal(data.test.images.load(), torch.from_numpy(np.stack([pixels(i) for i in range(3)])))


def test_test_labels_that_are_kept_secret_leave_the_split_out(tmp_path, load, caplog):
    root = save(tmp_path / "x", train=table(), test=table(6, labels=[-1] * 6))
    assert len(load(root).test) == 2
    assert "test: no labels in column 'label'; the split is not used" in caplog.text
    partly = save(tmp_path / "y", train=table(), test=table(3, labels=[0, -1, 1]))
    assert "test, row 1: no label in column 'label'" in problem_of(load, partly)


def test_images_that_cannot_be_read_are_named_by_their_row(tmp_path, load):
    rows = table().to_dict()
    rows["image"][7]["bytes"] = rows["image"][7]["bytes"][:-30]
    broken = datasets.Dataset.from_dict(rows, features=table().features)
    root = save(tmp_path / "x", train=broken, test=table(3, 100))
    assert f"{root}, train, row 7: cannot be decoded" in problem_of(load(root).train.images.load)
    rows["image"][7] = None
    empty = datasets.Dataset.from_dict(rows, features=table().features)
    root = save(tmp_path / "y", train=empty, test=table(3, 100))
    assert f"{root}, train, row 7: no image in it" in problem_of(load(root).train.images.validate)


def test_decoded_images_are_cached_until_the_file_changes(tmp_path, load, monkeypatch):
    cache = str(tmp_path / "cache")
    root = save(tmp_path / "x", train=table(), test=table(3, 100))
    before = load(root, cache=cache).train.images.load()
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)
    assert torch.equal(load(root, cache=cache).train.images.load(), before)
    monkeypatch.undo()
    shutil.rmtree(root)
    save(root, train=table(seed=50), test=table(3, 100))
    assert np.array_equal(load(root, cache=cache).train.images.load()[0].numpy(), pixels(50))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def keep_in_cache(tmp_path):
    """Put a set into the cache of the library as if it came from the hub: `someone/birds`."""
    root = save(tmp_path / "birds", train=table(), test=table(3, 100))
    datasets.load_dataset(str(root))
    (config,) = (tmp_path / "hub" / "birds").iterdir()
    (version,) = config.iterdir()
    (content,) = (path for path in version.iterdir() if path.is_dir())
    shutil.copytree(content, tmp_path / "hub" / "someone___birds" / config.name / version.name / COMMIT)


def keep_as_files(tmp_path, monkeypatch, name, commit, **splits):
    """Put the files of a set into the cache of the hub as `hf download` does."""
    import huggingface_hub.constants

    folder = tmp_path / "hub cache" / f"datasets--someone--{name}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    save(folder / "snapshots" / commit / "data", **splits)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))


def test_sets_of_the_hub_come_from_the_cache_and_say_their_revision(tmp_path, caplog):
    from resnet_cli.data import huggingface

    keep_in_cache(tmp_path)
    data = huggingface(name="someone/birds", cache=None)
    assert (data.name, len(data.train), len(data.test)) == ("someone/birds", 12, 3)
    assert data.revision == COMMIT
    assert f"someone/birds: revision {COMMIT}; set data.revision={COMMIT} to pin it" in caplog.text
    problem = problem_of(huggingface, name="nobody/nothing")
    assert problem.startswith("data.name=nobody/nothing cannot be loaded: ")


def test_sets_that_were_downloaded_as_files_come_from_the_cache_of_the_hub(tmp_path, monkeypatch):
    from resnet_cli.data import huggingface

    keep_as_files(tmp_path, monkeypatch, "fish", COMMIT, train=table(), test=table(3, 100))
    for revision in (None, COMMIT):
        data = huggingface(name="someone/fish", revision=revision, cache=None)
        assert (data.name, len(data.train), len(data.test)) == ("someone/fish", 12, 3)
        assert data.revision == COMMIT
    assert problem_of(huggingface, name="someone/fish", revision="v2").startswith("data.name=someone/fish cannot be")


def test_wrong_arguments(tmp_path, load):
    from resnet_cli.data import huggingface

    for options in ({}, {"name": "a/b", "root": "x"}):
        assert "needs either data.name=NAME of the hub or data.root=PATH" in problem_of(huggingface, **options)
    assert problem_of(load, tmp_path / "none") == f"data.root={tmp_path / 'none'} does not exist"
    (tmp_path / "x.txt").write_text("x")
    assert "not a .parquet file" in problem_of(load, tmp_path / "x.txt")
    (tmp_path / "x.parquet").write_text("no parquet")
    assert "x.parquet cannot be loaded: " in problem_of(load, tmp_path / "x.parquet")
    (tmp_path / "empty").mkdir()
    assert "empty cannot be loaded: " in problem_of(load, tmp_path / "empty")
    root = save(tmp_path / "y", test=table(), validation=table(3, 100))
    assert "no split is named train" in problem_of(load, root)


def test_several_columns_of_labels_must_be_named(tmp_path, load):
    contents = table().rename_column("label", "fine").add_column("coarse", [0, 1] * 6)
    contents = contents.cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    root = save(tmp_path / "x", train=contents)
    assert "several columns may hold the labels ('fine', 'coarse'); set data.label_column=NAME" in problem_of(
        load, root
    )
    assert load(root, label_column="coarse").class_names == ("a", "b")


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch, load, tmp_path):
    find_spec = "resnet_cli.data.datasets.huggingface.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None)
    assert problem_of(load, tmp_path) == (
        "data=huggingface needs the package datasets: pip install 'resnet-cli[huggingface]'"
    )


@pytest.mark.slow
def test_importing_the_package_does_not_import_the_library():
    code = "import sys, resnet_cli.data; sys.exit(bool({'datasets', 'pyarrow', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_command_trains_on_both_backends_alike_and_resumes(train, tmp_path):
    save(tmp_path / "x", train=table(24), test=table(6, 100))
    losses = []
    for backend in ("stream", "device"):
        status, out, err = train(
            "data=huggingface", "data.root=x", f"data.backend={backend}", "data.workers=1", "data.cache=null",
            "data.image_size=8", "model=cnn", "trainer.epochs=1", "data.augment.crop=0", f"hydra.run.dir={backend}",
        )  # fmt: skip
        assert (status, err) == (0, "")
        losses.append([line for line in out.splitlines() if line.startswith("test accuracy")])
    assert losses[0] == losses[1]
    assert "data_revision" not in json.loads((tmp_path / "device" / "run.json").read_text())
    assert train("resume=stream", "trainer.epochs=2")[0] == 0


def test_a_run_records_the_revision_of_its_data(train, tmp_path):
    keep_in_cache(tmp_path)
    command = ["data=huggingface", "data.name=someone/birds", "data.image_size=8", "data.augment.crop=0", "model=cnn"]
    status, _, err = train(*command, "data.cache=null", "trainer.epochs=1", "hydra.run.dir=d")
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "d" / "run.json").read_text())["data_revision"] == COMMIT


@pytest.mark.slow
def test_a_run_reads_the_revision_again_that_it_was_trained_on(train, tmp_path, monkeypatch):
    keep_in_cache(tmp_path)
    asked, load_dataset = [], datasets.load_dataset

    def load_and_note(name, subset, revision=None):
        asked.append(revision)
        return load_dataset(name, subset, revision=revision)

    monkeypatch.setattr(datasets, "load_dataset", load_and_note)
    command = ["data=huggingface", "data.name=someone/birds", "data.image_size=8", "data.augment.crop=0", "model=cnn"]
    assert train(*command, "data.cache=null", "trainer.epochs=1", "hydra.run.dir=d")[0] == 0
    assert set(asked) == {None}
    for again in (["reproduce=d", "hydra.run.dir=e"], ["resume=d", "trainer.epochs=2"]):
        asked.clear()
        assert train(*again)[0] == 0
        assert set(asked) == {COMMIT}
    assert COMMIT not in (tmp_path / "d" / "config.yaml").read_text()
    asked.clear()
    assert open_trained(str(tmp_path / "d")).loaders().revision == COMMIT
    assert asked == [COMMIT]
    asked.clear()
    monkeypatch.chdir(tmp_path)
    assert inspect_data(["d", "--format", "json"]) == 0
    assert set(asked) == {COMMIT}
    asked.clear()
    assert inspect_data(["data=huggingface", "data.name=someone/birds", "data.cache=null", "data.image_size=8"]) == 0
    assert set(asked) == {None}


def test_a_revision_that_is_gone_is_replaced_by_the_newest(tmp_path, monkeypatch, caplog):
    from resnet_cli.data import huggingface

    def load_newest(name, subset, revision=None):
        if revision is not None:
            raise ValueError("no such revision")
        return load_dataset(name, subset)

    keep_in_cache(tmp_path)
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_newest)
    with preferring_revision("f" * 40):
        assert huggingface(name="someone/birds", cache=None).revision == COMMIT
    line = f"someone/birds: revision {'f' * 40} cannot be read; revision {COMMIT} is read instead"
    assert [record.levelname for record in caplog.records if record.getMessage() == line] == ["WARNING"]


def test_a_revision_is_read_from_its_files_if_the_library_reads_another_one(tmp_path, monkeypatch, caplog):
    from resnet_cli.data import huggingface

    load_dataset, other = datasets.load_dataset, "f" * 40

    def load_newest(name, subset, revision=None):  # as the library does without a connection to the hub
        return load_dataset(name, subset)

    keep_in_cache(tmp_path)
    keep_as_files(tmp_path, monkeypatch, "birds", other, train=table(seed=50), test=table(3, 100))
    monkeypatch.setattr(datasets, "load_dataset", load_newest)
    with preferring_revision(other):
        data = huggingface(name="someone/birds", cache=None)
    assert data.revision == other
    assert np.array_equal(data.train.images.load()[0].numpy(), pixels(50))
    assert f"someone/birds: revision {other}, as the run was trained on" in caplog.text
    assert huggingface(name="someone/birds", revision="e" * 40, cache=None).revision == COMMIT  # it has no files


def test_the_recorded_revision_is_that_of_the_same_set():
    own = {"_target_": "resnet_cli.data.huggingface", "name": "someone/birds", "revision": None}
    assert revision_of(own, {"data": own}, {"data_revision": COMMIT}) == COMMIT
    for record in ({}, {"data_revision": 3}):
        assert revision_of(own, {"data": own}, record) is None
    for change in ({"name": "someone/fish"}, {"revision": "main"}, {"_target_": "mine.birds"}):
        assert revision_of(own | change, {"data": own}, {"data_revision": COMMIT}) is None


def test_splits_with_other_numbers_of_classes_are_refused(tmp_path, load):
    other = table(6, seed=50).cast_column("label", datasets.ClassLabel(names=["dog", "owl", "cat"]))
    datasets.DatasetDict({"train": table(), "test": other}).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(InputError, match=r"classes of column 'label' \('dog', 'owl', 'cat'\) are not those of train"):
        load(tmp_path / "x")


@pytest.mark.parametrize("label", [-1, ""])
def test_a_split_of_which_no_label_is_known_is_not_used(tmp_path, load, label):
    kind = datasets.Value("int64" if label == -1 else "string")
    train = table().cast_column("label", datasets.Value("int64")).cast_column("label", kind)
    test = train.remove_columns("label").add_column("label", [label] * len(train)).cast_column("label", kind)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "x"))
    data = load(tmp_path / "x", test_fraction=0.25)
    assert (len(data.train), len(data.test)) == (9, 3)
