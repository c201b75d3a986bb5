"""`find=batch_size`: the search over sizes, what memory does to it, and the command."""

import json

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.models import CifarResNet
from resnet_cli.session.find import batch_size
from resnet_cli.session.find.batch_size import Trial, choose_fastest, fastest, largest, scaled_lr
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.trainer import ClassifierTrainer
from tests.support.runs import tiny

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def device_of(most):
    """A device whose memory holds `most` images; returns its trials too."""
    tried = []

    def attempt(size):
        tried.append(size)
        return Trial(size, fits=size <= most, samples_per_second=100.0 if size <= most else None)

    return attempt, tried


@pytest.mark.parametrize("most", [1, 3, 8, 63, 100, 1000, 1024, 5000])
@pytest.mark.parametrize("start", [1, 128, 2048])
def test_the_answer_fits_and_is_nearly_the_largest(most, start):
    attempt, tried = device_of(most)
    fitting = [trial.batch_size for trial in largest(attempt, start, 100_000) if trial.fits]
    assert max(fitting) <= most < max(fitting) * 1.126 + 1
    assert len(tried) == len(set(tried)) <= 25


def test_the_answer_has_no_more_images_than_there_are():
    attempt, tried = device_of(10**9)
    assert max(trial.batch_size for trial in largest(attempt, 128, 1000)) == 1000
    assert max(tried) == 1000


def test_a_device_without_room_for_one_image_is_an_error():
    with pytest.raises(InputError, match="a batch of 1 image does not fit"):
        largest(device_of(0)[0], 4, 1000)


def rates(by_size):
    def attempt(size):
        rate = by_size.get(size)
        return Trial(size, fits=rate is not None, samples_per_second=rate)

    return attempt


def test_on_a_cpu_the_smallest_that_is_about_the_fastest_is_chosen_and_slow_ones_end_the_search():
    trials = fastest(rates({8: 100.0, 16: 200.0, 32: 298.0, 64: 300.0, 128: 250.0, 256: 1e9}), 10_000)
    assert [trial.batch_size for trial in trials] == [8, 16, 32, 64, 128]
    assert choose_fastest(trials).batch_size == 32


def test_on_a_cpu_no_larger_batch_is_tried_after_one_that_does_not_fit():
    trials = fastest(rates({8: 100.0, 16: 200.0}), 10_000)
    assert choose_fastest(trials).batch_size == 16
    assert [trial.batch_size for trial in fastest(rates({5: 1.0}), 5)] == [5]


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.4), ("AdamW", 0.2)])
def test_the_learning_rate_is_scaled_by_the_rule_of_the_optimizer(optimizer, lr):
    assert scaled_lr(Trial(512, True, 1.0, None, 0.1, optimizer), 128)[0] == pytest.approx(lr)
    assert scaled_lr(Trial(128, True, 1.0, None, 0.1, optimizer), 128) is None


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(batch_size, "LEAST_SECONDS", 0.0)


def test_on_a_cpu_the_fastest_size_is_printed_with_its_table(train, tmp_path, quick):
    status, out, err = train(*tiny("find=batch_size", "data.batch_size=16", "hydra.run.dir=found"))
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "found/find_batch_size.json").read_text())
    assert f"type    data.batch_size={found['suggestion']}  (" in out
    assert [row["batch_size"] for row in found["rows"]][:2] == [8, 16]
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    assert ("optimizer.lr=" in out) == (found["suggestion"] != 16)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "find_batch_size.csv",
        "find_batch_size.json",
    ]


@pytest.mark.slow
def test_notices_of_the_data_are_printed_once_and_a_batch_of_all_images_counts_as_such(train, tmp_path, quick):
    status, out, err = train(*tiny("find=batch_size", "data.count=20", "data.batch_size=64", "hydra.run.dir=found"))
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "found/find_batch_size.json").read_text())
    assert len(found["rows"]) > 1
    assert out.count("nothing held out") == 1
    assert found["configured"] == found["training_images"] < 20
    assert f" at {found['training_images']};" in out


@pytest.mark.slow
@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_memory_counts_in_steps_and_in_the_evaluation(train, tmp_path, quick, monkeypatch, where):
    sizes = []
    step, evaluate = Stepper.run_step, ClassifierTrainer.evaluate

    def run_step(self, batch):
        sizes.append(len(batch[0]))
        if where == "step" and len(batch[0]) > 20 and self.state.optimizer.state:  # which the first step creates
            raise OUT_OF_MEMORY
        return step(self, batch)

    def evaluated(self, batches, **options):
        if where == "evaluation" and sizes[-1] > 20:
            raise OUT_OF_MEMORY
        return evaluate(self, batches, **options)

    monkeypatch.setattr(Stepper, "run_step", run_step)
    monkeypatch.setattr(ClassifierTrainer, "evaluate", evaluated)
    monkeypatch.setattr(batch_size, "fastest", lambda attempt, samples, least: largest(attempt, 32, samples))
    status, out, _ = train(*tiny("find=batch_size", "hydra.run.dir=found"))
    assert status == 0
    rows = json.loads((tmp_path / "found/find_batch_size.json").read_text())["rows"]
    assert all(row["fits"] == (row["batch_size"] <= 20) for row in rows)
    assert max(row["batch_size"] for row in rows if row["fits"]) >= 18
    assert "out of memory" in out


def test_an_error_of_another_kind_is_not_taken_for_a_lack_of_memory(train, tmp_path, quick, monkeypatch):
    def run_step(self, batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(Stepper, "run_step", run_step)
    status, _, err = train(*tiny("find=batch_size", "hydra.run.dir=found"))
    assert status == 1
    assert "RuntimeError: something else" in err
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("text", ["CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_libraries_that_allocate_for_themselves_count_too(monkeypatch, text):
    def measure(*arguments):
        raise RuntimeError(f"[enforce fail] {text}")

    monkeypatch.setattr(batch_size, "_measure", measure)
    assert not batch_size.try_batch_size(None, None, None, 8).fits


def test_sizes_are_tried_with_whole_images_and_with_all_that_ever_trains():
    late = [{"match": "^stages", "until": "50%"}, {"match": "head", "at": 2}]
    trainer = {"resolution": [[0, 0.5], ["60%", 0.75]], "freeze": ["stem", {"match": "norm"}, *late], "accumulate": 2}
    assert batch_size.at_its_largest(trainer) == {
        "resolution": [[0, 0.75]], "freeze": ["stem", {"match": "norm"}], "accumulate": 2,
    }  # fmt: skip
    assert batch_size.at_its_largest({"freeze": late, "resolution": None}) == {"freeze": None, "resolution": None}
    assert batch_size.at_its_largest({"freeze": "stem"}) == {"freeze": "stem"}


@pytest.mark.slow
def test_the_search_takes_the_steps_of_the_largest_images(train, quick, monkeypatch):
    sizes = set()
    forward = CifarResNet.forward

    def watched(self, images):
        if self.training:
            sizes.add(tuple(images.shape[2:]))
        return forward(self, images)

    monkeypatch.setattr(CifarResNet, "forward", watched)
    assert (
        train(*tiny("find=batch_size", "trainer.resolution=[[0,0.5],[50%,1]]", "trainer.resolution_multiple=4"))[0] == 0
    )
    assert sizes == {(8, 8)}


def test_the_smallest_batch_has_two_images_for_each_micro_batch():
    sizes = {16: 100.0, 32: 50.0, 64: 1e9}
    assert [trial.batch_size for trial in fastest(rates(sizes), 10_000, least=12)] == [16, 32]
