"""resnet-info of a run folder: what its files tell, also without a checkpoint, and of records from elsewhere."""

import json
import shutil
import subprocess
import sys

import pytest

from resnet_cli.runs import checkpoints
from tests.support.reports import write_run


@pytest.fixture
def info(tmp_path, monkeypatch, capsys):
    """Run resnet-info in this process, in an empty working folder; returns (status, stdout, stderr)."""
    from resnet_cli.commands.info import run

    def info(*arguments):
        monkeypatch.chdir(tmp_path)
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return info


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a finished run, without its images."""
    return shutil.copytree(trained_run, tmp_path / "run")


def facts_of(text):
    """The labels and values of the lines about a run."""
    return {line[:17].strip(): line[17:] for line in text.split("\n\n")[0].splitlines() if line[:1] != " "}


def test_a_finished_run(info, run):
    status, out, err = info("run")
    assert (status, err) == (0, "")
    facts, record = facts_of(out), json.loads((run / "run.json").read_text())
    assert facts["run"] == "run: finished, 2 of 2 epochs"
    assert facts["command"] == record["command"]
    assert facts["data"] == (
        "resnet_cli.data.image_folder (photos): 36 training, 12 validation, 12 test images of 3x10x8, 3 classes"
    )
    assert facts["split"].startswith("val_fraction=0.25  split_seed=0")
    assert "lr=0.01" in facts["training"]
    assert facts["checkpoints"].startswith(f"best.pt  {(run / 'checkpoints/best.pt').stat().st_size:,} bytes  epoch ")
    assert f"last.pt  {(run / 'checkpoints/last.pt').stat().st_size:,} bytes  epoch 2, step 6  format 1" in out
    assert facts["commit"].startswith(record["git_commit"])
    assert f"torch {record['versions']['torch']}" in facts["versions"]
    assert facts["test"].startswith(f"accuracy {record['test']['accuracy']:.2f} %")
    assert facts["test set read"] == "once by training, never by evaluations"
    assert facts["best"].startswith(f"epoch {record['best']['epoch']}: validation accuracy ")
    assert "evaluations" not in facts
    assert "head.linear" in out  # the network follows


def test_json_has_the_network_as_before_and_the_run(info, run):
    found = json.loads(info("run", "--format", "json")[1])
    facts = found.pop("run")
    keys = {
        "model",
        "target",
        "in_size",
        "classes",
        "parameters",
        "multiply_adds",
        "depth",
        "receptive_field",
        "layers",
    }
    assert set(found) == keys
    assert set(json.loads(info("model=resnet8", "data=digits", "--format", "json")[1])) == keys
    assert facts["status"] == "finished"
    assert facts["data"]["images"] == {"train": 36, "val": 12, "test": 12}
    assert facts["epochs"] == {"planned": 2, "done": 2}
    assert [item["file"] for item in facts["checkpoints"]] == ["best.pt", "last.pt", "previous.pt"]
    assert [item["epoch"] for item in facts["checkpoints"]][1:] == [2, 1]
    for item in facts["checkpoints"]:
        stored = checkpoints.load(run / "checkpoints" / item["file"])
        assert (item["epoch"], item["step"]) == (stored["state"]["epoch"], stored["state"]["step"])
        assert item["problem"] is None


def test_evaluations_exports_and_resumes(info, run):
    record = json.loads((run / "run.json").read_text())
    evaluation = {"split": "test", "at": "2026-11-28", "data": {"root": "x"}, "accuracy": 51.5, "per_class": []}
    record["evaluations"] = [{"split": "test", "at": "2026-11-27"}, evaluation]  # the last one is of other images
    record["exports"] = [{"file": "model.onnx", "format": "onnx"}]
    record["resumed_from"] = [{"epoch": 1, "step": 3, "checkpoint": "last.pt", "at": "2026-11-27", "changes": []}]
    (run / "run.json").write_text(json.dumps(record))
    out = info("run")[1]
    facts = facts_of(out)
    assert facts["evaluations"] == "split=test  at=2026-11-27"
    assert "                 split=test  at=2026-11-28  data=root=x  accuracy=51.5\n" in out
    assert facts["exports"] == "file=model.onnx  format=onnx"
    assert facts["resumed"] == "epoch=1  step=3  checkpoint=last.pt  at=2026-11-27"
    assert facts["test set read"] == "once by training, once by evaluations"


def test_a_run_without_a_checkpoint_has_the_network_of_its_record(info, run):
    shutil.rmtree(run / "checkpoints")
    status, out, err = info("run")
    assert (status, err) == (0, "")
    assert facts_of(out)["checkpoints"] == "none: this run has saved nothing"
    assert "images           3x10x8, 3 classes" in out


@pytest.mark.parametrize("data", [
    None, {"in_size": [3, 10**5, 10**5], "classes": 3}, {"in_size": [3, 0, 8], "classes": 3},
    {"in_size": [3, 8, 8], "classes": 10**9}, {"in_size": "x", "classes": []},
])  # fmt: skip
def test_a_run_without_a_checkpoint_and_without_data(info, run, data):
    shutil.rmtree(run / "checkpoints")
    record = json.loads((run / "run.json").read_text())
    changed = {**record, "data": data, "paths": {}, "status": "failed", "reason": "none"}
    (run / "run.json").write_text(json.dumps(changed))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("root: photos", "root: nowhere"))
    status, out, err = info("run")
    assert (status, err) == (0, "")
    assert facts_of(out)["run"] == "run: failed (none), 2 of 2 epochs"
    last = out.splitlines()[-1]
    assert last.startswith("network not shown, and there is no usable checkpoint: data.root=nowhere does not exist")
    found = json.loads(info("run", "--format", "json")[1])
    assert set(found) == {"run", "problems"}


def test_a_run_that_failed_by_its_config_is_told_of_without_torch(tmp_path):
    folder = write_run(tmp_path / "run", "model.depht=9", status="failed", reason="InputError: no")
    code = (
        "import sys; from resnet_cli.commands.info import run\n"
        f"assert run([{str(folder)!r}]) == 0\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed (InputError: no)" in done.stdout
    assert "network not shown" in done.stdout.splitlines()[-1]


def test_damaged_checkpoints(info, run):
    (run / "checkpoints/best.pt").write_bytes(b"x")
    status, out, _ = info("run")
    assert status == 0
    assert facts_of(out)["checkpoints"].startswith("best.pt  1 bytes  not usable: damaged")
    assert "last.pt" in out
    assert "head.linear" in out
    status, out, err = info("run/checkpoints/best.pt")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": 5}'])
def test_a_damaged_record(info, run, content):
    (run / "run.json").write_text(content)
    status, out, err = info("run")
    assert (status, out) == (2, "")
    assert err.startswith("error: run/run.json: not a ")
    assert err.count("\n") == 1


def test_a_sweep(info, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    assert info("sweep") == (
        2, "", "error: sweep: a sweep; give one of its run folders, or compare them: resnet-report sweep\n"
    )  # fmt: skip


def test_a_config_without_a_record_still_shows_its_network(info, run):
    (run / "run.json").unlink()
    status, out, err = info("run")
    assert status == 0
    assert out.startswith("model            ")
    assert err == "note: run: run.json is missing, so only the network is described\n"
    (run / "run.json").write_text('{"reject": {}, "exports": []}')  # as commands of an earlier version added
    assert info("run") == (
        2, "", "error: run/run.json: the record of training is missing; the file has only reject, exports\n"
    )  # fmt: skip


def test_a_hostile_record_changes_no_line(info, run):
    record = json.loads((run / "run.json").read_text())
    text = "\x1b[2J\r\nPWN\u202e" + "x" * 3000
    record |= dict.fromkeys(("command", "device", "reason", "start", "git_commit"), text)
    record["evaluations"] = [{text: text, "split": text}] * 50
    record["data"] = {"images": {"train": -1, "val": "x"}, "in_size": [1, 2], "classes": 1e300, "class_names": 5}
    (run / "run.json").write_text(json.dumps(record))
    status, out, _ = info("run")
    assert status == 0
    assert not any(line.startswith("PWN") for line in out.splitlines())
    assert all(c.isprintable() or c == "\n" for c in out)
    assert max(map(len, out.splitlines())) < 2500
