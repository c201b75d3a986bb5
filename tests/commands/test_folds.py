"""resnet-eval SWEEP --out-of-fold and --label-errors from the command line."""

import csv
import gc
import json
import shutil
import weakref

import pytest
import torch

from resnet_cli.commands.eval import run
from resnet_cli.errors import InputError
from resnet_cli.evaluation import label_report, out_of_fold
from resnet_cli.session.trained import TrainedRun
from tests.support.runs import record_of, tiny


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory):
    """A sweep over two folds of tiny images, trained for an epoch."""
    from resnet_cli.commands.train.main import run as train

    place = tmp_path_factory.mktemp("folds")
    arguments = ["-m", *tiny("trainer.epochs=1"), "data.folds=2", "data.fold=0,1", "hydra.sweep.dir=sweep"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sys.argv", ["resnet-train", *arguments])
        assert train(arguments) == 0
    return place / "sweep"


@pytest.fixture
def sweep(sweep_folder, tmp_path, monkeypatch):
    """A copy of that sweep, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(sweep_folder, tmp_path / "sweep")


def test_table_and_files(sweep, capsys):
    assert run(["sweep", "--label-errors"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == "images   96, each by runs that were not trained on it"
    rows = list(csv.DictReader((sweep / "eval/label_errors.csv").read_text().splitlines()))
    assert lines[1] == f"labels   {len(rows)} probably wrong ({100 * len(rows) / 96:.1f} %)"
    assert lines[-1].startswith("files    sweep/eval/label_errors.csv")
    assert (sweep / "eval/label_errors.png").exists() == bool(rows)
    if rows:
        assert lines[4].split()[0] == rows[0]["name"]


def test_json_and_another_folder(sweep, capsys):
    assert run(["sweep", "--label-errors", "--format", "json", "--out", "a/b"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["missing"], found["table"]) == (96, 0, "a/b/label_errors.csv")
    with open("a/b/label_errors.csv") as file:  # noqa: PTH123
        assert [row["name"] for row in csv.DictReader(file)] == [error["name"] for error in found["errors"]]
    assert not (sweep / "eval").exists()


def test_figures_are_those_of_the_folds_together(sweep, capsys):
    assert run(["sweep", "--out-of-fold", "--resamples", "200"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[:2] == ["sweep: 2 runs", "96 images, each by runs that were not trained on it, 3 classes"]
    metrics = json.loads((sweep / "eval/out_of_fold/metrics.json").read_text())
    best = [json.loads(path.read_text())["best"] for path in sweep.glob("*/run.json")]
    assert metrics["accuracy"] == pytest.approx(sum(each["val_accuracy"] for each in best) / 2)  # 48 images each
    assert metrics["loss"] == pytest.approx(sum(each["val_loss"] for each in best) / 2, rel=1e-4)
    with (sweep / "eval/out_of_fold/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows) == 96
    assert (sweep / "eval/out_of_fold/mistakes.png").exists()


def test_figures_of_epochs_that_were_chosen_on_the_same_images_are_said_to_be_optimistic(sweep, capsys):
    for path in sweep.glob("*/run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 5}))
    options = ["sweep", "--out-of-fold", "--resamples", "0", "--format", "json"]
    for checkpoint, file, is_optimistic in (
        (None, "best.pt", True),
        ("best", "best.pt", True),
        ("last", "last.pt", False),
    ):
        assert run(options if checkpoint is None else [*options, "--checkpoint", checkpoint]) == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert (found["checkpoints"], "optimistic" in found) == ([file, file], is_optimistic)
        assert ("so the figures are optimistic; --checkpoint last evaluates the last epochs" in err) == is_optimistic
    assert run(["sweep", "--label-errors", "--checkpoint", "last"]) == 0


@pytest.fixture(scope="module")
def tuned_folder(tmp_path_factory):
    """A sweep over two folds whose runs start from one that was trained on most of their images, `base`."""
    from resnet_cli.commands.train.main import run as train

    place = tmp_path_factory.mktemp("tuned")
    first = tiny("trainer.epochs=1", "hydra.run.dir=base")
    folds = ["-m", *tiny("trainer.epochs=1", "init_from=base"), "data.folds=2", "data.fold=0,1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for arguments in (first, [*folds, "hydra.sweep.dir=sweep"]):
            patch.setattr("sys.argv", ["resnet-train", *arguments])
            assert train(arguments) == 0
    return place


def test_images_that_the_weights_had_learnt_before_the_sweep_are_not_called_unseen(
    tuned_folder, tmp_path, monkeypatch, capsys, caplog
):
    place = shutil.copytree(tuned_folder, tmp_path / "tuned")
    monkeypatch.chdir(place)
    assert run(["sweep", "--out-of-fold", "--resamples", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "96 images, each by the runs that validate on it, 3 classes"
    lines = [line for line in caplog.messages if ": init_from=base: that run was trained on " in line]
    assert len(lines) == 2
    assert all(line.endswith(" of the 48 validation images of this run, whose figures on them are optimistic")
               for line in lines)  # fmt: skip
    metrics = json.loads((place / "sweep/eval/out_of_fold/metrics.json").read_text())
    counts = [entry["init_from"]["val"]["seen"] for entry in metrics["seen_images"].values()]
    assert len(counts) == 2
    assert sum(counts) == record_of(place / "base")["data"]["images"]["train"]
    for path in place.glob("sweep/*/run.json"):  # as former versions wrote it
        record = json.loads(path.read_text())
        assert record.pop("seen_images")["init_from"]["val"]["seen"] in counts
        path.write_text(json.dumps(record))
    caplog.clear()
    assert run(["sweep", "--label-errors"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "images   96, each by the runs that validate on it"
    assert [line for line in caplog.messages if "init_from" in line] == lines


def test_an_image_that_several_runs_left_out_counts_once(sweep, capsys):
    for folder in [path.parent for path in sweep.glob("*/run.json")]:
        shutil.copytree(folder, folder.with_name(f"{folder.name},again"))
    assert run(["sweep", "--out-of-fold", "--format", "json", "--resamples", "0"]) == 0
    twice = json.loads(capsys.readouterr().out)
    assert (twice["samples"], len(twice["runs"])) == (96, 4)
    members = out_of_fold.open_members(sweep)
    found = out_of_fold.predict_out_of_fold(members)
    read = out_of_fold._images(members, found).read([0, 50])
    for name, image_CHW in zip([found.names[0], found.names[50]], read, strict=True):
        member = next(member for member in members if name in member.names("val"))
        own = torch.cat([images_BCHW for images_BCHW, _ in member.run.loaders().val.epoch(0)])
        assert torch.equal(image_CHW, own[member.names("val").index(name)])
    shutil.rmtree(next(sweep.glob("*fold=0*again")))
    shutil.rmtree(next(sweep.glob("*fold=0*")))
    assert run(["sweep", "--out-of-fold", "--resamples", "0"]) == 0
    assert "note: 48 images are in the validation split of no finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_the_data_of_one_fold_at_a_time_are_in_memory(sweep, monkeypatch):
    made, alive = [], []
    build = TrainedRun.loaders

    def loaders(self, node=None):
        gc.collect()
        alive.append(sum(reference() is not None for reference in made))
        found = build(self, node)
        made.append(weakref.ref(found.val))
        return found

    monkeypatch.setattr(TrainedRun, "loaders", loaders)
    members = out_of_fold.open_members(sweep)
    found = out_of_fold.predict_out_of_fold(members)
    images = out_of_fold._images(members, found).read(range(96))
    assert images.shape == (96, 3, 8, 8)
    assert set(label_report._images_of(members, {name: index for index, name in enumerate(found.names)})) == set(
        range(96)
    )
    assert len(made) >= 6  # two runs, three times
    assert set(alive) == {0}
    assert not any("partition" in vars(member) for member in members)


def test_runs_that_differ_in_more_than_the_fold_are_reported(sweep, capsys, caplog):
    folder = next(sweep.glob("fold=0*"))
    config = (folder / "config.yaml").read_text().replace("\nseed: 0", "\nseed: 1")
    shutil.copytree(folder, folder.with_name("again"))
    (folder.with_name("again") / "config.yaml").write_text(config)
    out_of_fold.open_members(sweep)
    assert caplog.messages == []
    changed = config.replace("\n  lr: 0.1", "\n  lr: 0.05")
    assert changed != config
    (folder.with_name("again") / "config.yaml").write_text(changed)
    out_of_fold.open_members(sweep)
    assert caplog.messages == ["the runs differ in optimizer.lr; the result is of all of them together"]


def test_all_images_count_where_training_validated_on_some(tmp_path, monkeypatch, capsys):
    from resnet_cli.commands.train.main import run as train

    monkeypatch.chdir(tmp_path)
    arguments = ["-m", *tiny("trainer.epochs=1", "trainer.max_batches=1", "data.eval_batch_size=8")]
    arguments += ["data.folds=2", "data.fold=0,1", "hydra.sweep.dir=sweep"]
    monkeypatch.setattr("sys.argv", ["resnet-train", *arguments])
    assert train(arguments) == 0
    capsys.readouterr()
    assert run(["sweep", "--out-of-fold", "--format", "json", "--resamples", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 96


@pytest.mark.parametrize("flag", ["--label-errors", "--out-of-fold"])
@pytest.mark.parametrize(("arguments", "problems"), [
    (["sweep", "--split", "val", "--tta", "flip"], ["--split: cannot be combined", "--tta: cannot be combined"]),
    (["sweep", "--explain", "3", "--embed", "--unknown", "x"],
     ["--explain: cannot be combined", "--embed: cannot be combined", "--unknown: cannot be combined"]),
    (["nothing"], ["nothing: no such folder"]),
    (["sweep", "--checkpoint", "a.pt"], ["--checkpoint a.pt: with --"]),
    (["sweep/sweep.json"], ["sweep/sweep.json: not a folder"]),
    (["sweep", "--out", "sweep/sweep.json"], ["--out=sweep/sweep.json: is a file"]),
    (["sweep", "--split", "val", "--out", "sweep/sweep.json"], ["--split: cannot be", "--out=sweep/sweep.json: is a"]),
])  # fmt: skip
def test_wrong_input(sweep, capsys, arguments, problems, flag):
    assert run([*arguments, flag]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == len(problems)
    for line, words in zip(err.splitlines(), problems, strict=True):
        assert line.startswith(f"error: {words}")
    assert not (sweep / "eval").exists()


@pytest.mark.parametrize("flag", ["--label-errors", "--out-of-fold"])
def test_files_do_not_go_into_a_run_folder_itself(sweep, capsys, flag):
    folder = next(sweep.glob("fold=0*"))
    assert run(["sweep", flag, "--out", str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out={folder}: is a run folder")


def test_a_sweep_without_the_flag_is_told_of_it(sweep, capsys):
    assert run(["sweep"]) == 2
    assert "--out-of-fold for a sweep over folds" in capsys.readouterr().err


def test_either_of_the_flags(sweep, capsys):
    assert run(["sweep", "sweep", "--out-of-fold", "--label-errors"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --label-errors: cannot be combined with --out-of-fold", "error: --out-of-fold: takes one sweep"
    ]  # fmt: skip


def test_runs_without_folds(trained_run, capsys):
    assert run([str(trained_run), "--label-errors"]) == 2
    assert "has no data.folds; this takes a sweep over folds" in capsys.readouterr().err


def test_validation_images_that_are_dealt_anew_are_refused(sweep, capsys, caplog):
    members = out_of_fold.open_members(sweep)
    for member in members:
        member.run.data["splits"]["val"]["selection"] = "0" * 16
    with pytest.raises(InputError) as raised:
        out_of_fold.predict_out_of_fold(members)
    assert len(raised.value.problems) == 2
    for member, line in zip(members, raised.value.problems, strict=True):
        assert line.startswith(f"{member.name}: the validation images have changed since training: selection 0000")
        assert line.endswith("; restore the images, or train the sweep again")
    members = out_of_fold.open_members(sweep)
    members[0].run.data["splits"]["val"]["labels"] = "0" * 16
    assert len(out_of_fold.predict_out_of_fold(members).names) == 96
    assert f"{members[0].name}: the validation images have changed since training: labels 0000" in caplog.text
    members[0].run.data["class_names"][0] = "another"
    with pytest.raises(InputError, match="the classes of its images have changed since training"):
        out_of_fold.predict_out_of_fold(members)
