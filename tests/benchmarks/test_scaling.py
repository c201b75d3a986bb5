"""The program that measures ranks: its model against a computation by hand, and what it counts and times."""

import argparse
import importlib
import json
import sys

import pytest

BLANK = 3  # numbers behind gradients, statistics and marks of a step: loss, correct predictions, stop


@pytest.fixture(scope="module")
def scaling(repository):
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))
        yield importlib.import_module("scaling")
    for name in set(sys.modules) - before:
        if name in ("scaling", "scaling_model", "measuring", "loops"):
            del sys.modules[name]


@pytest.fixture
def model(scaling):
    return sys.modules["scaling_model"]


def test_rings_by_hand(model):
    assert model.ring_seconds(4, 8e6, 1e9, 1e-6) == pytest.approx(2 * 3 / 4 * 0.008 + 6e-6)
    assert model.ring_seconds(1, 8e6, 1e9, 1e-6) == 0, "one GPU sums with nobody"


def test_a_sum_over_nodes_by_hand(model):
    fabric = model.Fabric(model.Link("inside", 2e9, 1e-6, ""), model.Link("between", 1e9, 2e-6, ""), 4)
    inside = 2 * 7 / 8 * 8e6 / 2e9 + 14e-6
    assert model.sum_seconds(8, 8e6, fabric) == pytest.approx(inside)
    assert model.sum_seconds(32, 8e6, fabric) == pytest.approx(inside + 2 * 3 / 4 * 8e6 / 4e9 + 12e-6)
    whole = model.step_sums_seconds(32, [8_000_000, 4_000], fabric)
    assert whole == pytest.approx(model.sum_seconds(32, 8e6, fabric) + model.sum_seconds(32, 4e3, fabric))
    assert model.efficiency(0.03, 0.01) == pytest.approx(0.75)


def test_the_time_of_a_step_is_measured_or_given(model, tmp_path):
    nets = {"ResNet-18": {"batch_size": 512, "variants": {model.VARIANT: {"samples_per_second": 5120.0}}}}
    (tmp_path / "gpu.json").write_text(json.dumps({"card": "a card", "nets": nets}))
    found = model.step_times(["wrn=20"], tmp_path / "gpu.json")
    assert {net: one.seconds for net, one in found.items()} == {"resnet18": 0.1, "wrn": 0.02}
    assert "measured on one a card" in found["resnet18"].source
    with pytest.raises(SystemExit, match="NET=MILLISECONDS"):
        model.step_times(["wrn=fast"])


def test_the_tables_have_every_fabric_and_number_of_gpus(model):
    counted = {"net": {"plain": [1_000_000], "sync_batch_norm": [1_000_000, 64, 64], "parameters": 250_000}}
    texts, record = model.tables({"net": model.StepTime(0.01, "assumed")}, counted)
    title, *rows = texts[1].splitlines()
    assert "1.00 MB in 1 sum a step, 1.00 MB in 3 sums" in title
    assert len(rows) == 3 + len(model.FABRICS) + 1
    first = record["net"]["sum_seconds"][model.FABRICS[0].name]
    assert first["8"] == pytest.approx(2 * 7 / 8 * 1e6 / 450e9 + 14 * 3.4e-6)
    assert f"{0.01 / (0.01 + first['1024']):.2f} ({1e3 * first['1024']:.2f})" in rows[3]
    assert all(link.name in texts[-1] for link in model.LINKS)


@pytest.mark.slow
def test_ranks_are_timed_and_their_bytes_counted(scaling, monkeypatch):
    monkeypatch.setattr(scaling, "BATCH", 16)
    counted = scaling.exchanged("resnet8")
    settings = sys.modules["loops"].compose_settings(["model=resnet8"]).settings
    net = sys.modules["loops"].build.model(settings["model"], in_size=(3, 32, 32), num_classes=10, seed=0)
    tensors = [parameter.numel() for parameter in net.parameters()]
    statistics = sum(b.numel() for name, b in net.named_buffers() if not name.endswith("num_batches_tracked"))
    assert counted["plain"] == [4 * (sum(tensors) + statistics + len(tensors) + BLANK)]
    assert counted["sync_batch_norm"][-1:] == counted["plain"]
    layers = sum(name.endswith("num_batches_tracked") for name, _ in net.named_buffers())
    assert len(counted["sync_batch_norm"]) == 1 + 4 * layers

    store, _ = scaling.open_store()
    group = scaling.timed_group(0, 1, store)
    try:
        rate, note = scaling.rounds_of("resnet8", group, quick=True, follower=None)()
    finally:
        group.close()
    assert (note["sums"], note["bytes"]) == (1, counted["plain"][0])
    assert 0 < note["sum_seconds"] < note["seconds"]
    assert rate == pytest.approx(16 / note["seconds"])


def test_the_measured_table_compares_with_one_thread(scaling):
    samples = {scaling.ONE: [100.0, 200.0], scaling.TWO: [150.0, 300.0], scaling.RANKS: [180.0, 360.0]}
    note = {"seconds": 2.0, "sum_seconds": 0.5, "sums": 4, "bytes": 8_000_000, "alone_ms": 3.0}
    notes = {scaling.ONE: [None] * 2, scaling.TWO: [None] * 2, scaling.RANKS: [note] * 2}
    rows = scaling.measured_table({"net": {"samples": samples, "notes": notes}}).splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == ["1.00 (1.00 - 1.00)", "0.75 (0.75 - 0.75)", "0.90 (0.90 - 0.90)"]
    assert "25.0 (25.0 - 25.0) % | 3.00 (3.00 - 3.00) | 2.00" in rows[2]


def test_the_model_is_written_into_its_page_without_measuring(scaling, monkeypatch, tmp_path):
    seen, page = {}, tmp_path / "scaling.md"
    counted = {"plain": [4], "sync_batch_norm": [4], "parameters": 1}
    before = scaling.DOCS.read_text()
    page.write_text(before)
    monkeypatch.setattr(scaling, "DOCS", page)
    monkeypatch.setattr(scaling, "measured", lambda net, options: pytest.fail("measures"))
    monkeypatch.setattr(scaling, "exchanged", lambda net: seen.setdefault(net, counted))
    monkeypatch.setattr(sys.modules["measuring"], "settle", lambda options: isinstance(options, argparse.Namespace))
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--model-only", "--write-docs"])
    scaling.main()
    assert set(seen) == {"resnet20", "resnet18"}
    assert "resnet18: 1 parameters, 0.00 MB" in page.read_text()
    scaling.write_between(page, "measured", "| a table |")
    assert page.read_text().count("| a table |") == 1
    assert before.partition("<!--")[0] == page.read_text().partition("<!--")[0]
    assert before.rpartition("-->")[2] == page.read_text().rpartition("-->")[2]
