"""`trainer.test_tta`: the figure with test-time augmentation beside the plain one, wherever test figures are shown."""

import csv
import io
import re

import pytest

from resnet_cli.commands.report import run as report
from resnet_cli.commands.train.main import run as train
from tests.support.runs import record_of, tiny


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def trained(folder, *arguments):
        status = train([*tiny("trainer.epochs=1", *arguments), f"hydra.run.dir={folder}"])
        return status, tmp_path / folder

    return trained


def test_it_stands_beside_the_plain_figure_everywhere(trained, capsys):
    _, plain = trained("plain")
    _, views = trained("views", "trainer.test_tta=flip_translate")
    before, after = record_of(plain)["test"], record_of(views)["test"]
    assert set(after) - set(before) == {"tta", "tta_accuracy", "tta_loss", "tta_balanced_accuracy"}
    assert {name: after[name] for name in before} == before, "the plain figure is the same number"
    assert after["tta"] == "flip_translate"
    assert after["tta_loss"] != before["loss"]
    assert len(record_of(views)["test_reads"]) == 1
    row = rf"^\| test with tta=flip_translate \| {after['tta_accuracy']:.2f} "
    assert re.search(row, (views / "card.md").read_text(), re.MULTILINE)
    assert "tta" not in (plain / "card.md").read_text().partition("## Results")[2].partition("## Training")[0]
    assert "with test_tta=flip_translate" in (views / "train.log").read_text()
    capsys.readouterr()
    assert report(["views", "--format", "csv"]) == 0
    (found,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(found["test_tta_accuracy_mean"]) == pytest.approx(after["tta_accuracy"])
    assert float(found["test_accuracy_mean"]) == pytest.approx(after["accuracy"])
    report(["plain"])
    assert "tta" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainer.test_tta=twice"], r"error: trainer.test_tta: twice is not allowed; it takes .*flip_translate"),
        (
            ["trainer.test_tta=flip_translate", "data.image_size=1", "model=residual_mlp"],
            r"error: trainer.test_tta=flip_translate: images of 1x1 cannot be shifted",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_training(trained, capsys, arguments, words):
    status, folder = trained("run", *arguments)
    assert status == 2
    assert re.fullmatch(words, capsys.readouterr().err.strip())
    assert not folder.exists()
