"""What `run.json` keeps of the command line: the overrides that were typed, and those of a job of a sweep."""

import errno
import json
import shutil

import pytest

from resnet_cli.errors import MachineError
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.protocol import at_end, at_start
from tests.support import tiers
from tests.support.runs import record_of, tiny


def test_typed_overrides_are_recorded_and_a_resume_keeps_them(train, tmp_path):
    typed = tiny("trainer.epochs=1", "seed=3", "+optimizer.groups.bias={lr_scale: 2}")
    assert train(*typed, "hydra.run.dir=d")[0] == 0
    assert record_of(tmp_path / "d")["overrides"] == typed
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    record = record_of(tmp_path / "d")
    assert record["command"] == "resnet-train resume=d trainer.epochs=2"
    assert record["overrides"] == typed


def test_a_record_of_an_earlier_version_gets_no_overrides_of_its_resume(train, tmp_path):
    assert train(*tiny("trainer.epochs=1"), "hydra.run.dir=d")[0] == 0
    record = record_of(tmp_path / "d")
    del record["overrides"]
    (tmp_path / "d" / "run.json").write_text(json.dumps(record))
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    assert record_of(tmp_path / "d")["overrides"] is None


@pytest.mark.parametrize(
    "typed", tiers.mostly_slow([tiny("trainer.epochs=1"), ["data=image_folder", "data.root=no-classes"]], every=2)
)
def test_a_job_of_a_sweep_records_its_own_overrides_even_if_it_fails(train, tmp_path, typed):
    (tmp_path / "no-classes").mkdir()  # it has no classes
    train("-m", *typed, "seed=0,1", "hydra.sweep.dir=s")
    found = [json.loads(path.read_text())["overrides"] for path in (tmp_path / "s").glob("*/run.json")]
    assert sorted(found) == [[*typed, "seed=0"], [*typed, "seed=1"]]


@pytest.mark.parametrize("fraction", [0.1, 0])
def test_a_run_on_the_same_batches_records_that_its_best_epoch_is_of_these(train, tmp_path, fraction):
    options = ["trainer.overfit_batches=1", f"data.val_fraction={fraction}", "trainer.epochs=1"]
    assert train(*tiny(*options), "hydra.run.dir=d")[0] == 0
    assert record_of(tmp_path / "d")["selection"] == {
        "weights": "best epoch", "by": "val_accuracy", "val_samples": 0, "on": "training batches"
    }  # fmt: skip
    assert "(epoch 1, the best on training batches)" in (tmp_path / "d/train.log").read_text()


def test_the_protocol_says_what_the_seconds_are_of_also_after_a_resume(train, tmp_path):
    typed = [*tiny("trainer.epochs=1", "optimizer=muon"), "model.init=whitening", "hydra.run.dir=d"]
    assert train(*typed)[0] == 0
    first = record_of(tmp_path / "d")["protocol"]
    assert first["initialisation_seconds"] > 0
    assert first["test_seconds"] > 0
    assert (first["epochs"], first["steps"]) == (1, 3)
    assert train("resume=d", "trainer.epochs=3")[0] == 0
    record = record_of(tmp_path / "d")
    rows = [json.loads(line) for line in (tmp_path / "d/metrics.jsonl").read_text().splitlines()]
    assert record["protocol"]["training_seconds"] == pytest.approx(sum(row["seconds"] for row in rows), abs=1e-3)
    assert record["protocol"]["initialisation_seconds"] == first["initialisation_seconds"], "of the process that began"
    assert (record["protocol"]["epochs"], record["protocol"]["steps"]) == (3, 9)
    assert "not initialisation" in record["protocol"]["on_the_clock"]


def test_code_of_a_run_that_was_killed_before_it_wrote_any_is_that_of_its_start(train, tmp_path):
    typed = [*tiny("trainer.epochs=1"), "hydra.run.dir=d"]
    assert train(*typed)[0] == 0
    for name in ("code", "checkpoints"):
        shutil.rmtree(tmp_path / "d" / name)
    (tmp_path / "d/metrics.jsonl").write_text("")
    assert train(*typed, "resume=auto")[0] == 0
    assert (tmp_path / "d/code/code.json").exists()
    (tmp_path / "d/run.json").unlink()
    (tmp_path / "d/code/requirements.txt").write_text("torch==0\n")
    code = tmp_path / "d/code/code.json"
    code.write_text(code.read_text().replace('"requirements.txt": "', '"requirements.txt": "0'))
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    assert (tmp_path / "d/code/requirements.txt").read_text() == "torch==0\n", "of the start, though run.json is lost"
    assert (tmp_path / "d/code/resume-1/code.json").exists()


def test_the_test_result_is_in_the_log_before_it_is_recorded(train, tmp_path, monkeypatch):
    update = RunDir.update_record

    def fail_at_the_end(run, **fields):
        if "test_reads" in fields and fields["status"] == "finished":
            raise MachineError(errno.ENOSPC, "No space left on device")
        update(run, **fields)

    monkeypatch.setattr(RunDir, "update_record", fail_at_the_end)
    status, out, _ = train(*tiny("trainer.epochs=1"), "hydra.run.dir=d")
    assert status == 4
    assert "test accuracy " in out
    assert "test accuracy " in (tmp_path / "d/train.log").read_text()


def test_a_record_of_an_earlier_version_has_no_seconds_of_its_start():
    assert at_start(0.5, {"status": "finished"})["initialisation_seconds"] is None
    assert at_start(0.5, {})["initialisation_seconds"] == 0.5
    assert at_end({}, [{"seconds": 1.25}, {}], steps=4, test_seconds=0.5) == {
        "epochs": 2, "steps": 4, "training_seconds": 1.25, "test_seconds": 0.5
    }  # fmt: skip
