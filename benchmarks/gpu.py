"""Measures training on one CUDA card in under nine minutes, without a network: rates, warm-up, and what must hold.

    python benchmarks/gpu.py                    synthetic images -> benchmarks/results/gpu.json
    python benchmarks/gpu.py --data DIR         images of a folder, a sub-folder a class, in DIR/train and DIR/test
    python benchmarks/gpu.py --dry-run          the same code on the CPU, tiny and uncompiled: its figures mean nothing

Each rate is of whole epochs in bf16, in rounds in which every variant has its turn: the medians and all samples.
`usual` is the loop that people copy (a DataLoader with per-image transforms, fp32, the loss read each step); `bare` is
written out over images on the device with all that helps (channels-last, bf16, the model compiled, fused SGD). The
share is the part of the card's measured bf16 matrix rate that the multiply-adds of the training come to.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.models.inspection import count_parameters
from resnet_cli.session import build
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.trainer import ClassifierTrainer

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.json"
SETTINGS = {  # nets, their options and batches
    "card": {
        "nets": {"ResNet-20": ("model=resnet20", 128), "ResNet-18": ("model=resnet18", 512)},
        "data": ["data=synthetic", "data.count=50000", "data.test_count=1000", "data.image_size=32"],
        "rounds": 3, "usual": 30, "matrix": 8192,
    },
    "dry": {
        "nets": {"tiny": (
            "model=cnn model.channels=[4] model.pool_every=1 model.hidden_dims=[8] model.hidden_dropout=0.1", 16
        )},
        "data": ["data=synthetic", "data.count=48", "data.test_count=16", "data.image_size=8"],
        "rounds": 1, "usual": 2, "matrix": 64,
    },
}  # fmt: skip
# Seconds of an epoch of 50,000 images on an H100 (790 TFLOP/s, 3 TB/s), batch norms and activations in fused passes.
FLOORS = {"ResNet-20": 0.088, "ResNet-18": 0.396}
COMPILE = ("off", "model", "step")
TOLERANCE = 0.02  # of the loss over the same steps, in bf16


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--nets", nargs="+", metavar="NAME", help="only these; the file keeps the others")
    parser.add_argument("--minutes", type=float, default=8.0, help="what has not begun by then is left out (8)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu.py needs a CUDA card, and here is none: --dry-run tries the program without one", file=sys.stderr)
        return 2
    plan = SETTINGS["dry" if options.dry_run else "card"]
    device = torch.device("cpu") if options.dry_run else torch.device("cuda", torch.cuda.current_device())
    out = options.out or (None if options.dry_run else RESULTS)
    data = plan["data"]
    if options.data is not None:
        data = ["data=image_folder", f"data.root={options.data}", "data.image_size=32"]
    with torch.compiler.set_stance("force_eager") if options.dry_run else nullcontext():
        result = measure(plan, data, device, options.nets or list(plan["nets"]), options.minutes, out)
    print(table(result))
    return 0 if all(all(net["checks"].values()) for net in result["nets"].values()) else 1


def measure(plan, data: list[str], device, nets: list[str], minutes: float, out: Path | None) -> dict:
    started = time.perf_counter()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "none: a dry run"
    machine = {
        "card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()
    }  # fmt: skip
    result = {**machine, "nets": {}}
    if out is not None and out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if all(before.get(key) == value for key, value in machine.items()):
            result["nets"] = before["nets"]
    matrix_tflops = matrix_rate(device, plan["matrix"])
    for name in nets:
        since = time.perf_counter()
        model, batch = plan["nets"][name]
        run = Run(model.split(), [*data, f"data.batch_size={batch}", "data.val_fraction=0"], device)
        watch = Watch(started, started + 60 * minutes, name)
        result["nets"][name] = {
            "data": data, "matrix_tflops": matrix_tflops, **rates(run, plan, watch, matrix_tflops, card),
            "checks": checks(run, watch), "left_out": watch.left_out, "seconds": round(time.perf_counter() - since, 1),
        }  # fmt: skip
        if out is not None:  # after each net: what stands is kept if the machine's time is up
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


@dataclass
class Watch:
    """Says on stderr how long each part took, and leaves out those that have not begun by `end`."""

    start: float
    end: float
    net: str
    left_out: list[str] = field(default_factory=list)

    def is_over(self, part: str) -> bool:
        """Return True, and note the part as left out, if there is no time for it."""
        if time.perf_counter() > self.end:
            self.left_out.append(part)
            return True
        return False

    def log(self, part: str, since: float) -> None:
        """Print how long a part took, and when it ended."""
        now = time.perf_counter()
        print(f"{now - self.start:6.1f} s  {self.net} {part}: {now - since:.1f} s", file=sys.stderr, flush=True)


class Run:
    """A net with its data; makes trainers that begin alike."""

    def __init__(self, model: list[str], data: list[str], device: torch.device) -> None:
        self.settings = compose_settings([*model, *data]).settings
        self.device, self.batch_size = device, self.settings["data"]["batch_size"]
        self.loaders = build.loaders(self.settings["data"], device=device, seed=0)

    def net(self) -> nn.Module:
        """Build a net with the same weights each time."""
        classes = len(self.loaders.class_names)
        return build.model(self.settings["model"], in_size=self.loaders.in_size, num_classes=classes, seed=0)

    def trainer(self, compiled: str = "off", precision: str = "bf16", **options) -> ClassifierTrainer:
        """Build a trainer of a new net, with fixed settings but for these."""
        net = self.net().to(self.device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        options = {"precision": precision, "channels_last": True, "compile": compiled, "seed": 0, **options}
        return ClassifierTrainer(
            net, None, optimizer, self.device, schedule=lambda step: 1 / (1 + step / 1000), **options
        )

    def wait(self) -> float:
        """Seconds on the clock once the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def rates(run: Run, plan, watch: Watch, matrix_tflops: float, card: str) -> dict:
    """Measure samples a second of every variant, their warm-up, and their share of the matrix rate."""
    variants: dict[str, Callable[[], float]] = {"input": lambda: input_rate(run)}
    variants["usual"] = usual(run, plan["usual"])
    variants["bare"] = bare(run)
    for compiled in COMPILE:
        variants[f"compile={compiled}"] = trained(run, compiled)
    variants["deterministic"] = trained(run, "off", deterministic=True)
    samples: dict[str, list[float]] = {}
    warm_up: dict[str, float] = {}
    for turn in range(1 + plan["rounds"]):
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
    return {
        "batch_size": run.batch_size, "multiply_adds": flops // 6,
        "parameters": count_parameters(run.net()),
        "variants": {
            variant: {
                "samples_per_second": statistics.median(found), "all": found,
                "warm_up_seconds": round(max(warm_up.get(variant, 0.0), 0.0), 1),
                "share_of_matrix_rate": None if variant == "input"
                else statistics.median(found) * flops / (1e12 * matrix_tflops),
                "times_floor": 50000 / statistics.median(found) / FLOORS[watch.net]
                if watch.net in FLOORS and variant != "input" and "H100" in card else None,
            }
            for variant, found in samples.items()
        },
    }  # fmt: skip


