"""Rates of the variants of one net on a card, measured in turns, and correctness checks; called by `gpu.py`."""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.models.inspection import count_parameters
from resnet_cli.session import build
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.trainer import ClassifierTrainer

COMPILE = ("off", "model", "step")
TOLERANCE = 0.02  # relative difference of the loss over the same steps, in bf16
# Estimated minimum seconds of an epoch of 50,000 images on an H100 (790 TFLOP/s, 3 TB/s), with fused batch norms and
# activations, and the multiple of it that is the target.
FLOORS = {"ResNet-20": 0.088, "ResNet-18": 0.396}
TARGETS = {"ResNet-20": 3.0, "ResNet-18": 2.2}


@dataclass
class Watch:
    """Logs the duration of each part to stderr, and skips parts that have not begun by `end`."""

    start: float
    end: float
    name: str
    left_out: list[str] = field(default_factory=list)

    def is_over(self, part: str) -> bool:
        """Return True, and record the part as left out, if there is no time for it."""
        if time.perf_counter() > self.end:
            self.left_out.append(part)
            return True
        return False

    def log(self, part: str, since: float) -> None:
        """Print how long a part took, and when it ended."""
        now = time.perf_counter()
        print(f"{now - self.start:6.1f} s  {self.name} {part}: {now - since:.1f} s", file=sys.stderr, flush=True)


class Run:
    """A net with its data, which builds trainers with equal initial states."""

    def __init__(self, model: list[str], data: list[str], device: torch.device) -> None:
        self.settings = compose_settings([*model, *data]).settings
        self.device, self.batch_size = device, self.settings["data"]["batch_size"]
        self.loaders = build.loaders(self.settings["data"], device=device, seed=0)

    def net(self) -> nn.Module:
        """Build a net with the same weights each time."""
        classes = len(self.loaders.class_names)
        return build.model(self.settings["model"], in_size=self.loaders.in_size, num_classes=classes, seed=0)

    def trainer(self, compiled: str = "off", precision: str = "bf16", **options) -> ClassifierTrainer:
        """Build a trainer of a new net; settings other than the arguments are fixed."""
        net = self.net().to(self.device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        options = {"precision": precision, "channels_last": True, "compile": compiled, "seed": 0, **options}
        return ClassifierTrainer(
            net, None, optimizer, self.device, schedule=lambda step: 1 / (1 + step / 1000), **options
        )

    def wait(self) -> float:
        """Return the clock in seconds after all work on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def contenders(run: Run, plan, *, every: bool) -> dict[str, Callable[[], float]]:
    """Return the contenders: functions that train an epoch and return its samples per second."""
    made: dict[str, Callable[[], float]] = {"input": lambda: input_rate(run)}
    made["usual"] = usual(run, plan["usual"])
    made["bare"] = bare(run)
    made["compile=off"] = trained(run, "off")
    made["compile=step"] = trained(run, "step")
    if every:
        made["compile=model"] = trained(run, "model")
        made["deterministic"] = trained(run, "off", deterministic=True)
        made["step, channels first"] = trained(run, "step", channels_last=False)
        made["step, autotuned"] = autotuned(trained(run, "step"))
    return made


def rates(run: Run, plan, watch: Watch, matrix_tflops: float, card: str, *, every: bool = False) -> dict:
    """Measure the contenders in turns: samples per second, warm-up, and share of the matrix rate."""
    variants = contenders(run, plan, every=every)
    samples: dict[str, list[float]] = {}
    warm_up: dict[str, float] = {}
    for turn in range(1 + plan["rounds"]):  # the first round warms up and is not measured
        for variant, epoch in variants.items():
            if watch.is_over(f"{variant}, round {turn}"):
                continue
            start = run.wait()
            rate = epoch()
            if turn:
                samples.setdefault(variant, []).append(rate)
            watch.log(f"{variant}, round {turn}", start)
            if not turn:
                warm_up[variant] = run.wait() - start - run.loaders.counts["train"] / rate
    flops = 6 * count_multiply_adds(run.net(), run.loaders.in_size)  # two each; backward costs twice the forward pass
    found = {
        variant: {
            "samples_per_second": statistics.median(taken), "all": taken,
            "warm_up_seconds": round(max(warm_up.get(variant, 0.0), 0.0), 1),
            "share_of_matrix_rate": None if variant == "input"
            else statistics.median(taken) * flops / (1e12 * matrix_tflops),
            "times_floor": 50000 / statistics.median(taken) / FLOORS[watch.name]
            if watch.name in FLOORS and variant != "input" else None,
        }
        for variant, taken in samples.items()
    }  # fmt: skip
    return {
        "batch_size": run.batch_size, "multiply_adds": flops // 6, "parameters": count_parameters(run.net()),
        "target": target(watch.name, found, card), "variants": found,
    }  # fmt: skip


def target(name: str, variants: dict, card: str) -> dict | None:
    """Compare the compiled step with the target for an H100; None for nets without a target."""
    if name not in TARGETS or "compile=step" not in variants:
        return None
    times = variants["compile=step"]["times_floor"]
    return {
        "at_most": TARGETS[name],
        "times_floor": times,
        "reached": times <= TARGETS[name] if "H100" in card else None,
    }


def autotuned(epoch: Callable[[], float]) -> Callable[[], float]:
    """Return an epoch compiled with autotuned kernels, including convolutions."""

    def run() -> float:
        import torch._inductor.config as inductor

        with inductor.patch(max_autotune=True):
            return epoch()

    return run


def trained(run: Run, compiled: str, **options) -> Callable[[], float]:
    """Return a function that trains an epoch with the trainer and returns the speed in its row of metrics."""
    trainer = run.trainer(compiled, **options)

    def epoch() -> float:
        trainer.fit(run.loaders.train, None, num_epochs=1, verbose=False)
        return trainer.state.rows[-1]["samples_per_second"]

    return epoch


def bare(run: Run) -> Callable[[], float]:
    """Prepare the hand-written loop over the same batches on the device."""
    net = run.net().to(run.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    compiled = torch.compile(net, dynamic=False)

    def epoch() -> float:
        torch.backends.cudnn.benchmark = True
        loss_sum, start = torch.zeros((), device=run.device), run.wait()
        for images, labels in run.loaders.train.epoch(0):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(run.device.type, dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(compiled(images), labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
        return run.loaders.counts["train"] / (run.wait() - start)

    return epoch


def usual(run: Run, limit: int) -> Callable[[], float]:
    """Prepare the usual loop for some batches of images in memory."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    pixels = torch.cat([images.cpu() for images, _ in run.loaders.test.epoch(0)])
    size = pixels.shape[-1]
    transform = v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip()])

    class Images(Dataset):
        def __len__(self):
            return limit * run.batch_size

        def __getitem__(self, index):
            return transform(pixels[index % len(pixels)]), index % 2

    net = run.net().to(run.device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    workers = 0 if run.device.type == "cpu" else 4

    def epoch() -> float:
        loader = DataLoader(
            Images(), batch_size=run.batch_size, shuffle=True, num_workers=workers, pin_memory=workers > 0
        )
        start = None
        for images, labels in loader:
            start = start or run.wait()  # exclude the start of the workers and the first batch
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images.to(run.device)), labels.to(run.device))
            loss.backward()
            optimizer.step()
            loss.item()
        return limit * run.batch_size / (run.wait() - start)

    return epoch


