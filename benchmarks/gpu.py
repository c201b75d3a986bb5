"""Measures training on one CUDA card in one call of under nine minutes, without network access.

    python benchmarks/gpu.py --published airbench94_muon.py --data cifar10-jpeg.tar.gz     all parts below
    python benchmarks/gpu.py                    without either: the published script is left out, images are synthetic
    python benchmarks/gpu.py --nets ResNet-20 --every      one net, with contenders that there is otherwise no time for
    python benchmarks/gpu.py --dry-run          the same code on the CPU, tiny and uncompiled; figures mean nothing

1. Samples per second of whole epochs in bf16, of ResNet-20 in batches of 128 and ResNet-18 in batches of 512, against
   the practical floor of an H100. `usual` is the common loop (a DataLoader with per-image transforms, fp32, the loss
   read in each step); `bare` is a hand-written loop over images on the device with all optimisations (channels-last,
   bf16, compiled model, fused SGD). The share is the rate of multiply-adds in training as a fraction of the card's
   measured bf16 matrix rate.
2. `experiment=airbench94_muon` against the published script, github.com/KellerJordan/cifar10-airbench, in turns.
3. Checks of correctness on the card, if there is time left; `cuda_tests.py` has more.

Contenders take turns, and every turn after the compiling one counts: the first turns are up to 2 % faster, before the
card is warm. Results are written to benchmarks/results/gpu.json after each part. Without a card nothing is run or
written.
"""

import argparse
import json
import platform
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import gpu_airbench
import torch
from gpu_nets import Run, Watch, checks, rates

