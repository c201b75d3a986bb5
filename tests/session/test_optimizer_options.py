"""Options of an optimizer with which its first step would fail are refused before training."""

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.session import build
from resnet_cli.session.dry_run import check_buildable
from resnet_cli.session.optimizer_options import require_trainable
from tests.support.runs import tiny
from tests.support.settings import settings_of

ADAM = {"_target_": "torch.optim.Adam", "capturable": True}
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Derived(torch.optim.Adam):
    """A user's, of torch's kind."""


class Recorded(torch.optim.Optimizer):
    """A user's own, which may be capturable anywhere."""


class Defective(torch.optim.SGD):
    """A user's, whose steps fail."""

    def step(self, closure=None):
        raise KeyError("velocity")


class Counting(torch.optim.SGD):
    """A user's, which counts its steps and draws random numbers."""

    steps = 0

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.sizes = [p.numel() for group in self.param_groups for p in group["params"]]

    def step(self, closure=None):
        type(self).steps += 1
        torch.rand(())
        super().step()


class Whole(Counting):
    """A user's, which is for one net."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        if sum(self.sizes) < 10:
            raise ValueError("not my net")


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
        check_buildable(settings, is_local=True)


def own(cls, **options):
    return {"_target_": f"{__name__}.{cls.__name__}", "lr": 0.1, **options}


SPARSE = {"_target_": "torch.optim.SparseAdam", "lr": 0.1}
FIRST = "fails in its first step"
DENSE = "SparseAdam does not support dense gradients"


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (SPARSE, rf"^optimizer: torch\.optim\.SparseAdam {FIRST}: {DENSE}"),
        (own(Counting, groups={"bias": {"optimizer": SPARSE}}), rf"^optimizer\.groups\.bias\.optimizer: .*{DENSE}"),
        (own(Defective), rf"^optimizer: \S+ {FIRST}: KeyError: 'velocity' \(test_optimizer_options\.py:\d+\)$"),
    ],
)  # fmt: skip
def test_an_optimizer_that_fails_in_its_first_step_is_refused(node, problem):
    model = torch.nn.Linear(4, 3)
    with pytest.raises(InputError, match=problem):
        build.optimizer(node, model, device=CPU)


def test_the_first_step_is_tried_on_other_weights():
    model = torch.nn.Linear(4, 3)
    before, steps, state = model.weight.clone(), Counting.steps, torch.get_rng_state()
    optimizer = build.optimizer(own(Counting), model, device=CPU)
    assert Counting.steps == steps + 1
    assert torch.equal(model.weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.weight.grad, dict(optimizer.state)) == (None, {})
    build.optimizer(own(Counting), model)
    assert Counting.steps == steps + 1


def test_an_optimizer_that_cannot_be_built_over_a_few_weights_is_not_tried():
    steps = Counting.steps
    build.optimizer(own(Whole), torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 30)), device=CPU)
    assert Counting.steps == steps


def test_the_run_folder_is_not_made(train, tmp_path):
    status, _, err = train(
        *tiny("optimizer=adam", "optimizer._target_=torch.optim.SparseAdam", "~optimizer.weight_decay"),
        "hydra.run.dir=sparse",
    )
    assert (status, DENSE in err, (tmp_path / "sparse").exists()) == (2, True, False)


def test_a_sweep_is_refused_before_its_first_job_starts():
    settings = settings_of("optimizer=adam")
    settings["optimizer"] = SPARSE
    with pytest.raises(InputError, match=DENSE):
        check_buildable(settings, is_local=True)
