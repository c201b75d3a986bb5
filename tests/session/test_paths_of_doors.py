"""Every data set that reads files finds them when a run goes on from another working folder."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import tiers
from tests.support.shards import write_shards

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(24) % 3


def write_folder(folder):
    for n, pixels in enumerate(IMAGES):
        path = folder / f"images/{LABELS[n]}/{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return ["data=image_folder", "data.root=images"]


def write_table(folder, root="images"):
    write_folder(folder)
    rows = [f"{'' if root else 'images/'}{label}/{n}.png,{label}" for n, label in enumerate(LABELS)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    return ["data=csv", "data.file=labels.csv", f"data.root={root or 'null'}"]


def write_arrays(folder):
    np.save(folder / "x.npy", IMAGES)
    np.save(folder / "y.npy", LABELS)
    return ["data=arrays", "data.file=x.npy", "data.labels_file=y.npy"]


def write_split_file(folder):
    np.savez(folder / "x.npz", images=IMAGES, labels=LABELS)
    names = [f"train/{n}" for n in range(18)]
    (folder / "parts.json").write_text(json.dumps({"train": names[:12], "val": names[12:]}))
    return ["data=arrays", "data.file=x.npz", "data.splits=parts.json"]


def write_tars(folder, shards):
    for name in ("train", "val", "test"):
        write_shards(folder, 3, 8, name=name)
    named = ["data.val_shards=val-{00..02}.tar", "data.test_shards=[test-00.tar,test-0[12].tar]"]
    return ["data=webdataset", f"data.shards={shards}", *named]


def write_parquet(folder):
    datasets = pytest.importorskip("datasets")
    (folder / "hub").mkdir()
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list("abc")))
    columns = {"image": [Image.fromarray(pixels) for pixels in IMAGES], "label": LABELS.tolist()}
    datasets.Dataset.from_dict(columns, features).to_parquet(folder / "hub/train-00000-of-00001.parquet")
    return ["data=huggingface", "data.root=hub"]


@pytest.mark.parametrize(
    "write",
    tiers.mostly_slow([
        write_folder, write_table, lambda folder: write_table(folder, ""), write_arrays, write_split_file,
        lambda folder: write_tars(folder, "train-{00..02}.tar"), lambda folder: write_tars(folder, "train-*.tar"),
        lambda folder: write_tars(folder, "[train-00.tar,train-0{1..2}.tar]"), write_parquet,
    ], every=4),
    ids=["folder", "csv", "csv alone", "arrays", "splits", "shards", "shards by pattern", "list of shards", "parquet"],
)  # fmt: skip
def test_a_run_goes_on_from_another_working_folder(train, tmp_path, write):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    small = ["model=plain_mlp", "trainer.epochs=1", "data.cache=null", "hydra.run.dir=run", "data.workers=0"]
    options = write(project)
    if options[0] == "data=arrays":
        small.remove("data.cache=null")
    status, _, err = train(*options, *small, cwd=project)
    assert status == 0, err
    status, _, err = train(f"resume={project / 'run'}", "trainer.epochs=2", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert not list(elsewhere.iterdir())
    moved = project.rename(tmp_path / "moved")
    status, _, err = train("resume=../moved/run", "trainer.epochs=3", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert json.loads((moved / "run/run.json").read_text())["status"] == "finished"
