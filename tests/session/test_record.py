"""What `run.json` keeps of the command line: the overrides that were typed, and those of a job of a sweep."""

import json

import pytest

from tests.support.runs import record_of, tiny


@pytest.mark.slow
def test_typed_overrides_are_recorded_and_a_resume_keeps_them(train, tmp_path):
    typed = tiny("trainer.epochs=1", "seed=3", "+optimizer.groups.bias={lr_scale: 2}")
    assert train(*typed, "hydra.run.dir=d")[0] == 0
    assert record_of(tmp_path / "d")["overrides"] == typed
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    record = record_of(tmp_path / "d")
    assert record["command"] == "resnet-train resume=d trainer.epochs=2"
    assert record["overrides"] == typed


@pytest.mark.slow
def test_a_record_of_an_earlier_version_gets_no_overrides_of_its_resume(train, tmp_path):
    assert train(*tiny("trainer.epochs=1"), "hydra.run.dir=d")[0] == 0
    record = record_of(tmp_path / "d")
    del record["overrides"]
    (tmp_path / "d" / "run.json").write_text(json.dumps(record))
    assert train("resume=d", "trainer.epochs=2")[0] == 0
    assert record_of(tmp_path / "d")["overrides"] is None


@pytest.mark.slow
@pytest.mark.parametrize("typed", [tiny("trainer.epochs=1"), ["data=image_folder", "data.root=nowhere"]])
def test_a_job_of_a_sweep_records_its_own_overrides_even_if_it_fails(train, tmp_path, typed):
    (tmp_path / "nowhere").mkdir()  # it has no classes
    train("-m", *typed, "seed=0,1", "hydra.sweep.dir=s")
    found = [json.loads(path.read_text())["overrides"] for path in (tmp_path / "s").glob("*/run.json")]
    assert sorted(found) == [[*typed, "seed=0"], [*typed, "seed=1"]]
