"""The classic experiments of docs/experiments.md on the digits: what each is there to show holds, in a short form."""

import json
from statistics import mean

import pytest

from resnet_cli.commands import eval as evaluation

pytestmark = pytest.mark.slow
SMALL = ["data=digits8"]


@pytest.fixture
def rows_of(train, tmp_path):
    """Run an experiment and return the rows of its runs, by folder name in order."""

    def run(*arguments):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        is_sweep = "-m" in arguments
        folder = f"hydra.{'sweep' if is_sweep else 'run'}.dir='{place}'"
        status, _, err = train(*arguments, folder)
        assert status == 0, err
        folders = sorted(path.parent for path in place.glob("**/metrics.jsonl"))
        return {f.name: [json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders}

    return run


def accuracy(rows):
    return rows[-1]["train_accuracy"]


def test_full_batch_descent_settles_at_the_edge_of_stability(rows_of):
    [rows] = rows_of("experiment=edge_of_stability", "trainer.epochs=150").values()
    sharpness = [row["sharpness"] for row in rows if "sharpness" in row]
    assert len(sharpness) == 30
    assert sharpness[0] < 0.75 * 20, "it starts below"
    assert all(value == pytest.approx(2 / 0.1, rel=0.15) for value in sharpness[9:])
    assert rows[-1]["train_loss"] < rows[49]["train_loss"]


def test_depth_degrades_all_nets_but_those_whose_shortcut_is_the_identity(rows_of):
    def mean_of(*arguments):
        return mean(map(accuracy, rows_of("-m", *arguments, "trainer.epochs=8", "seed=0,1").values()))

    plain, residual = (
        mean_of("experiment=degradation", "model.depth=56", f"model.residual={kind}") for kind in ("false", "true")
    )
    assert residual > plain + 20
    assert residual > mean_of("experiment=shortcuts", "model.shortcut=scaled_shortcut") + 20


def test_branches_that_start_at_zero_do_without_normalisation(rows_of, train):
    assert accuracy(*rows_of("experiment=without_normalisation", "model=rezero110").values()) > 30
    status, _, err = train("experiment=without_normalisation", "model=resnet110", "model.norm=none")
    assert status != 0
    assert "the loss is " in err


def test_wrong_labels_are_fitted_as_right_ones_are_but_nothing_is_learnt(rows_of, tmp_path):
    runs = rows_of(
        "-m", "experiment=wrong_labels", "data.label_noise=0,0.9", "data.train_size=700", "trainer.epochs=30"
    )
    assert all(accuracy(rows) > 97 for rows in runs.values())
    right, wrong = (json.loads(path.read_text())["test"]["accuracy"] for path in sorted(tmp_path.glob("*/*/run.json")))
    assert right > 95
    assert wrong < 30


def test_a_residual_net_survives_the_loss_of_a_block_and_a_plain_one_does_not(train, monkeypatch, tmp_path, capsys):
    means = {}
    for residual in ("true", "false"):
        options = ["model=resnet20", f"model.residual={residual}", "trainer.epochs=4"]
        assert train(*SMALL, *options, f"hydra.run.dir=run-{residual}")[0] == 0
        monkeypatch.chdir(tmp_path)
        assert evaluation.run([f"run-{residual}", "--delete-blocks", "--resamples", "0", "--format", "json"]) == 0
        blocks = json.loads(capsys.readouterr().out)["blocks"]
        assert blocks["accuracy"] > 80
        means[residual] = mean(value for value in blocks["without"].values() if value is not None)
    assert means["true"] > means["false"] + 30