def input_rate(run: Run) -> float:
    """Return the images per second of the input path alone: gathered, augmented and normalised on the device."""
    start = run.wait()
    for _ in run.loaders.train.epoch(0):
        pass
    return run.loaders.counts["train"] / (run.wait() - start)


def checks(run: Run, watch: Watch) -> dict[str, bool]:
    """Run the correctness checks of this net on this device; a failed check is False, with its reason on stderr."""
    found = {}
    for check in (same_loss, exact_resume, *([no_waiting] if run.device.type == "cuda" else [])):
        if watch.is_over(check.__name__):
            continue
        start = time.perf_counter()
        try:
            found[check.__name__] = check(run)
        except Exception as error:  # the measured rates are still worth reporting
            print(f"{check.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            found[check.__name__] = False
        watch.log(check.__name__, start)
    return found


def same_loss(run: Run) -> bool:
    """Return whether the compiled and the plain step have the same loss over the same steps, without dropout."""
    losses = []
    for compiled in ("off", "step"):
        trainer = run.trainer(compiled)
        for module in trainer.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        trainer.fit(run.loaders.train, None, num_epochs=1, max_batches=20, verbose=False)
        losses.append(trainer.state.rows[-1]["train_loss"])
    return abs(losses[0] - losses[1]) <= TOLERANCE * losses[0]


def exact_resume(run: Run) -> bool:
    """Return whether two epochs equal, bit for bit, one epoch and another in a new trainer that loads its state."""
    for compiled in ("off", "step"):
        whole, first, rest = (run.trainer(compiled, deterministic=True) for _ in range(3))
        for _ in range(2):
            whole.fit(run.loaders.train, None, num_epochs=1, max_batches=10, verbose=False)
        first.fit(run.loaders.train, None, num_epochs=1, max_batches=10, verbose=False)
        rest.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
        rest.fit(run.loaders.train, None, num_epochs=1, max_batches=10, verbose=False)
        a, b = whole.model.state_dict(), rest.model.state_dict()
        if not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return True


def no_waiting(run: Run) -> bool:
    """Run the steps of an epoch with torch set to raise if the host waits for the device; return True."""
    for compiled in COMPILE:
        trainer = run.trainer(compiled, averaging="ema", clip_norm=1.0)
        trainer.fit(run.loaders.train, None, num_epochs=1, verbose=False)
        with trainer.backend.switches():
            batches = EpochIterator(run.loaders.train, backend=trainer.backend).iterate(epoch=1)
            trainer.stepper.run_step(next(batches))
            torch.cuda.set_sync_debug_mode("error")
            try:
                for batch in batches:
                    trainer.stepper.run_step(batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return True
