"""Letter H: NaN and infinity. Training stops before they reach the weights and resumes from the last good save."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from campaign.checks import refusal, success
from campaign.harness import Bench, Test, Trial, outcome, same

# A model of the user's own that goes wrong in training step FAULT_STEP, where FAULT_KIND says.
NET = """
import os
import torch
from resnet_cli.models import CifarResNet

KIND, STEP = os.environ.get("FAULT_KIND"), int(os.environ.get("FAULT_STEP", -1))

class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")

class Net(CifarResNet):
    def __init__(self, in_size, num_classes, depth: int = 8, width: int = 4, dropout: float = 0.2):
        super().__init__(in_size, num_classes, depth=depth, width=width, dropout=dropout)
        self.steps = 0

    def forward(self, x):
        now = self.training and self.steps == STEP
        self.steps += self.training
        if now and KIND == "input":
            x = x.clone()
            x[0, 0, 0, 0] = float("nan")
        if now and KIND == "buffer":
            for module in self.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_var[0] = float("inf")
                    break
        scores = super().forward(x)
        if now and KIND == "loss":
            scores = scores * float("inf")
        return Bad.apply(scores) if now and KIND == "gradient" else scores
"""


def not_finite(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    (folder / "faulty.py").write_text(NET)
    base = [option for option in bench.tiny if not option.startswith("model")] + ["model._target_=faulty.Net"]
    cases = list(product(("fp32", "bf16"), ("input", "loss", "gradient", "buffer")))
    whole: dict[str, dict[str, str]] = {}
    for number, (precision, kind) in enumerate(cases[:1] if bench.quick else cases):
        arguments = [*base, f"trainer.precision={precision}"]
        if precision not in whole:
            done = bench.fork(*arguments, f"hydra.run.dir={precision}", cwd=folder)
            if done.status:
                yield Trial(precision, False, success(done))
                continue
            whole[precision] = outcome(folder / precision)
        step = 1 + number  # early and late, in all epochs; at step 0 nothing has been saved
        run = folder / f"{precision}-{kind}"
        problem = _stopped(bench, arguments, run, kind, step)
        if not problem:
            problem = success(bench.fork("resume=" + run.name, "model._target_=faulty.Net", cwd=folder))
        problem = problem or same(whole[precision], outcome(run))
        yield Trial(f"{kind} at step {step}, {precision}", not problem, problem)


def _stopped(bench: Bench, arguments: list[str], run: Path, kind: str, step: int) -> str:
    env = {"FAULT_KIND": kind, "FAULT_STEP": str(step)}
    done = bench.fork(*arguments, f"hydra.run.dir={run.name}", cwd=run.parent, env=env)
    problem = refusal(done, f"at step {step} ", status=3, most=1)
    if problem:
        return problem
    saves = {path.name: _load(path) for path in (run / "checkpoints").glob("*.pt")}
    if "last.pt" not in saves or saves["last.pt"]["step"] != step:
        return f"the last save is of step {saves.get('last.pt', {}).get('step')}, not {step}"
    broken = [name for name, state in saves.items() if not _finite(state)]
    if broken:
        return f"not finite: {', '.join(broken)}"
    text = (run / "metrics.jsonl").read_text()
    if re.search("NaN|Infinity", text):
        return "metrics.jsonl is not finite"
    status = json.loads((run / "run.json").read_text())["status"]
    return "" if status == "failed" else f"run.json says {status}"


def _load(path: Path) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(path, weights_only=True)["state"]
    return state


def _finite(value: Any) -> bool:
    """Whether all tensors in there are."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not hasattr(value, "isfinite") or bool(value.isfinite().all())


def scaler(bench: Bench) -> Iterator[Trial]:
    """On the CPU, in float32 and with a scale that overflows: the same code as float16 on a GPU."""
    import torch

    from resnet_cli.training.trainer import ClassifierTrainer

    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 3, 8, 8, generator=draw), torch.randint(0, 3, (8,), generator=draw)) for _ in range(6)]

    def made(scale: float) -> ClassifierTrainer:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(3))
        net(batches[0][0])
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        trainer = ClassifierTrainer(
            net, None, optimizer, schedule=lambda step: 1 / (1 + step), seed=0, averaging="ema", averaging_decay=0.5
        )
        trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
        return trainer

    def picture(trainer: ClassifierTrainer) -> dict[str, Any]:
        state = trainer.state.state_dict()
        names = ("model", "average", "optimizer", "step")
        shown = json.dumps({name: state[name] for name in names}, default=lambda tensor: tensor.tolist())
        plain: dict[str, Any] = json.loads(shown)
        return plain

    trainer = made(2.0**10)
    trainer.train_batch(batches[0])
    trainer.state.scaler.update(1e38)  # times the gradients of large images it is no float32
    before, rate = picture(trainer), trainer.state.optimizer.param_groups[0]["lr"]
    trainer.train_batch((1e3 * batches[1][0], batches[1][1]))
    after, scale = picture(trainer), trainer.state.scaler.get_scale()
    moved = [name for name in ("model", "average", "step") if after[name] != before[name]]
    momentum = before["optimizer"]["state"] == after["optimizer"]["state"]
    yield Trial("nothing moves on a skipped step", not moved and momentum, f"moved: {moved}" if moved else "")
    halved = 4e37 < scale < 6e37
    yield Trial("the scale is halved", halved, f"{scale}")
    trainer.state.scaler.update(2.0**10)
    trainer.train_batch(batches[1])
    now = trainer.state.optimizer.param_groups[0]["lr"]
    problem = "" if trainer.state.step == 2 and now == rate / 2 else f"step {trainer.state.step}, rate {rate} -> {now}"
    yield Trial("the schedule goes on where it was", not problem, problem)

    folder = bench.folder("x")
    whole, first = made(2.0**10), made(2.0**10)
    for batch in batches:
        whole.train_batch(batch)
    for batch in batches[:4]:
        first.train_batch(batch)
    torch.save(first.state.state_dict(), folder / "state.pt")
    second = made(2.0**16)  # another scale than the stored one
    second.state.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    restored = second.state.scaler.state_dict() == first.state.scaler.state_dict()
    yield Trial("the scaler's state comes back", restored, "" if restored else f"{second.state.scaler.state_dict()}")
    for batch in batches[4:]:
        second.train_batch(batch)
    equal = picture(second) == picture(whole) and second.state.scaler.state_dict() == whole.state.scaler.state_dict()
    yield Trial("and ends as without the stop", equal, "" if equal else "not identical")


TESTS = (
    Test("H1", "NaN and infinity in input, loss, gradient and buffer", 3, not_finite),
    Test("H2", "overflow under a gradient scaler", 1, scaler),
)
