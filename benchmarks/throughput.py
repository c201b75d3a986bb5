"""Training samples per second over whole epochs: the program against hand-written loops and other libraries.

    python benchmarks/throughput.py                     ResNet-20 and ResNet-18 -> benchmarks/results/throughput.json
    python benchmarks/throughput.py --peers             with Lightning and timm, in a separate environment
    python benchmarks/throughput.py --nets resnet20 --compile

Each contender is a separate process that warms up; then they take turns, an epoch each. The allocator, threads and
graphs of one contender therefore do not affect another.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import peers

COUNT = {"resnet20": 2048, "resnet18": 256}  # images in an epoch, which takes some seconds
BATCH = 128
USUAL, BARE, BARE_FAST = "usual loop", "bare fp32", "bare fast"
OURS, OURS_FAST = "trainer=default", "trainer=fast"
PEERS = ("lightning", "timm")


def main() -> None:
    parser = measuring.parser(__doc__, rounds=5)
    parser.add_argument("--nets", nargs="+", choices=COUNT, default=list(COUNT))
    parser.add_argument("--images", type=int, help="of an epoch; fewer than a batch make no sense")
    parser.add_argument("--peers", action="store_true", help="install Lightning and timm, and run them too")
    parser.add_argument("--compile", action="store_true", help="compile the fast contenders; warming up takes a minute")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measuring.settle(options)
    if options.contender:
        measuring.serve(lambda: prepare(options.contender, options.nets[0], options.images, compiled=options.compile))
        return
    tables, nets = [], {}
    for net in options.nets:
        count = options.images or (BATCH if options.quick else COUNT[net])
        skipped: dict[str, str] = {}
        with measuring.workers(commands(net, count, options, skipped), skipped) as started:
            samples = measuring.interleaved(started, options.rounds)
            about = {name: worker.about for name, worker in started.items()}
        nets[net] = {"images": count, "batch": BATCH, "samples": samples, "contenders": about, "skipped": skipped}
        to = [name for name in (USUAL, BARE, BARE_FAST) if name in samples]
        notes = [f"{name}: skipped: {reason}" for name, reason in skipped.items()]
        tables.append("\n".join([f"{net}, batch {BATCH}\n", measuring.comparison(samples, "samples/s", 0, to), *notes]))
    measuring.finish("throughput", options, tables, compiled=options.compile, nets=nets)


def commands(net: str, count: int, options: argparse.Namespace, skipped: dict[str, str]) -> dict[str, list[str]]:
    """Return the command line of each contender's process."""
    arguments = [
        str(Path(__file__)),
        "--nets",
        net,
        "--images",
        str(count),
        "--threads",
        str(options.threads),
        "--clock",
        options.clock,
    ]
    arguments += ["--compile"] * options.compile
    found = {
        name: [sys.executable, *arguments, "--contender", name] for name in (USUAL, BARE, OURS, BARE_FAST, OURS_FAST)
    }
    if options.peers:
        try:
            python = peers.interpreter()
        except measuring.SkippedError as reason:
            return skipped.update(dict.fromkeys(PEERS, str(reason))) or found
        found |= {name: [python, *arguments, "--contender", name] for name in PEERS}
    return found


def prepare(name: str, net: str, count: int, *, compiled: bool) -> tuple[Callable[[], float], dict[str, Any]]:
    """Return the function that trains an epoch of a contender, after a warm-up epoch."""
    from resnet_cli.training.malloc import keep_freed_memory

    if name not in (USUAL, *PEERS):
        keep_freed_memory()  # before the first tensor, as the program does
    import loops
    import torch

    fast = f"trainer.compile={'model' if compiled else 'off'}"
    epoch = {
        USUAL: lambda: loops.usual(net, count, BATCH),
        BARE: lambda: loops.bare(net, count, BATCH, fast=False),
        BARE_FAST: lambda: loops.bare(net, count, BATCH, fast=True, compiled=compiled),
        OURS: lambda: loops.own(net, count, BATCH),
        OURS_FAST: lambda: loops.own(net, count, BATCH, "trainer=fast", fast),
        "lightning": lambda: loops.lightning(net, count, BATCH),
        "timm": lambda: loops.timm(net, count, BATCH),
    }[name]()

    def figure() -> float:
        start = measuring.now()
        return epoch() / (measuring.now() - start)

    warming = measuring.now()
    epoch()
    return figure, {"warm_up_seconds": round(measuring.now() - warming, 1), "threads": torch.get_num_threads()}


if __name__ == "__main__":
    main()
