"""A profile of a few steps: what it writes, and that it changes no number."""

import json

import pytest

from resnet_cli.training.profiling import SKIPPED, TIMED, TRACED
from tests.support.runs import tiny
from tests.support.trainers import MemorySaver, assert_same, loader, make_trainer, net, weights

STEPS = SKIPPED + TIMED + TRACED


class Keeping(MemorySaver):
    def __init__(self, folder):
        super().__init__()
        self.folder, self.profiles = folder, 0

    def write_profile(self, profile):
        self.profiles += 1
        profile.write(self.folder)


def fitted(folder, **options):
    trainer, saver = make_trainer(net(dropout=0.3), seed=1, averaging="ema", **options), Keeping(folder)
    trainer.fit(loader(), loader(), num_epochs=7, verbose=False, saver=saver)
    return trainer, saver


@pytest.mark.slow
def test_it_changes_no_number_and_names_the_parts(tmp_path):
    plain, _ = fitted(tmp_path / "none")
    watched, saver = fitted(tmp_path / "profile", profile=True)
    assert_same(weights(plain), weights(watched))
    assert not (tmp_path / "none").exists()
    assert saver.profiles == 1
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events if event.get("cat") == "user_annotation"]
    for part in ("data", "forward", "backward", "optimizer"):
        assert TRACED <= names.count(part) <= TRACED + 2, "the ends of epochs are looked for too"
    assert any(event.get("name") == "aten::addmm" for event in events)
    lines = (tmp_path / "profile" / "summary.txt").read_text().splitlines()
    assert "ms a step" in lines[0]
    shares = {line.split()[0]: float(line.split()[2].rstrip("%")) for line in lines[3:8]}
    assert list(shares) == ["data", "forward", "backward", "optimizer", "other"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    assert min(shares.values()) >= 0
    assert any("aten::addmm" in line for line in lines)


def test_a_fit_that_ends_before_its_profile_writes_none(tmp_path):
    trainer, saver = make_trainer(net(), profile=True), Keeping(tmp_path / "profile")
    trainer.fit(loader(), None, num_epochs=4, verbose=False, saver=saver)
    assert trainer.state.step == 12 < STEPS
    assert saver.profiles == 0
    trainer.train_batch(next(iter(loader())))  # the recording has ended with the fit


def test_a_profile_needs_a_place():
    with pytest.raises(ValueError, match=r"trainer\.profile"):
        make_trainer(net(), profile=True).fit(loader(), None, num_epochs=1, verbose=False)


def test_a_run_has_it_in_its_folder_and_may_begin_it_when_resumed(train, tmp_path):
    arguments = tiny("hydra.run.dir=d", "trainer.epochs=1", "model=cnn", "model.channels=[4]", "model.pool_every=1")
    assert train(*arguments)[0] == 0
    assert not (tmp_path / "d" / "profile").exists()
    status, _, err = train("resume=d", "trainer.epochs=6", "trainer.profile=true")
    assert (status, err) == (0, "")
    assert {path.name for path in (tmp_path / "d" / "profile").iterdir()} == {"trace.json", "summary.txt"}
