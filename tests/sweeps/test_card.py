"""card.md of the jobs of a sweep, also of one that failed before it had a folder."""

from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir
from resnet_cli.sweeps.failures import record_failure
from tests.support.reports import CONFIG
from tests.support.runs import job, tiny


def test_cards_of_a_sweep(train, tmp_path):
    status, *_ = train(*tiny("-m", "hydra.sweep.dir=sweep", "trainer.epochs=1", "optimizer.lr=0.1,1e30"))
    assert status == 1
    finished, failed = ((job(tmp_path / "sweep", name) / "card.md").read_text() for name in ("lr=0.1", "lr=1e+30"))
    assert "**finished**: 1 of 1 epoch" in finished
    assert "**failed** `DivergedError: " in failed


def test_card_of_a_job_that_failed_before_it_had_a_folder(tmp_path):
    run = RunDir(tmp_path / "job")
    command = "resnet-train -m model.depth=8,9"
    record_failure(run, CONFIG, InputError("model.depth=9: no"), command=command, overrides=[])
    text = run.card.read_text()
    assert "**failed** `InputError: model.depth=9: no`: 0 epochs." in text
    assert f"    {command}\n" in text
    assert "No results." in text
