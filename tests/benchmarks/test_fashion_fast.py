"""The program of the Fashion-MNIST table: its turns, that it keeps what it has, and the table."""

import json

import pytest


@pytest.fixture
def program(load_program):
    return load_program("fashion_fast")


def finish(place, accuracy):
    place.mkdir(parents=True)
    record = {
        "status": "finished",
        "seed": int(place.name[5:]),
        "test": {"accuracy": accuracy},
        "test_reads": [{"why": "end"}],
    }
    (place / "run.json").write_text(json.dumps(record))
    (place / "metrics.jsonl").write_text(json.dumps({"seconds": 90.0}) + "\n" + json.dumps({"seconds": 30.0}) + "\n")
    (place / "card.md").write_text(
        "# net\n\n![images](samples.png)\n\n- [code/](code): the code\n- all are in [config.yaml](config.yaml)\n"
    )


@pytest.mark.parametrize(
    ("order", "turns"),
    [
        ("seeds", [("resnet20", 0), ("resnet32", 0), ("resnet20", 1), ("resnet32", 1)]),
        ("nets", [("resnet20", 0), ("resnet20", 1), ("resnet32", 0), ("resnet32", 1)]),
    ],
)
def test_nets_take_turns_and_what_the_file_has_is_kept_without_the_folders(
    program, tmp_path, monkeypatch, capsys, order, turns
):
    trained = []

    def train(arguments, place, seconds):
        trained.append((place.parent.name, int(arguments[-1].partition("=")[2])))
        assert f"model={place.parent.name}" in arguments
        assert "trainer.epochs=2" in arguments
        if len(trained) == 3:
            return False
        finish(place, 95.0 + len(trained) / 10)
        return True

    monkeypatch.setattr(program, "train", train)
    out = tmp_path / "out.json"

    def call(runs):
        arguments = ["--root", str(tmp_path), "--runs", str(tmp_path / runs), "--seeds", "2", "--out", str(out)]
        assert program.main([*arguments, "--nets", "resnet20", "resnet32", "--order", order, "trainer.epochs=2"]) == 0
        return capsys.readouterr().out

    assert f"stopped in {turns[2][0]}, seed {turns[2][1]}" in call("r")
    assert "all runs are finished" in call("elsewhere")
    assert trained == [*turns[:3], *turns[2:]]
    record = json.loads(out.read_text())
    accuracies = [run["accuracy"] for runs in record["nets"].values() for run in runs.values()]
    assert sorted(accuracies) == [95.1, 95.2, 95.4, 95.5]
    assert record["nets"]["resnet20"]["seed 0"]["test_reads"] == 1
    cards = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert cards == [f"{net}-seed-{seed}.md" for net, seed in sorted(turns)]
    with pytest.raises(SystemExit, match=r"trainer\.epochs=2: choose another file with --out"):
        program.main(["--root", "r", "--runs", str(tmp_path), "--out", str(out), "trainer.epochs=3"])
    assert (tmp_path / "out" / cards[0]).read_text() == "# net\n\n- all are in `config.yaml` of the run\n"


def test_the_table_has_the_published_errors_the_interval_and_the_chance(program):
    runs = {
        f"seed {seed}": {"accuracy": value, "epochs": 30, "seconds": 120.0} for seed, value in enumerate((95.5, 95.7))
    }
    lines = program.report(
        {"nets": {"resnet20": runs, "resnet32": {"seed 0": runs["seed 0"]}, "resnet44": {}}}
    ).splitlines()
    assert lines[2] == "| resnet20 | 4.39, 4.02 | 4.40 ± 0.14 | 3.13 to 5.67 | 2 | 4.50, 4.30 | 0.53 | 30 | 2 |"
    assert lines[3] == "| resnet32 | 4.16, 3.80 | 4.50 |  | 1 | 4.50 |  | 30 | 2 |"
    assert len(lines) == 4
