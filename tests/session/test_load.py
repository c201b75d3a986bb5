"""Weights and checkpoints that a command names are the ones that are taken, or it is refused."""

import hashlib
import json
import shutil

import pytest
import torch

from resnet_cli.runs import checkpoints
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of, tiny


@pytest.fixture
def finished(train, tmp_path):
    assert train(*tiny("model=cnn", "hydra.run.dir=d", "data.noise=3"))[0] == 0
    return tmp_path / "d"


def weights(file):
    return torch.load(file, weights_only=True)["state"]["model"]


@pytest.mark.parametrize("name", ["best.pt", "previous.pt", "epoch7.pt"])
def test_a_run_is_not_resumed_from_another_checkpoint_than_the_last(train, finished, name):
    file = finished / "checkpoints" / name
    shutil.copy(finished / "checkpoints" / "last.pt", file)
    status, _, err = train(f"resume=d/checkpoints/{name}", "trainer.epochs=3")
    assert status == 2
    (line,) = err.splitlines()
    assert "resume=d does that" in line
    assert f"init_from=d/checkpoints/{name} starts a new run" in line
    assert record_of(finished)["resumed_from"] is None


def test_the_last_checkpoint_may_be_named(train, finished):
    status, out, _ = train("resume=d/checkpoints/last.pt", "trainer.epochs=3")
    assert status == 0
    assert "from    epoch 2" in out
    assert record_of(finished)["resumed_from"][0]["checkpoint"] == "last.pt"


@pytest.mark.parametrize("path", ["d/checkpoints/last.pt", "copied.pt"])
def test_a_new_run_starts_from_the_weights_in_the_file_that_is_named(train, finished, tmp_path, path):
    shutil.copy(finished / "checkpoints" / "last.pt", tmp_path / "copied.pt")
    status, out, _ = train(*tiny("model=cnn", f"init_from={path}", "optimizer.lr=1e-30", "hydra.run.dir=e"))
    assert status == 0
    assert f"from    {path}" in out
    before, after = weights(finished / "checkpoints" / "last.pt"), weights(tmp_path / "e/checkpoints/last.pt")
    for key in before:
        torch.testing.assert_close(before[key], after[key], msg=key)
    assert open_trained(str(tmp_path / path)).in_size == (3, 8, 8)


@pytest.fixture
def averaged(train, tmp_path):
    """The last checkpoint of a run with averages, which are what it evaluates."""
    assert train(*tiny("model=cnn", "trainer.averaging=ema", "trainer.epochs=1", "hydra.run.dir=d"))[0] == 0
    return tmp_path / "d/checkpoints/last.pt"


def start_of(train, tmp_path, file):
    """The weights of a new run that learns nothing, and the line about them."""
    arguments = tiny("model=cnn", f"init_from={file}", "optimizer.lr=1e-30", "trainer.epochs=1", "hydra.run.dir=e")
    (line,) = lines_of_weights(train(*arguments))
    return weights(tmp_path / "e/checkpoints/last.pt"), line


def test_a_new_run_starts_from_the_averages_that_a_run_evaluates(train, averaged, tmp_path):
    found, line = start_of(train, tmp_path, averaged)
    assert f"parameters from {averaged} (average)" in line
    expected, own = open_trained(str(averaged)).model.state_dict(), weights(averaged)
    assert any(not torch.equal(own[name], expected[name]) for name in own)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def test_averages_of_a_model_that_is_not_allowed_are_left_with_a_remark(train, averaged, tmp_path):
    content = checkpoints.load(averaged)
    config = {**content["config"], "model": {"_target_": "own_model.MultiScale"}}
    checkpoints.save(tmp_path / "own.pt", {"config": config, "data": content["data"], "state": content["state"]})
    found, line = start_of(train, tmp_path, "own.pt")
    assert "(average)" not in line
    assert "; its own weights, not the averages that its run evaluates: model._target_: own_model.MultiScale" in line
    own = weights(averaged)
    for name in own:
        torch.testing.assert_close(found[name], own[name], msg=name)


