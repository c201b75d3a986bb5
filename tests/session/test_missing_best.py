"""A missing `best.pt` is replaced by `last.pt` with a warning, and only where the run had selected a best epoch."""

import json

import pytest

from resnet_cli import load_run
from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import export, predict
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.load import best_or_last
from tests.support.runs import record_of, tiny


@pytest.fixture
def without_best(place):
    (place / "run/checkpoints/best.pt").unlink()
    epoch = record_of(place / "run")["best"]["epoch"]
    return f"run/checkpoints/best.pt is missing: last.pt is used instead; the best epoch was {epoch}"


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "best.pt" in record.getMessage()]


@pytest.mark.parametrize(
    "use",
    [
        lambda: predict.run(["run", "photos/circle"]),
        lambda: evaluation.run(["run", "--resamples", "0"]),
        lambda: export.run(["run", "--out", "a.pt2"]),
        lambda: load_run("run") is None,
    ],
    ids=["predict", "eval", "export", "load_run"],
)
def test_the_checkpoint_that_is_used_is_named(without_best, caplog, monkeypatch, use):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    assert not use()
    assert warnings(caplog) == [without_best]


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_a_run_that_starts_from_it_says_so_once(train, tmp_path, key):
    assert train(*tiny("hydra.run.dir=run"))[0] == 0
    (tmp_path / "run/checkpoints/best.pt").unlink()
    status, out, err = train(*tiny(f"{key}=run", "trainer.epochs=1", "hydra.run.dir=other"))
    assert status == 0
    assert (out + err).count("best.pt is missing: last.pt is used instead") == 1


def test_a_named_checkpoint_and_a_run_without_a_best_epoch_give_no_warning(without_best, place, caplog):
    assert predict.run(["run", "photos/circle", "--checkpoint", "last"]) == 0
    record = place / "run/run.json"
    record.write_text(json.dumps({**record_of(place / "run"), "best": None}))
    run = RunDir(place / "run")
    assert best_or_last(run) == run.last
    assert warnings(caplog) == []
