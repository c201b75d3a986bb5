"""The experiments as a student types them: each composes, sweeps are sweeps, and the small ones show their point."""

import itertools
import json
import re

import pytest
import torch
import yaml

from resnet_cli.config.paths import CONFIG_FOLDER

FILES = sorted((CONFIG_FOLDER / "experiment").glob("*.yaml"))
TINY = [
    "data=synthetic", "data.count=60", "data.test_count=20", "data.image_size=8", "data.val_fraction=0",
    "data.train_size=40", "trainer.epochs=1",
]  # fmt: skip


def sweep_of(path):
    """Keys and values that an experiment sweeps over."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    params = node.get("hydra", {}).get("sweeper", {}).get("params", {})
    return {key: str(value).split(",") for key, value in params.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_names_the_command_and_what_it_showed(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    header = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert re.search(rf"resnet-train {'-m ' if sweep_of(path) else ''}experiment={path.stem}\b", header)
    assert re.search(r"[Mm]easured", header)


@pytest.mark.parametrize("path", [p for p in FILES if sweep_of(p)], ids=lambda path: path.stem)
def test_sweeps_need_m_or_one_value_for_each_key(path, train):
    status, _, err = train(f"experiment={path.stem}", *TINY)
    assert status == 2
    assert (
        err
        == f"error: this experiment sweeps over {', '.join(sweep_of(path))}: add -m, or set each of them to one value\n"
    )


@pytest.mark.slow
def test_values_typed_take_the_place_of_an_experiments(train, tmp_path):
    status, out, _ = train("-m", "experiment=degradation", *TINY, "model.depth=8")
    assert status == 0
    assert [line.split(", experiment")[0] for line in out.splitlines() if line.startswith("job ")] == [
        "job 0 (model.residual=False, model.depth=8",
        "job 1 (model.residual=True, model.depth=8",
    ]
    [sweep] = tmp_path.glob("multirun/*/*-degradation")
    assert len(list(sweep.glob("*/run.json"))) == 2
    status, out, _ = train("experiment=degradation", *TINY, "model.depth=8", "model.residual=true")
    assert status == 0


def test_wrong_values_of_an_experiments_sweep_are_found_before_the_first_job(train, tmp_path):
    status, _, err = train("-m", "experiment=degradation", *TINY, "model.depth=eight")
    assert status == 2
    assert err.startswith("error: job 0 (model.residual=False) and 1 more: model.depth: eight is not allowed")
    assert not (tmp_path / "multirun").exists()


@pytest.mark.slow
def test_noise_is_memorised_but_not_learnt(train, tmp_path):
    status, _, _ = train("experiment=memorize_noise")
    assert status == 0
    [folder] = tmp_path.glob("outputs/*/*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 100
    assert 2.2 < rows[0]["train_loss"] < 2.6
    assert rows[-1]["train_loss"] < 0.01
    assert rows[-1]["train_accuracy"] == 100
    assert json.loads((folder / "run.json").read_text())["test"]["accuracy"] < 25


def test_fine_tuning_starts_from_a_run_with_a_new_head_of_a_higher_rate(train, tmp_path):
    assert train(*TINY, "model=resnet8", "hydra.run.dir=first", "data.classes=3")[0] == 0
    status, _, _ = train(
        "experiment=finetune", *TINY, "model=resnet8", "hydra.run.dir=second", "data.classes=4", "init_from=first",
    )  # fmt: skip
    assert status == 0
    record = json.loads((tmp_path / "second/run.json").read_text())
    assert record["start"] == "first"
    config = yaml.safe_load((tmp_path / "second/config.yaml").read_text())
    assert config["optimizer"]["head_lr"] > config["optimizer"]["lr"]
    groups = torch.load(tmp_path / "second/checkpoints/last.pt", weights_only=True)["state"]["optimizer"][
        "param_groups"
    ]
    assert [(group["name"], group["initial_lr"]) for group in groups] == [
        ("all", config["optimizer"]["lr"]), ("all, head", config["optimizer"]["head_lr"]),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_tiny_part_is_overfitted(train, tmp_path):
    data = ["data=synthetic", "data.count=100", "data.test_count=20", "data.noise=0.3", "data.batch_size=2"]
    status, _, _ = train("experiment=overfit_tiny", *data, "data.image_size=16", "trainer.epochs=15")
    assert status == 0
    [folder] = tmp_path.glob("outputs/*/*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_accuracy"] >= 90
    assert json.loads((folder / "run.json").read_text())["best"]["val_accuracy"] >= 90