from resnet_cli.training.device import configure_cublas
from resnet_cli.training.dynamo import reset_compiler

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.json"
SYNTHETIC = ["data=synthetic", "data.count=50000", "data.test_count=10000", "data.classes=10", "data.image_size=32"]
SETTINGS = {  # nets, their options and batches
    "card": {
        "nets": {"ResNet-20": ("model=resnet20", 128), "ResNet-18": ("model=resnet18", 512)},
        "data": SYNTHETIC, "rounds": 3, "usual": 30, "matrix": 8192,
        "airbench": [f"experiment={gpu_airbench.EXPERIMENT}", "trainer.compile=step"], "runs": gpu_airbench.RUNS,
    },
    "dry": {
        "nets": {"tiny": (
            "model=cnn model.channels=[4] model.pool_every=1 model.hidden_dims=[8] model.hidden_dropout=0.1", 16
        )},
        "data": ["data=synthetic", "data.count=48", "data.test_count=16", "data.image_size=8"],
        "rounds": 1, "usual": 2, "matrix": 64,
        "airbench": [
            f"experiment={gpu_airbench.EXPERIMENT}", "trainer.compile=step", "trainer.epochs=4",
            "model.widths=[4,4,4]", "data.batch_size=16",
        ], "runs": 2,
    },
}  # fmt: skip
PARTS = ("rates", "airbench", "checks")
SHARES = {"rates": 0.65, "airbench": 0.97, "checks": 1.0}  # fraction of the time at which each part ends


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, metavar="FILE", help="airbench94_muon.py; without it: left out")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder or archive of 32x32 images, for airbench")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="only these; the file keeps the others"
    )
    parser.add_argument("--nets", nargs="+", metavar="NAME", help="only these; the file keeps the others")
    parser.add_argument("--every", action="store_true", help="contenders that are no part of a target, too")
    parser.add_argument("--minutes", type=float, default=8.0, help="what has not begun by then is left out (8)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("skipped: gpu.py needs a CUDA card, and here is none; --dry-run tries the program without one")
        return 0
    with torch.compiler.set_stance("force_eager") if options.dry_run else nullcontext():
        result = measure(options, SETTINGS["dry" if options.dry_run else "card"])
    print(table(result))
    return 0 if all(all(net.get("checks", {}).values()) for net in result["nets"].values()) else 1


def measure(options: argparse.Namespace, plan) -> dict:
    """Measure the parts one after another, and write the results after each."""
    device = torch.device("cpu") if options.dry_run else torch.device("cuda", torch.cuda.current_device())
    out = options.out or (None if options.dry_run else RESULTS)
    if device.type == "cuda":
        configure_cublas()  # before the first product, since the checks include deterministic runs
    started = time.perf_counter()
    result = kept_results(out, device)
    nets = options.nets or list(plan["nets"])
    tflops, card = matrix_rate(device, plan["matrix"]), result["card"]

    def watch(name: str, share: float) -> Watch:
        return Watch(started, started + 60 * options.minutes * share, name)

    for part in options.parts:
        for number, name in enumerate(nets if part != "airbench" else [part]):
            before = SHARES["airbench"] if part == "checks" else 0.0
            share = before + (SHARES[part] - before) * (number + 1) / len(nets) if part != "airbench" else SHARES[part]
            begun, time_for = time.perf_counter(), watch(name, share)
            if part == "airbench":
                result[part] = airbench(options, plan, device, time_for)
            else:
                measure_net(result["nets"], part, (plan, device, tflops, card, options.every), time_for)
            entry = result[part] if part == "airbench" else result["nets"][name]
            entry.setdefault("left_out", {})[part] = time_for.left_out
            entry.setdefault("seconds", {})[part] = round(time.perf_counter() - begun, 1)
            if out is not None:  # keep the results so far in case the machine's time runs out
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def measure_net(nets: dict, part: str, how: tuple, watch: Watch) -> None:
    """Measure the rates of a net or run its checks, and store the result in its entry."""
    plan, device, tflops, card, every = how
    model, batch = plan["nets"][watch.name]
    with reset_compiler():
        run = Run(model.split(), [*plan["data"], f"data.batch_size={batch}", "data.val_fraction=0"], device)
        if part == "rates":
            found = {
                "data": plan["data"],
                "matrix_tflops": tflops,
                **rates(run, plan, watch, tflops, card, every=every),
            }
            nets[watch.name] = {**{k: v for k, v in nets.get(watch.name, {}).items() if k == "checks"}, **found}
        else:
            nets.setdefault(watch.name, {})["checks"] = checks(run, watch)


def airbench(options: argparse.Namespace, plan, device: torch.device, watch: Watch) -> dict:
    """Compare the configured recipe with the published script, on the images of `--data` or synthetic ones."""
    data = ["data=synthetic", "data.count=64", "data.test_count=16", "data.classes=10", "data.image_size=32"]
    data = data if options.dry_run else SYNTHETIC
    if options.data is not None:
        data = ["data=image_folder", f"data.root={options.data}", "data.image_size=32"]
    found = gpu_airbench.compare([*plan["airbench"], *data], options.published, device, watch, plan["runs"])
    return {"images": "synthetic" if options.data is None else options.data.name, **found}


def kept_results(out: Path | None, device: torch.device) -> dict:
    """Return the machine's record, with the results of earlier calls on the same card and versions."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "none: a dry run"
    machine = {
        "card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()
    }  # fmt: skip
    before = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else {}
    same = all(before.get(key) == value for key, value in machine.items())
    return {**machine, "nets": {}, **(before if same else {})}


def matrix_rate(device: torch.device, size: int, repeats: int = 20) -> float:
    """Return the best rate of several products of bf16 matrices, in TFLOP/s."""
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


def table(result: dict) -> str:
    """Format the figures as lines."""
    lines = [f"{result['card']}, torch {result['torch']}"]
    for name, net in result["nets"].items():
        lines += ["", *net_lines(name, net)]
    if "airbench" in result:
        lines += ["", *airbench_lines(result["airbench"])]
    return "\n".join(lines)


def net_lines(name: str, net: dict) -> list[str]:
    lines = [name]
    if "variants" in net:
        lines = [f"{name}, batch {net['batch_size']}; bf16 matrices {net['matrix_tflops']:.1f} TFLOP/s"]
        lines += [f"{'':20} {'samples/s':>12} {'of matrix rate':>15} {'times floor':>12} {'warm-up':>10}"]
    for variant, found in net.get("variants", {}).items():
        share, floor = found["share_of_matrix_rate"], found["times_floor"]
        shown, times = "" if share is None else f"{share:.1%}", "" if floor is None else f"{floor:.2f}"
        rate, warm_up = found["samples_per_second"], found["warm_up_seconds"]
        lines.append(f"{variant:20} {rate:12,.0f} {shown:>15} {times:>12} {warm_up:8.1f} s")
    aim = net.get("target")
    if aim:
        lines.append(f"compile=step: {aim['times_floor']:.2f} times an H100's floor; {verdict(aim)}")
    lines += [f"{'passed' if passed else 'FAILED'}  {check}" for check, passed in net.get("checks", {}).items()]
    return lines + left_out_lines(net)


def airbench_lines(found: dict) -> list[str]:
    lines = [f"airbench94_muon, images: {found['images']}"]
    for name, values in found["contenders"].items():
        lines.append(
            f"{name:12} {values['seconds']:8.2f} s (n={len(found['runs'][name])}), test {values['accuracy']:.2f} %, "
            f"{values['tta_accuracy']:.2f} % with test-time augmentation"
        )
    if found["ratio"] is not None:
        lines.append(f"ratio {found['ratio']:.3f}; {verdict(found)}")
    return lines + ([found["skipped"]] if found["skipped"] else []) + left_out_lines(found)


def verdict(aim: dict) -> str:
    """Format whether a target is reached; targets for another card are only mentioned."""
    said = {True: "reached", False: "missed", None: "not judged on this card"}
    return f"aim: at most {aim['at_most']}, {said[aim['reached']]}"


def left_out_lines(entry: dict) -> list[str]:
    lines = [f"left out for time: {part}" for parts in entry["left_out"].values() for part in parts]
    return [*lines, *(f"{seconds:.0f} s for {part}" for part, seconds in entry["seconds"].items())]


if __name__ == "__main__":
    sys.exit(main())