def trained(run: Run, compiled: str, **options) -> Callable[[], float]:
    """Train an epoch with the trainer and return the speed in its row of metrics."""
    trainer = run.trainer(compiled, **options)

    def epoch() -> float:
        trainer.fit(run.loaders.train, None, num_epochs=1, verbose=False)
        return trainer.state.rows[-1]["samples_per_second"]

    return epoch


def bare(run: Run) -> Callable[[], float]:
    """Prepare the loop written out, with the same batches from the device."""
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
    """Prepare the usual loop for some batches of images that are in memory already."""
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
            start = start or run.wait()  # starting the workers is not counted, nor the first batch
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images.to(run.device)), labels.to(run.device))
            loss.backward()
            optimizer.step()
            loss.item()
        return limit * run.batch_size / (run.wait() - start)

    return epoch


def input_rate(run: Run) -> float:
    """Images a second of the input path alone: gathered, augmented and normalised on the device."""
    start = run.wait()
    for _ in run.loaders.train.epoch(0):
        pass
    return run.loaders.counts["train"] / (run.wait() - start)


def checks(run: Run, watch: Watch) -> dict[str, bool]:
    """Check what must hold on this device; a failed check is false, with its reason on stderr."""
    found = {}
    for check in (same_loss, exact_resume, *([no_waiting] if run.device.type == "cuda" else [])):
        if watch.is_over(check.__name__):
            continue
        start = time.perf_counter()
        try:
            found[check.__name__] = check(run)
        except Exception as error:  # the figures are worth having all the same
            print(f"{check.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            found[check.__name__] = False
        watch.log(check.__name__, start)
    return found


def same_loss(run: Run) -> bool:
    """Compare the compiled step with the plain one: the loss over the same steps, without dropout."""
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
    """Two epochs, and one with another in a new trainer that has loaded its state: equal bit for bit."""
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
    """Run an epoch's steps in which the host never waits for the device; else torch raises."""
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


def table(result: dict) -> str:
    """Format the figures as lines."""
    lines = [f"{result['card']}, torch {result['torch']}"]
    for name, net in result["nets"].items():
        lines += ["", f"{name}, batch {net['batch_size']}; bf16 matrices {net['matrix_tflops']:.1f} TFLOP/s"]
        lines += [f"{'':14} {'samples/s':>12} {'of matrix rate':>15} {'times floor':>12} {'warm-up':>10}"]
        for variant, found in net["variants"].items():
            share, floor = found["share_of_matrix_rate"], found["times_floor"]
            shown, times = "" if share is None else f"{share:.1%}", "" if floor is None else f"{floor:.2f}"
            rate, warm_up = found["samples_per_second"], found["warm_up_seconds"]
            lines.append(f"{variant:14} {rate:12,.0f} {shown:>15} {times:>12} {warm_up:8.1f} s")
        lines += [f"{'passed' if passed else 'FAILED'}  {check}" for check, passed in net["checks"].items()]
        lines += [f"left out for time: {part}" for part in net["left_out"]]
        lines += [f"{net['seconds']:.0f} s"]
    return "\n".join(lines)


def matrix_rate(device: torch.device, size: int, repeats: int = 20) -> float:
    """Return the best of several products of bf16 matrices, in TFLOP/s."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


if __name__ == "__main__":
    sys.exit(main())
