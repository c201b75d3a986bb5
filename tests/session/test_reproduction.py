"""reproduce=RUN: the same run again, what makes it another one, and what is said and recorded then."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from resnet_cli.commands.eval import run as evaluate
from resnet_cli.commands.predict import run as predict
from resnet_cli.config import signatures
from resnet_cli.errors import InputError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import find_run_of, reproduced_from, reproduced_path
from resnet_cli.session import stored_code
from tests.support.doc_places import write_images
from tests.support.runs import assert_same_end, record_of, tiny

NET = """
import torch
from widths import WIDTH

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, width: int = WIDTH):
        super().__init__()
        numbers = in_size[0] * in_size[1] * in_size[2]
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(numbers, num_classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run, on generated data; tests copy it."""
    from resnet_cli.commands.train.main import run

    place = tmp_path_factory.mktemp("reproduced")
    arguments = tiny("model=resnet8", "name=first", "hydra.run.dir=a")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["resnet-train", *arguments])
        patch.setattr("resnet_cli.session.data_checks.draw_samples", lambda images, labels, **options: b"")
        patch.setattr("resnet_cli.session.saver.draw_curves", lambda rows, path, **options: path.write_bytes(b""))
        assert run(arguments) == 0
    return place / "a"


@pytest.fixture
def source(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "a")


def edit(run, **fields):
    record = record_of(run) | fields
    (run / "run.json").write_text(json.dumps(record))


def edit_rows(run, **values):
    rows = [json.loads(line) | values for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_comes_out_identical(train, source, tmp_path):
    status, out, err = train("reproduce=a")
    assert (status, err) == (0, "")
    (new,) = (path.parent for path in (tmp_path / "outputs").rglob("run.json"))
    assert "-first-" in new.name  # named as the run is
    assert_same_end(source, new)
    assert (new / "config.yaml").read_text() == (source / "config.yaml").read_text()
    assert "identical to a: the metrics of 2 epochs, the test result, " in out
    assert "\n  resnet-data data=synthetic data.image_size=8 " in out  # of the run, not the default data
    found = record_of(new)["reproduces"]
    assert (found["run"], found["identical"], found["first_epoch"]) == (str(tmp_path / "a"), True, None)
    assert [found[part] for part in ("metrics", "test", "weights", "not_compared")] == [{}, {}, {}, []]


def test_what_differs_is_said_and_recorded(train, source, tmp_path):
    best = checkpoints.load(source / "checkpoints/best.pt")
    name = next(iter(best["state"]["model"]))
    best["state"]["model"][name][0, 0, 0, 0] += 0.5
    checkpoints.save(source / "checkpoints/best.pt", {key: best[key] for key in ("config", "data", "state")})
    record = record_of(source)
    edit(
        source,
        processes=4,
        versions=record["versions"] | {"torch": "1.0"},
        test=record["test"] | {"loss": record["test"]["loss"] + 1},
    )
    edit_rows(source, train_loss=9.0)
    status, out, err = train("reproduce=a", "hydra.run.dir=b", "data.eval_batch_size=7")
    assert status == 1
    assert err.startswith("error: not identical to a: metrics from epoch 1 on, by at most train_loss ")
    assert err.count("\n") == 1
    assert f"the test loss by 1; weights of best.pt by at most 0.5 ({name}); what differs: " in err
    assert f"torch 1.0 -> {record['versions']['torch']}" in err
    assert "data.eval_batch_size 256 -> 7" in err
    assert "processes 4 -> 1" in err
    assert "differs " in out
    new = record_of(tmp_path / "b")
    assert new["status"] == "finished"
    found = new["reproduces"]
    assert (found["identical"], found["first_epoch"]) == (False, 1)
    assert found["weights"] == {"best.pt": {"difference": pytest.approx(0.5), "tensor": name}}
    assert found["metrics"]["train_loss"]["epoch"] in (1, 2)


@pytest.mark.slow
def test_the_number_of_threads_is_that_of_the_run(train, source, tmp_path):
    before = torch.get_num_threads()
    edit(source, threads=before + 2)
    _, out, _ = train("reproduce=a", "hydra.run.dir=b")
    assert f"threads {before + 2}, as the run had that is reproduced, instead of {before}\n" in out
    assert record_of(tmp_path / "b")["threads"] == before + 2
    assert record_of(tmp_path / "b")["reproduces"]["threads"] == before + 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [None, 0, -1, True, "2", 10**9, 10**30])
def test_an_odd_number_of_threads_is_not_used(source, threads):
    from resnet_cli.config.run_config import RunConfig
    from resnet_cli.runs.folder import RunDir
    from resnet_cli.session.reproduction import reproducing

    edit(source, threads=threads)
    before = torch.get_num_threads()
    config = RunConfig(model={}, optimizer={}, schedule={}, data={}, trainer={}, name="x", reproduce=str(source))
    with reproducing(config, RunDir(source.parent / "b")):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimizer.lr=0.3"], ["optimizer.lr: 0.1 -> 0.3: changed from the run that is reproduced", "reproduce: "]),
        (["trainer.epochs=3"], ["trainer.epochs: 2 -> 3: changed", "reproduce: "]),
        (["trainer.epochs=1"], ["trainer.epochs: 2 -> 1: changed", "reproduce: "]),
        (["trainer.time_budget=9"], ["trainer.time_budget: ", "reproduce: "]),
        (["seed=1", "model=resnet20"], ["seed: 0 -> 1: ", "model.depth: 8 -> 20: ", "reproduce: "]),
        (["resume=a"], ["resume: cannot be combined with reproduce=a"]),
        (["verify_resume=true"], ["verify_resume: cannot be combined with reproduce=a"]),
        (["resume_force=true"], ["resume_force: has no effect on reproduce=a"]),
        (["init_from=a"], ["init_from=a: a did not start from given weights; leave out init_from"]),
        (["hydra.run.dir=a"], ["reproduce=a: is the folder of the new run too"]),
        (["optimizer.rl=0.3"], ["optimizer.rl: unknown key"]),
    ],
    ids=str,
)
def test_changes_that_make_it_another_run_are_refused(train, source, tmp_path, arguments, words):
    status, _, err = train("reproduce=a", *arguments)
    assert status == 2
    lines = err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert len(lines) == len(words)
    assert all(any(line.startswith(f"error: {word}") for line in lines) for word in words)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


@pytest.mark.parametrize("status", ["interrupted", "failed", "pruned", "running"])
def test_a_run_without_an_end_is_refused(train, source, tmp_path, status):
    edit(source, status=status)
    code, _, err = train("reproduce=a")
    assert code == 2
    assert err.startswith("error: reproduce=a: the run has not finished (")
    assert "resume=a continues it" in err
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no rows in metrics.jsonl"),
        ('{"epoch": 1, "train_loss": 1.0}\n[\n', "line 2 is not a row of metrics"),
    ],
)
def test_damaged_metrics_of_a_finished_run_are_called_so(train, source, tmp_path, text, words):
    (source / "metrics.jsonl").write_text(text)
    status, _, err = train("reproduce=a")
    assert status == 2
    assert err.startswith("error: reproduce=a: its metrics cannot be used for comparison: ")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_a_test_result_that_the_run_does_not_have_is_not_said_to_be_identical(train, source):
    edit(source, test=None)
    status, out, _ = train("reproduce=a")
    assert status == 0
    assert "identical to a: the metrics of 2 epochs, 88 tensors\n" in out


def test_damaged_files_are_refused_before_training(train, source, tmp_path):
    (source / "checkpoints/last.pt").write_bytes(b"damaged")
    code, _, err = train("reproduce=a", "hydra.run.dir=b")
    assert code == 2
    assert err.startswith("error: a/checkpoints/last.pt: ")
    assert not (tmp_path / "b").exists()


def test_a_run_without_checkpoints_is_compared_by_its_metrics(train, source):
    shutil.rmtree(source / "checkpoints")
    status, out, _ = train("reproduce=a", "hydra.run.dir=b")
    assert status == 0
    assert "the test result, 0 tensors; not compared: a/checkpoints/best.pt: no such checkpoint" in out


@pytest.mark.slow
def test_data_elsewhere_are_found_or_named(train, trained_run, tmp_path):
    shutil.copytree(trained_run.parent / "photos", tmp_path / "photos")
    shutil.copytree(trained_run, tmp_path / "there" / "run")
    record = record_of(tmp_path / "there" / "run")
    (entry,) = record["paths"].values()
    entry["absolute"] = "/nowhere/photos"
    edit(tmp_path / "there" / "run", paths=record["paths"])
    status, _, err = train("reproduce=there/run", "hydra.run.dir=b")
    assert status == 2
    assert "give the new path with data.root=PATH" in err
    status, out, err = train("reproduce=there/run", "hydra.run.dir=b", "data.root=photos")
    assert (status, err) == (0, "")
    assert "identical to there/run" in out
    (tmp_path / "photos/circle").rename(tmp_path / "photos/disc")
    status, _, err = train("reproduce=there/run", "hydra.run.dir=c", "data.root=photos")
    assert "circle" in err or status == 0


@pytest.fixture
def own_class(train, tmp_path, monkeypatch):
    """A run `there/a` with a class of the user's own, whose modules are not in the working folder."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there/reproduced_nets.py").write_text(NET.replace("widths", "reproduced_widths"))
    (tmp_path / "there/reproduced_widths.py").write_text("WIDTH = 3\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(stored_code, "_folder_of", {})
    arguments = tiny("model._target_=reproduced_nets.Net", "hydra.run.dir=a")
    assert train(*arguments, cwd=tmp_path / "there")[0] == 0
    forget(tmp_path / "there")
    yield tmp_path
    forget(tmp_path / "there")


def forget(folder):
    """Make what a new process knows of the modules."""
    for name in [name for name in sys.modules if name.startswith("reproduced_")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != str(folder)]
    signatures.forget_signatures()


def test_own_classes_are_taken_from_the_run_if_it_is_trusted(train, own_class):
    arguments = ("reproduce=there/a", "hydra.run.dir=b")
    status, _, err = train(*arguments)
    assert status == 2
    assert err.startswith("error: model._target_: reproduced_nets.Net is named only in a stored config")
    assert not (own_class / "b").exists()
    assert "reproduced_nets" not in sys.modules
    status, out, err = train(*arguments, "trust=true")
    assert (status, err) == (0, "")
    assert "code    reproduced_nets is taken from " in out
    assert "resume=b trust=true trainer.epochs=4" in out
    assert "identical to there/a" in out
    assert (own_class / "b/code/modules/reproduced_widths.py").read_text() == "WIDTH = 3\n"


@pytest.mark.parametrize("folder", ["", "there"])  # without the modules, and with them
def test_companion_commands_find_own_classes_of_a_trusted_run(own_class, monkeypatch, capsys, folder):
    monkeypatch.chdir(own_class / folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    run = str(own_class / "there/a")
    write_images(own_class / "images", count=1)
    assert evaluate([run, "--resamples", "0"]) == 2
    assert "--trust of resnet-eval" in capsys.readouterr().err
    assert evaluate([run, "--resamples", "0", "--trust"]) == 0
    assert predict([run, str(own_class / "images"), "--trust"]) == 0
    source = Path(sys.modules["reproduced_nets"].__file__)
    assert source.parent == (Path.cwd() if folder else own_class / "there/a/code/modules")


@pytest.mark.slow
def test_own_classes_of_two_runs_are_not_mixed_up(train, own_class):
    shutil.copytree(own_class / "there/a", own_class / "there/b")
    (own_class / "there/b/code/modules/reproduced_widths.py").write_text("WIDTH = 4\n")
    status, _, err = train("-m", "reproduce=there/a,there/b", "trust=true")
    assert status == 2
    assert "this process has already imported reproduced_nets from " in err


@pytest.mark.slow
def test_several_runs_are_reproduced_by_a_sweep(train, source, tmp_path):
    shutil.copytree(source, tmp_path / "changed")
    edit_rows(tmp_path / "changed", val_loss=9.0)
    status, out, err = train("-m", "reproduce=a,changed", "hydra.sweep.dir=s")
    assert status == 1
    assert "identical to a:" in out
    assert "error: job 1 (reproduce=changed): not identical to changed: metrics from epoch 1 on" in err
    found = {
        path.parent.name: record_of(path.parent)["reproduces"]["identical"] for path in tmp_path.glob("s/*/run.json")
    }
    assert found == {"reproduce=a": True, "reproduce=changed": False}
    status, out, again = train("-m", "reproduce=a,changed", "hydra.sweep.dir=s")
    assert (status, "job 0 (reproduce=a): already finished" in out) == (1, True)
    assert "error: job 1 (reproduce=changed): already finished, not identical to changed: metrics from epoch 1" in again


def test_a_run_to_reproduce_is_looked_for_where_the_sweep_was_started(tmp_path, monkeypatch):
    for place in ("one", "two"):
        (tmp_path / place / "a").mkdir(parents=True)
        (tmp_path / place / "a/config.yaml").write_text("seed: 0\n")
    monkeypatch.chdir(tmp_path / "two")
    assert find_run_of("reproduce", "a").path == Path("a")
    with reproduced_from([tmp_path / "gone", tmp_path / "one"]):
        assert find_run_of("reproduce", "a").path == tmp_path / "one/a"
        assert find_run_of("resume", "a").path == Path("a")
        with pytest.raises(InputError, match=r"^reproduce=b: no such run folder"):
            find_run_of("reproduce", "b")
    with reproduced_from([tmp_path / "two"]):
        assert reproduced_path("a") == "a"


@pytest.mark.slow
def test_a_sweep_that_reproduces_runs_goes_on_from_another_working_folder(train, source, tmp_path):
    assert train("-m", "reproduce=a", "hydra.sweep.dir=s")[0] == 0
    shutil.rmtree(tmp_path / "s/reproduce=a")
    (tmp_path / "elsewhere").mkdir()
    status, out, err = train("-m", f"resume={tmp_path / 's'}", cwd=tmp_path / "elsewhere")
    assert (status, err) == (0, "")
    assert f"identical to {tmp_path / 'a'}:" in out
    assert [path.parent.name for path in tmp_path.glob("s/*/run.json")] == ["reproduce=a"]


@pytest.mark.slow
def test_weights_that_a_run_started_from_are_used_again(train, source):
    assert train(*tiny("model=resnet8", "init_from=a", "hydra.run.dir=b"))[0] == 0
    status, out, err = train("reproduce=b", "hydra.run.dir=c")
    assert (status, err) == (0, "")
    assert "identical to b" in out
    assert "differs weights" not in out
    loaded = record_of(source.parent / "b")["weights"]
    edit(source.parent / "b", weights=loaded | {"sha256": "0" * 64, "container": "average"})
    _, out, _ = train("reproduce=b", "hydra.run.dir=d")
    assert "weights in the checkpoint: averages -> own weights" in out
    assert f"weights {'0' * 64} -> {loaded['sha256']}"[:60] in out


def test_an_interrupted_reproduction_is_compared_when_it_is_resumed(train, source, tmp_path):
    assert train("reproduce=a", "hydra.run.dir=b")[0] == 0
    record = record_of(tmp_path / "b")
    edit(tmp_path / "b", reproduces=record["reproduces"] | {"identical": None}, status="interrupted")
    status, out, _ = train("resume=b")
    assert status == 0
    assert f"identical to {tmp_path / 'a'}: " in out
    assert record_of(tmp_path / "b")["reproduces"]["identical"] is True


def test_python_raises_what_the_command_prints(source, tmp_path, monkeypatch):
    import resnet_cli
    from resnet_cli.errors import NotIdenticalError

    monkeypatch.chdir(tmp_path)
    edit_rows(source, val_loss=9.0)
    with pytest.raises(NotIdenticalError, match="not identical to a: metrics from epoch 1 on"):
        resnet_cli.train(["reproduce=a", "hydra.run.dir=b"])


def test_a_run_without_a_record_cannot_be_reproduced(train, source, tmp_path):
    (source / "run.json").unlink()
    status, _, err = train("reproduce=a", "hydra.run.dir=b")
    assert (status, err) == (2, "error: reproduce=a: run.json is missing, so there is no end to compare with\n")
