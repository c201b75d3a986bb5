"""The program of the CPU record: its turns, that it stops and goes on, and what it reads off runs."""

import json
import stat
import sys

import pytest

from tests.support.images import write_class_folders

SMALL = [
    "model=cnn", "model.channels=[4]", "model.pool_every=1", "model.hidden_dims=[8]", "trainer.test_tta=flip_translate",
    "data.val_fraction=0", "data.batch_size=8",
]  # fmt: skip


@pytest.fixture
def program(load_program):
    return load_program("cpu_record")


@pytest.fixture
def images(tmp_path):
    for part in ("train", "test"):
        write_class_folders(tmp_path / "images" / part, classes=("a", "b"), count=8, size=(32, 32))
    return tmp_path / "images"


def finish(place, accuracy, seconds=2.0):
    place.mkdir(parents=True)
    test = {"accuracy": accuracy, "tta_accuracy": accuracy + 1}
    record = {"status": "finished", "seed": int(place.name[5:]), "test": test, "precision": "bf16"}
    (place / "run.json").write_text(json.dumps(record))
    (place / "metrics.jsonl").write_text(json.dumps({"seconds": seconds}) + "\n" + json.dumps({"seconds": 1.5}) + "\n")


@pytest.mark.slow
def test_runs_are_trained_tested_with_and_without_views_and_listed(program, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "EXPERIMENT", SMALL)
    arguments = ["--images", str(images), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out.json")]
    assert program.main([*arguments, "--seeds", "1", "--threads", "1", "trainer.epochs=2"]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    [run] = record["sets"]["images"]["runs"]
    assert (run["seed"], run["epochs"]) == (0, 2)
    assert run["seconds"] > 0
    assert 0 <= run["tta_accuracy"] <= 100
    assert run["protocol"]["training_seconds"] == pytest.approx(run["seconds"], abs=0.01)
    assert record["command"][-1] == "trainer.epochs=2"
    assert "resnet-report" in capsys.readouterr().out


def test_sets_take_turns_and_what_is_finished_stays(program, images, tmp_path, monkeypatch, capsys):
    trained = []

    def train(arguments, place, seconds):
        trained.append((place.parent.name, arguments[-1], next(a for a in arguments if a.startswith("data.root="))))
        if len(trained) == 3:
            return False
        finish(place, 90.0 + len(trained))
        return True

    monkeypatch.setattr(program, "train", train)
    arguments = [
        "--images",
        str(images),
        "--fashion_mnist",
        str(tmp_path),
        "--seeds",
        "2",
        "--runs",
        str(tmp_path / "r"),
    ]
    arguments += ["--out", str(tmp_path / "out.json")]
    assert program.main(arguments) == 0
    assert "stopped in fashion_mnist, seed 1" in capsys.readouterr().out
    assert program.main(arguments) == 0
    turns = [
        ("fashion_mnist", "seed=0"),
        ("images", "seed=0"),
        *[("fashion_mnist", "seed=1")] * 2,
        ("images", "seed=1"),
    ]
    assert [turn[:2] for turn in trained] == turns
    assert trained[1][2] == f"data.root={images}"
    out = capsys.readouterr().out
    assert "| fashion_mnist | 2 | 2 | 4 | 92.50 ± 2.12 | 93.50 ± 2.12 |" in out
    summary = json.loads((tmp_path / "out.json").read_text())["sets"]["images"]["summary"]
    assert (summary["n"], summary["accuracy"], summary["seconds"]) == (2, 93.5, 3.5)
    assert program.main(arguments) == 0
    assert len(trained) == 5, "nothing is left"


@pytest.mark.skipif(sys.platform == "win32", reason="signals and a shell script")
@pytest.mark.parametrize(("script", "ended"), [("exit 0", True), ("trap 'exit 143' TERM; sleep 60 & wait", False)])
def test_a_run_is_stopped_by_a_signal_when_its_time_is_up(program, tmp_path, monkeypatch, script, ended):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/command\n{script}\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    assert program.train(["seed=1"], tmp_path / "run", seconds=20.0 if ended else 1.0) is ended
    command = f"-m resnet_cli seed=1 hydra.run.dir={tmp_path / 'run'} resume=auto"
    assert (tmp_path / "command").read_text().strip() == command
    python.write_text("#!/bin/bash\nexit 2\n")
    with pytest.raises(SystemExit) as refused:
        program.train(["seed=1"], tmp_path / "run", seconds=20.0)
    assert refused.value.code == 2


def test_a_call_without_images_is_refused(program, tmp_path, capsys):
    with pytest.raises(SystemExit):
        program.main(["--runs", str(tmp_path)])
    assert "give --fashion_mnist or --images" in capsys.readouterr().err