@pytest.mark.slow
def test_a_run_that_began_with_the_weights_beside_averages_begins_with_them_again(train, averaged, tmp_path):
    content = checkpoints.load(averaged)
    state = {name: value for name, value in content["state"].items() if name != "average"}
    checkpoints.save(tmp_path / "start.pt", {"config": content["config"], "data": content["data"], "state": state})
    assert train(*tiny("model=cnn", "init_from=start.pt", "trainer.epochs=1", "hydra.run.dir=e"))[0] == 0
    shutil.copy(averaged, tmp_path / "start.pt")  # the record is that of a former version, which took no averages
    record = record_of(tmp_path / "e")
    assert "container" not in record["weights"]
    record["weights"]["sha256"] = hashlib.sha256(averaged.read_bytes()).hexdigest()
    (tmp_path / "e/run.json").write_text(json.dumps(record))
    status, out, err = train("reproduce=e", "hydra.run.dir=f")
    assert (status, err) == (0, "")
    assert "identical to e: " in out
    expected = weights(tmp_path / "e/checkpoints/last.pt")
    shutil.rmtree(tmp_path / "e/checkpoints")
    (tmp_path / "e/metrics.jsonl").unlink()
    (line,) = lines_of_weights(train("resume=e"))
    assert "; its own weights, as this run began with, not the averages that its run evaluates" in line
    found = weights(tmp_path / "e/checkpoints/last.pt")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_that_began_with_averages_begins_with_them_again(train, averaged, tmp_path):
    start_of(train, tmp_path, averaged)
    assert record_of(tmp_path / "e")["weights"]["container"] == "average"
    shutil.rmtree(tmp_path / "e/checkpoints")
    (tmp_path / "e/metrics.jsonl").unlink()
    (line,) = lines_of_weights(train("resume=e"))
    assert f"parameters from {averaged} (average)" in line


@pytest.mark.slow
def test_another_normalisation_than_that_of_the_weights_is_said(train, finished):
    (same,) = lines_of_weights(train(*tiny("model=cnn", "init_from=d", "data.noise=3", "hydra.run.dir=e")))
    assert "normalised" not in same
    (other,) = lines_of_weights(train(*tiny("model=cnn", "init_from=d", "data.noise=0", "hydra.run.dir=f")))
    assert "; its images were normalised by data.mean=[" in other


def test_other_weights_do_not_replace_those_that_a_run_without_a_checkpoint_started_from(train, finished, tmp_path):
    source = finished / "checkpoints/best.pt"
    shutil.copy(source, tmp_path / "start.pt")
    assert train(*tiny("model=cnn", "init_from=start.pt", "hydra.run.dir=e"))[0] == 0
    shutil.rmtree(tmp_path / "e/checkpoints")
    (tmp_path / "e/metrics.jsonl").unlink()
    shutil.copy(finished / "checkpoints/previous.pt", tmp_path / "start.pt")
    status, _, err = train("resume=e")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: start.pt: not the weights that the run started from: ")
    assert train("resume=e", "resume_force=true")[0] == 0


def lines_of_weights(result):
    status, out, err = result
    assert status == 0, err
    return [line for line in out.splitlines() if line.startswith("weights ")]


def test_other_weights_than_those_of_the_resumed_run_are_not_dropped_silently(train, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "other")
    status, out, _ = train("resume=d", "init_from=other", "trainer.epochs=3")
    assert status == 0
    assert "init_from: other is not used, the run continues from its own last.pt" in out


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_from_the_same_weights(train, finished, tmp_path):
    started = tiny("model=cnn", "init_from=d", "optimizer.lr=1e-30", "hydra.run.dir=e")
    assert train(*started)[0] == 0
    expected = weights(tmp_path / "e/checkpoints/last.pt")
    shutil.rmtree(tmp_path / "e/checkpoints")
    (tmp_path / "e/metrics.jsonl").unlink()
    status, out, _ = train("resume=e")
    assert status == 0
    assert "from    d" in out
    found = weights(tmp_path / "e/checkpoints/last.pt")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


RESNET = ["model.depth=8", "model.width=4"]


@pytest.fixture
def published(train, tmp_path):
    """A file as another program would have saved it, of a net trained on three classes of colour images."""
    assert train(*tiny(*RESNET, "hydra.run.dir=a", "trainer.epochs=1"))[0] == 0
    state = {f"module.{name}": value for name, value in weights(tmp_path / "a/checkpoints/best.pt").items()}
    torch.save({"state_dict": state, "epoch": 90, "best_prec1": 69.8}, tmp_path / "net.pth")
    return state


