"""The commands where functions that only POSIX systems have are taken away; see `tests.support.windows`."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.support.runs import tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="takes away what is missing there")]


@pytest.fixture
def on_windows(tmp_path, repository):
    """Runs modules of the package as on Windows, `--then` between them, expects status 0 and no warnings."""

    def run(module, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.windows", module, *arguments], cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def status_of(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]


def test_a_run_is_trained_resumed_and_reported(on_windows, tmp_path):
    train = "resnet_cli.commands.train"
    resume = ["--then", train, "resume=d", "trainer.epochs=2"]
    shown = ["--then", "resnet_cli.commands.report", "d", "--then", "resnet_cli.commands.info", "d"]
    out = on_windows(train, *tiny("trainer.epochs=1", "hydra.run.dir=d"), *resume, *shown)
    _, resumed, report, info = out.split("\n--then\n")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "card.md", "checkpoints", "code", "config.yaml", "curves.png", "metrics.jsonl", "run.json", "samples.png",
        "splits.json", "train.log",
    ]  # fmt: skip
    assert "from    epoch 1" in resumed
    assert status_of(tmp_path / "d") == "finished"
    assert len((tmp_path / "d/metrics.jsonl").read_text().splitlines()) == 2
    assert "resnet8" in report
    assert "head.linear" in info


def test_an_interrupt_saves_and_ends_a_run(tmp_path, repository):
    long = ["data.count=4000", "data.batch_size=8", "trainer.epochs=50", "name=x", "hydra.run.dir=d"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.windows", "resnet_cli", *tiny(*long)], cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            while not list(tmp_path.glob("d/train.log")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "saving and stopping (press Ctrl-C again to quit now)\n")
    assert "resume with: resnet-train resume=d\n" in out
    assert status_of(tmp_path / "d") == "interrupted"


def test_workers_are_spawned_for_streamed_image_files(on_windows, train, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (10 * i, 100, 0)).save(tmp_path / f"images/{label}/{i}.png")
    options = ["data=image_folder", "data.root=images", "data.cache=null", "model=resnet8", "trainer.epochs=1"]
    on_windows("resnet_cli", *options, "data.backend=stream", "data.workers=1", "hydra.run.dir=d")
    assert train(*options, "hydra.run.dir=resident")[0] == 0
    scores = [json.loads((tmp_path / run / "run.json").read_text())["test"] for run in ("d", "resident")]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize(
    "options", [["seed=0,1"], ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "seed=range(9)"]]
)
def test_a_sweep_has_all_its_jobs(on_windows, tmp_path, options):
    if "hydra/sweeper=optuna" in options:
        pytest.importorskip("optuna")
    out = on_windows("resnet_cli", "-m", *tiny("trainer.epochs=1", "hydra.sweep.dir=s"), *options)
    assert "2 runs: 2 finished" in out
    assert [status_of(record.parent) for record in tmp_path.glob("s/*/run.json")] == ["finished"] * 2
