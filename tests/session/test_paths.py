"""Runs find their files from another working folder, and after they were moved together with them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.runs import record_of, records

RUN = ["data=image_folder", "data.cache=null", "data.val_fraction=0", "model=cnn", "trainer.epochs=1"]
CSV = """
import torch

from resnet_cli.data import Dataset, DatasetSplit


def table(*, labels: str):
    with open(labels) as file:
        classes = torch.tensor([int(line) for line in file])
    images = torch.zeros(len(classes), 8, 8, 3, dtype=torch.uint8)
    split = DatasetSplit(images, classes)
    return Dataset(name="table", class_names=("a", "b"), train=split, test=split)
"""


def make_images(root):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


@pytest.fixture
def project(tmp_path):
    make_images(tmp_path / "project" / "images (1), ü")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "project"


@pytest.fixture
def elsewhere(project):
    return project.parent / "elsewhere"


@pytest.fixture
def finished(train, project):
    status, _, err = train(*RUN, "data.root=images (1), ü", "hydra.run.dir=runs (1)/日本,x=1", cwd=project)
    assert (status, err) == (0, "")
    return project / "runs (1)/日本,x=1"


def test_a_run_goes_on_from_another_working_folder(train, finished, project, elsewhere):
    status, out, err = train(f"resume={finished}", "trainer.epochs=2", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert f"data.root has moved to {project}/images (1), ü" in out
    assert "root: images (1), ü\n" in (finished / "config.yaml").read_text()  # as it was typed
    assert not list(elsewhere.iterdir())


def test_a_run_that_is_moved_with_its_data_goes_on(train, finished, project, elsewhere):
    moved = project.rename(project.with_name("moved"))
    for epochs in (2, 3):
        status, _, err = train(
            f"resume={moved / finished.relative_to(project)}", f"trainer.epochs={epochs}", cwd=elsewhere
        )
        assert (status, err) == (0, "")


def test_missing_data_are_named_with_both_places_and_the_way(train, finished, project, elsewhere):
    moved = elsewhere / "run"
    shutil.move(finished, moved)
    shutil.move(project / "images (1), ü", elsewhere / "new")
    before = (moved / "run.json").read_bytes()
    status, _, err = train("resume=run", "trainer.epochs=2", cwd=elsewhere)
    (line,) = err.splitlines()
    assert status == 2
    assert f"not found at {project}/images (1), ü or {elsewhere.parent}/images (1), ü; give the new path" in line
    assert (moved / "run.json").read_bytes() == before
    assert train("resume=run", "trainer.epochs=2", "data.root=new", cwd=elsewhere)[0] == 0
    assert train("resume=elsewhere/run", "trainer.epochs=3", cwd=elsewhere.parent)[0] == 0


def test_a_path_that_is_given_now_is_meant_from_here(train, finished, elsewhere):
    status, _, err = train(f"resume={finished}", "trainer.epochs=2", "data.root=images (1), ü", cwd=elsewhere)
    assert status == 2
    assert "images (1), ü does not exist" in err


def test_a_run_of_an_earlier_version_is_found_by_its_folder(train, finished, elsewhere):
    record = finished / "run.json"
    record.write_text(record.read_text().replace('"paths"', '"former"'))
    assert train(f"resume={finished}", "trainer.epochs=2", cwd=elsewhere)[0] == 0


def test_files_of_an_own_data_set_are_found_and_the_config_is_the_same(train, project, elsewhere, monkeypatch):
    (project / "table_data.py").write_text(CSV)
    (project / "y.csv").write_text("0\n1\n" * 8)
    monkeypatch.syspath_prepend(project)
    own = ["data._target_=table_data.table", "data.labels=y.csv"]
    status, _, err = train(*own, *RUN[2:], "data.augment=null", "hydra.run.dir=d", cwd=project)
    assert (status, err) == (0, "")
    status, _, err = train(f"resume={project}/d", own[0], "trainer.epochs=2", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert record_of(project / "d")["resumed_from"][0]["changes"] == ["trainer.epochs: 1 -> 2"]


@pytest.mark.parametrize("folder", [".", "images (1), ü"])
def test_the_table_of_images_is_found_too(train, project, elsewhere, folder):
    table = project / "lists (1)" / "ü,1.csv" if folder != "." else project / "images (1), ü" / "ü,1.csv"
    table.parent.mkdir(exist_ok=True)
    names = [path.relative_to(project / "images (1), ü") for path in sorted((project / "images (1), ü").glob("*/*/*"))]
    table.write_text("path,label\n" + "".join(f"{name},{name.parts[1]}\n" for name in names))
    arguments = [f"data.file={table.relative_to(project)}", *([] if folder == "." else [f"data.root={folder}"])]
    status, _, err = train("data=csv", *RUN[1:], *arguments, "hydra.run.dir=d", cwd=project)
    assert (status, err) == (0, "")
    assert train(f"resume={project}/d", "trainer.epochs=2", cwd=elsewhere)[0] == 0
    moved = table.rename(elsewhere / "new.csv")
    status, _, err = train(f"resume={project}/d", "trainer.epochs=3", cwd=elsewhere)
    assert status == 2
    assert f"not found at {table}" in err
    if folder != ".":
        assert train(f"resume={project}/d", "trainer.epochs=3", f"data.file={moved.name}", cwd=elsewhere)[0] == 0


def test_other_commands_find_the_data_too(finished, elsewhere, monkeypatch, capsys):
    from resnet_cli.commands.info import run

    monkeypatch.chdir(elsewhere)
    assert run([str(finished), "--gradients"]) == 0, capsys.readouterr()


def test_weights_to_start_from_are_found_from_another_working_folder(train, finished, project, elsewhere):
    start = [*RUN, "data.root=images (1), ü", f"init_from={finished.relative_to(project)}", "hydra.run.dir=d"]
    assert train(*start, cwd=project)[0] == 0
    shutil.rmtree(project / "d" / "checkpoints")
    (project / "d" / "metrics.jsonl").unlink()
    status, out, err = train(f"resume={project}/d", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert f"from    {finished.relative_to(project)}\n" in out


@pytest.mark.slow
def test_a_sweep_over_paths_goes_on_from_another_working_folder(train, project, elsewhere):
    shutil.copytree(project / "images (1), ü", project / "b b")
    shutil.copytree(project / "images (1), ü", project / "c")
    assert train("-m", *RUN, "data.root=b b,c", "hydra.sweep.dir=s", cwd=project)[0] == 0
    status, out, err = train("-m", f"resume={project}/s", "trainer.epochs=2", cwd=elsewhere)
    assert (status, err) == (0, "")
    assert "2 runs: 2 finished" in out
    assert not list(elsewhere.iterdir())
    (project / "c").rename(project / "gone")
    before = records(project / "s")
    status, _, err = train("-m", f"resume={project}/s", "trainer.epochs=3", cwd=elsewhere)
    (line,) = err.splitlines()
    assert status == 2
    assert f"(data.root=c): data.root=c: not found at {project}/c" in line
    assert records(project / "s") == before


@pytest.mark.slow
def test_a_sweep_goes_on_with_data_in_a_new_place(train, project, elsewhere):
    assert train("-m", *RUN, "data.root=images (1), ü", "seed=0,1", "hydra.sweep.dir=s", cwd=project)[0] == 0
    shutil.move(project / "images (1), ü", elsewhere / "new")
    command = ["-m", f"resume={project}/s", "trainer.epochs=2"]
    assert train(*command, cwd=elsewhere)[0] == 2
    assert train(*command, "data.root=new", cwd=elsewhere)[0] == 0
    assert train("-m", "resume=s", "trainer.epochs=3", cwd=project)[0] == 0
    assert len([path for path in (project / "s").iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_a_sweep_over_paths_goes_on_with_each_in_a_new_place(train, project, elsewhere):
    shutil.copytree(project / "images (1), ü", project / "b b")
    assert train("-m", *RUN, "data.root='images (1), ü',b b", "hydra.sweep.dir=s", cwd=project)[0] == 0
    names = sorted(records(project / "s"))
    shutil.move(project / "images (1), ü", elsewhere / "new, a")
    shutil.move(project / "b b", elsewhere / "b")
    command = ["-m", f"resume={project}/s", "trainer.epochs=2"]
    status, _, err = train(*command, cwd=elsewhere)
    assert (status, len(err.splitlines())) == (2, 2)
    assert err.count("give the new path with data.root=PATH,PATH, a path for each of images (1), ü, b b in this") == 2
    status, _, err = train(*command, "data.root=b", cwd=elsewhere)
    assert (status, err.count("give a path for each in the same order, data.root=PATH,PATH")) == (2, 1)
    assert train(*command, "data.root='new, a',b", cwd=elsewhere)[0] == 0
    assert train("-m", "resume=s", "trainer.epochs=3", cwd=project)[0] == 0, (
        "each job knows where it has found its data"
    )
    assert sorted(records(project / "s")) == names
    assert {record["epochs"] for record in records(project / "s").values()} == {3}


@pytest.mark.slow
def test_a_job_that_cannot_go_on_keeps_its_result(train, project, elsewhere):
    assert train("-m", *RUN, "data.root=images (1), ü", "seed=0", "hydra.sweep.dir=s", cwd=project)[0] == 0
    shutil.rmtree(project / "images (1), ü" / "train")
    status, _, err = train("-m", "resume=s", "trainer.epochs=2", cwd=project)
    assert status == 1
    assert "1 of 1 job did not finish" in err
    (record,) = records(project / "s").values()
    assert record["status"] == "finished"
    assert "train" in record["reason"]
    status, out, _ = train("-m", "resume=s", "trainer.epochs=1", cwd=project)
    assert (status, out.count("already finished")) == (0, 1)