def test_a_run_starts_from_a_published_file_for_other_classes_channels_and_sizes(train, published, tmp_path):
    digits = ["data=digits", "data.image_size=12", "model=resnet8", *RESNET, "trainer.epochs=1"]
    frozen = ["data.train_size=64", "optimizer.lr=1e-30", "optimizer.weight_decay=0"]
    status, out, err = train(*digits, *frozen, "init_from=net.pth", "hydra.run.dir=b")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("weights ")]
    assert "from net.pth (state_dict); adapted: stem.0.weight (3 -> 1 channels)" in line
    assert "new: head.linear.weight|bias (3 classes in the file)" in line
    found = weights(tmp_path / "b/checkpoints/last.pt")
    torch.testing.assert_close(found["stem.0.weight"], published["module.stem.0.weight"].sum(1, keepdim=True))
    name = "stages.1.0.main_path.conv1.weight"
    torch.testing.assert_close(found[name], published[f"module.{name}"])
    record = record_of(tmp_path / "b")
    assert record["start"] == "net.pth"
    assert record["weights"]["adapted"] == {"stem.0.weight": "3 -> 1 channels"}
    assert len(record["weights"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"module.conv1.weight": torch.ones(4, 3, 3, 3)}}, "none of its 1 tensors fits this one"),
        ({"epoch": 3}, "holds no weights: a mapping of epoch, not a state dict"),
        ([1], "holds no weights: a list, not a state dict"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_and_leaves_nothing(train, tmp_path, content, words):
    torch.save(content, tmp_path / "net.pth")
    status, _, err = train(*tiny(*RESNET), "init_from=net.pth", "hydra.run.dir=b")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert "net.pth" in line
    assert words in line
    assert not (tmp_path / "b").exists()


def test_problems_with_a_file_begin_with_its_key(train, tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "named_wrongly.pt").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "net.pkl").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    problems = {
        "nowhere": "no such run folder",
        "empty.pt": "damaged, or not a file of weights (the file is empty)",
        "text.pt": "damaged, or not a file of weights (it was not written by torch.save, or is incomplete)",
        "named_wrongly.pt": "damaged, or not a file of weights (it is a safetensors file; rename it to *.safetensors)",
        "net.pkl": "files of weights end in .pt, .pth, .th, .bin, .ckpt, .tar or .safetensors",
        "list.pt": "holds no weights: a list, not a state dict",
    }
    for name, problem in problems.items():
        assert train(*tiny(f"init_from={name}")) == (2, "", f"error: init_from={name}: {problem}\n")


def test_a_sweep_reads_the_weights_of_its_jobs_before_the_first_one_starts(train, finished, tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    for key, kind in (("init_from", "file of weights"), ("teacher", "checkpoint of resnet-cli")):
        status, _, err = train("-m", *tiny("model=cnn", "hydra.sweep.dir=s"), f"{key}=d,empty.pt")
        assert (status, len(err.splitlines())) == (2, 1)
        assert f"error: job 1 ({key}=empty.pt): {key}=empty.pt: damaged, or not a {kind} (the file is empty)" in err
        assert not (tmp_path / "s").exists()


def test_other_weights_are_named_where_a_run_is_started_or_resumed(train, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "other")
    start = tiny("model=cnn", "resume=auto", "hydra.run.dir=e", "trainer.epochs=1")
    assert train(*start, "init_from=other")[0] == 0
    line = "init_from: d is not used, the run continues from its own last.pt"
    for name, expected in (("other", False), ("d", True)):
        status, out, _ = train(*start, f"init_from={name}")
        assert (status, line in out) == (0, expected)


@pytest.mark.slow
def test_a_job_that_has_begun_needs_no_weights_to_start_from(train, finished, tmp_path):
    shutil.copy(finished / "checkpoints/best.pt", tmp_path / "start.pt")
    sweep = ["-m", *tiny("model=cnn", "hydra.sweep.dir=s", "trainer.epochs=1"), "init_from=start.pt", "seed=0,1"]
    assert train(*sweep)[0] == 0
    (tmp_path / "start.pt").unlink()
    status, _, err = train("-m", "resume=s", "trainer.epochs=2")
    assert (status, err) == (0, "")


@pytest.mark.slow
def test_weights_of_a_sweep_that_is_resumed_elsewhere_are_read_where_they_are(train, finished, tmp_path):
    shutil.copy(finished / "checkpoints/best.pt", tmp_path / "start.pt")
    sweep = ["-m", *tiny("model=cnn", "hydra.sweep.dir=s", "trainer.epochs=1"), "init_from=start.pt", "seed=0,1"]
    assert train(*sweep)[0] == 0
    for job in (tmp_path / "s").glob("seed*"):
        shutil.rmtree(job)
    (tmp_path / "elsewhere").mkdir()
    status, _, err = train("-m", f"resume={tmp_path / 's'}", cwd=tmp_path / "elsewhere")
    assert (status, err) == (0, "")
