"""card.md of runs: drawn at their start and at their end, however they end, and when they are continued."""

import pytest

from resnet_cli.runs import card
from resnet_cli.runs.card import update_card
from resnet_cli.runs.folder import RunDir
from tests.support.runs import record_of, tiny


def text_of(folder):
    return (folder / "card.md").read_text()


@pytest.fixture
def drawn(monkeypatch):
    """The statuses of all cards that are drawn."""
    statuses, draw = [], card.format_card

    def format_card(summary, run):
        statuses.append(summary["status"])
        return draw(summary, run)

    monkeypatch.setattr(card, "format_card", format_card)
    return statuses


def test_card_of_a_run_and_of_its_continuation(train, drawn, tmp_path):
    folder = tmp_path / "run"
    assert train(*tiny("hydra.run.dir=run"))[0] == 0
    assert drawn == ["running", "finished"]
    record, text = record_of(folder), text_of(folder)
    assert record["data"] == {
        "images": {"train": 86, "val": 10, "test": 32}, "in_size": [3, 8, 8], "classes": 3,
        "class_names": ["class 0", "class 1", "class 2"],
    }  # fmt: skip
    for words in (
        "**finished**: 2 of 2 epochs", "- images: 86 training, 10 validation, 32 test", f"`{record['git_commit']}`",
        f"| test | {record['test']['accuracy']:.2f} |", "The test set was read once by training.",
        "    resnet-train resume=run trainer.epochs=4", "    resnet-train reproduce=run",
        "![Loss and accuracy by epoch](curves.png)",
    ):  # fmt: skip
        assert words in text
    assert train("resume=run")[0] == 0  # nothing to do: the test set is not read
    assert len(record_of(folder)["test_reads"]) == 1
    assert train("resume=run", "trainer.epochs=3")[0] == 0
    text = text_of(folder)
    assert "The test set was read twice by training." in text
    assert "**finished**: 3 of 3 epochs" in text
    assert text.count("- resumed at epoch 2, step 6, `") == 2


def test_a_run_of_a_version_without_cards_gets_one(train, tmp_path):
    assert train(*tiny("hydra.run.dir=run", "trainer.epochs=1"))[0] == 0
    run = card.RunDir(tmp_path / "run")
    run.card.unlink()
    record = record_of(run.path)
    run.record.unlink()
    run.update_record(**{key: value for key, value in record.items() if key not in ("data", "test_reads")})
    assert train("resume=run", "trainer.epochs=2")[0] == 0
    assert record_of(run.path)["test_reads"][0] == record["ended"]
    assert "The test set was read twice by training." in text_of(run.path)


def test_card_of_a_run_that_fails(train, drawn, tmp_path):
    assert train(*tiny("hydra.run.dir=run", "optimizer.lr=1e30"))[0] == 3
    assert drawn == ["running", "failed"]
    assert "**failed** `DivergedError: " in text_of(tmp_path / "run")


def test_a_card_that_cannot_be_written_stops_no_run(train, tmp_path, monkeypatch):
    (tmp_path / "run" / "card.md").mkdir(parents=True)
    status, out, _ = train(*tiny("hydra.run.dir=run", "trainer.epochs=1"))
    assert status == 0
    assert out.count("card.md could not be written: run/card.md: ") == 2
    assert record_of(tmp_path / "run")["status"] == "finished"


def test_a_card_of_a_folder_that_is_gone_names_the_file(tmp_path, caplog):
    with caplog.at_level("INFO", "resnet_cli"):
        update_card(RunDir(tmp_path))
    assert caplog.messages == [f"card.md could not be written: {tmp_path / 'run.json'}: No such file or directory"]
