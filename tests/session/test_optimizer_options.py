"""Options of an optimizer with which its first step would fail are refused before training."""

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.session.dry_run import check_buildable
from resnet_cli.session.optimizer_options import require_trainable
from tests.support.settings import settings_of

ADAM = {"_target_": "torch.optim.Adam", "capturable": True}
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Derived(torch.optim.Adam):
    """A user's, of torch's kind."""


class Recorded(torch.optim.Optimizer):
    """A user's own, which may be capturable anywhere."""


@pytest.mark.parametrize(
    ("node", "key"),
    [
        (ADAM, "optimizer"),
        ({**ADAM, "_target_": f"{__name__}.Derived"}, "optimizer"),
        ({**ADAM, "capturable": False, "groups": {"bias": {"capturable": True}}}, "optimizer.groups.bias"),
        ({"_target_": "torch.optim.SGD", "groups": {"bias": {"optimizer": ADAM}}}, "optimizer.groups.bias.optimizer"),
    ],
)
def test_capturable_needs_cuda(node, key):
    require_trainable(node, CUDA)
    with pytest.raises(InputError, match=rf"^{key}\.capturable: needs CUDA, and trainer.device is cpu; leave it out$"):
        require_trainable(node, CPU)


def test_a_differentiable_update_trains_nowhere():
    with pytest.raises(InputError, match=r"^optimizer\.differentiable: "):
        require_trainable({"_target_": "torch.optim.Adam", "differentiable": True}, CUDA)


def test_a_users_own_optimizer_may_take_the_names():
    require_trainable({**ADAM, "_target_": f"{__name__}.Recorded"}, CPU)


def test_jobs_of_a_sweep_are_refused_before_the_first_one_starts():
    settings = settings_of("optimizer=adam")
    settings["optimizer"]["capturable"] = True
    with pytest.raises(InputError, match=r"^optimizer\.capturable: "):
        check_buildable(settings, here=True)
