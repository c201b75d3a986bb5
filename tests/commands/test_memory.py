"""Memory: jobs of a sweep give back what they took, failed ones too, and epochs take nothing."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from tests.support.runs import HEAVY, tiny


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the resident memory")
def test_jobs_of_a_sweep_give_back_their_memory(train_command, tmp_path):
    (tmp_path / "heavy_nets.py").write_text(HEAVY)
    arguments = tiny("model._target_=heavy_nets.Net", "data.augment.flip=random", "trainer.epochs=1")
    done = train_command("-m", *arguments, "+model.fails=false,true", "seed=0,1,2,3", fresh=True)
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: as asked; see ") == 4
    noted = [[int(word) for word in line.split()] for line in (tmp_path / "resident.txt").read_text().splitlines()]
    resident, others = zip(*noted, strict=True)
    assert others == (0,) * 8
    # The allocator needs some jobs to settle. Then each job that stayed would add 25 MB three times over.
    assert max(resident[4:]) - resident[3] < 25, resident
    assert resident[3] - resident[1] < 2 * 75, resident


def test_epochs_take_nothing():
    """Objects, rather than pages: those of an epoch are gone after it."""
    from resnet_cli import ClassifierTrainer

    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(3)]
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = ClassifierTrainer(model, None, optimizer, averaging="ema", log_gradients=True)
    counts = []
    for _ in range(4):
        trainer.fit(batches, batches, num_epochs=5, verbose=False)
        gc.collect()
        counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert counts[1] == counts[2] == counts[3]
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None
