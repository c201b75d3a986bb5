"""Functions in lockstep: they receive what is combined, and each draws as if it ran alone."""

import random

import numpy as np
import pytest
import torch

from resnet_cli.seeding import random_state_kept
from resnet_cli.training.device import seed_device
from resnet_cli.training.lockstep import Lockstep

CPU = torch.device("cpu")


def drawn():
    return torch.rand(()).item(), random.random(), np.random.rand()


def test_each_function_draws_as_if_it_ran_alone():
    def compute(number):
        seed_device(CPU, number, python=True)
        first = drawn()
        total = lockstep.exchange(number, torch.tensor(float(number)))
        return first, drawn(), total.item()

    lockstep = Lockstep(lambda given: torch.stack(list(given)).sum(), python=True)
    with random_state_kept():
        found = lockstep.run([compute] * 3)
        for number, (*draws, total) in enumerate(found):
            seed_device(CPU, number, python=True)
            assert draws == [drawn(), drawn()]
            assert total == 0 + 1 + 2


def test_an_error_of_one_function_ends_the_others():
    def compute(number):
        if number == 1:
            raise ValueError("the second one")
        lockstep.exchange(number, torch.zeros(()))

    lockstep = Lockstep(lambda given: given[0])
    with random_state_kept(), pytest.raises(ValueError, match="the second one"):
        lockstep.run([compute] * 2)
