"""Training on 1 and 2 gloo ranks against one process, and a model of up to 1,024 GPUs from the bytes of a step.

    python benchmarks/scaling.py                        -> benchmarks/results/scaling.json
    python benchmarks/scaling.py --write-docs           and its tables into docs/scaling.md
    python benchmarks/scaling.py --model-only           only the model
    python benchmarks/scaling.py --step-ms resnet18=20  another step time on one GPU

The contenders train the same batches in turns, in separate processes: one process with one and with two threads, and
one and two ranks with one thread each. Efficiency is the rate of two divided by twice the rate of one with one thread.
The time of each sum of gradients is measured inside the run, including the wait for the other rank; the sum alone is
timed with all ranks ready. The model is purely arithmetic: nothing in it was measured on several GPUs.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measuring
import scaling_model

COUNT = {"resnet20": 2048, "resnet18": 256}  # images in an epoch, which takes some seconds
BATCH = 128
CLASSES = 10
ONE, TWO = "1 process, 1 thread", "1 process, 2 threads"
RANK, RANKS = "1 rank, 1 thread", "2 ranks, 1 thread each"
CONTENDERS = {ONE: (0, 1), TWO: (0, 2), RANK: (1, 1), RANKS: (2, 1)}  # ranks and threads of each
ALONE_ROUNDS = 20  # sums that are timed on their own after each epoch
NAME = "scaling"
DOCS = measuring.REPOSITORY / "docs" / "scaling.md"


def main() -> None:
    parser = measuring.parser(__doc__, rounds=7)
    parser.add_argument("--nets", nargs="+", choices=COUNT, default=list(COUNT))
    parser.add_argument(
        "--step-ms", nargs="*", default=[], metavar="NET=MS", help="of a step on one GPU, for the model"
    )
    parser.add_argument("--model-only", action="store_true", help="measure nothing")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/scaling.md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clock = "wall"  # CPU time is meaningless for ranks that share the work
    if options.contender:
        ranks, options.threads = CONTENDERS[options.contender]
    measuring.settle(options)
    if options.port:
        follow(options.nets[0], options.quick, options.port)
        return
    if options.contender:
        measuring.serve(lambda: prepare(options.nets[0], ranks, options.threads, quick=options.quick))
        return
    steps = scaling_model.step_times(options.step_ms)
    counted = {net: exchanged(net) for net in steps}
    model = scaling_model.tables(steps, counted)
    if options.model_only:
        print("\n\n".join(model.texts))
    if options.write_docs:
        write_between(DOCS, "model", "\n\n".join(model.texts))
    if options.model_only:
        return
    nets = {net: measured(net, options) for net in options.nets}
    tables = [measured_table(nets), *model.texts]
    measuring.finish(NAME, options, tables, batch=BATCH, nets=nets, exchanged=counted, model=model.record)
    if options.write_docs:
        write_between(DOCS, "measured", f"{tables[0]}\n\n{conditions(options)}")


def conditions(options: argparse.Namespace) -> str:
    """Return a line on the machine and the rounds of the measured table."""
    machine = measuring.machine()
    return (
        f"Medians of {options.rounds} rounds, smallest and largest in brackets; batch {BATCH}, {machine['processor']}, "
        f"{machine['cores']} cores, Python {machine['versions']['python']}, torch {machine['versions']['torch']}."
    )


def write_between(path: Path, name: str, text: str) -> None:
    """Replace the text between the two markers of a name in a Markdown file."""
    begin, end = (f"<!-- benchmarks/scaling.py: {name}, {word} -->" for word in ("begin", "end"))
    content = path.read_text(encoding="utf-8")
    before, after = content.index(begin) + len(begin), content.index(end)
    path.write_text(f"{content[:before]}\n\n{text}\n\n{content[after:]}", encoding="utf-8")


def measured(net: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the contenders in turns; return their samples and the times of their gradient sums."""
    command = [sys.executable, str(Path(__file__)), "--nets", net, *["--quick"] * options.quick]
    skipped: dict[str, str] = {}
    with measuring.workers({name: [*command, "--contender", name] for name in CONTENDERS}, skipped) as started:
        samples = measuring.interleaved(started, options.rounds)
        notes = {name: worker.notes for name, worker in started.items()}
    return {"samples": samples, "notes": notes, "skipped": skipped}


def prepare(net: str, ranks: int, threads: int, *, quick: bool) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Prepare a contender; its round is an epoch, which with ranks also returns the time of its gradient sums."""
    import torch

    torch.set_num_threads(threads)
    if not ranks:
        epoch, count = epoch_of(net, quick, None)
        epoch()

        def plain() -> float:
            start = measuring.now()
            epoch()
            return count / (measuring.now() - start)

        return plain, {"threads": threads}
    store, port = open_store()
    follower = None
    if ranks == 2:
        command = [sys.executable, str(Path(__file__)), "--contender", RANKS, "--nets", net, "--port", str(port)]
        follower = subprocess.Popen([*command, *["--quick"] * quick], stdin=subprocess.DEVNULL)
    group = timed_group(0, ranks, store)
    return rounds_of(net, group, quick, follower), {"threads": threads, "ranks": ranks}


def rounds_of(net: str, group: Any, quick: bool, follower: Any) -> Callable[[], Any]:
    """Return the function for a round of the first rank, in which the other rank takes part."""
    epoch, count = epoch_of(net, quick, group)
    train(epoch, group)

    def round_of_ranks() -> tuple[float, dict[str, float]]:
        assert follower is None or follower.poll() is None, "the other rank has ended"
        group.gather(True)  # wakes the other rank
        group.forget()
        start = measuring.now()
        epoch()
        seconds = measuring.now() - start
        note = {"seconds": seconds, "sum_seconds": group.seconds, "sums": group.sums, "bytes": group.bytes}
        note["alone_ms"] = sum_alone(group)
        return count / seconds, note

    return round_of_ranks


def follow(net: str, quick: bool, port: int) -> None:
    """Run the second rank until the first one exits."""
    import torch
    from torch.distributed import TCPStore

    torch.set_num_threads(1)
    group = timed_group(1, 2, TCPStore("127.0.0.1", port, is_master=False))
    epoch, _ = epoch_of(net, quick, group)
    train(epoch, group)
    try:
        while True:
            group.gather(True)
            group.forget()
            epoch()
            sum_alone(group)
    except RuntimeError:  # the first rank has closed the connection
        os._exit(0)


def train(epoch: Callable[[], int], group: Any) -> None:
    """Warm up with an epoch and a sum."""
    group.forget()
    epoch()
    sum_alone(group)


def open_store() -> tuple[Any, int]:
    """Return a store at a free port, and the port."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return store, store.port


def timed_group(rank: int, size: int, store: Any) -> Any:
    """Return ranks that count and time their sums and record the bytes."""
    from resnet_cli.distributed.ranks import RankGroup

    class TimedGroup(RankGroup):
        seconds, sums, bytes = 0.0, 0, 0

        def sum_(self, tensor: Any) -> None:
            start = measuring.now()
            super().sum_(tensor)
            self.seconds += measuring.now() - start
            self.sums += 1
            self.bytes += tensor.nbytes

        def forget(self) -> None:
            self.seconds, self.sums, self.bytes = 0.0, 0, 0

    return TimedGroup(rank, size, store, timeout=3600)


def sum_alone(group: Any) -> float:
    """Return the median milliseconds of a sum of the size of a step's, with all ranks ready."""
    import torch
    import torch.distributed as dist

    flat, times = torch.zeros(group.bytes // max(group.sums, 1) // 4), []
    for _ in range(ALONE_ROUNDS):
        dist.barrier()
        start = measuring.now()
        dist.all_reduce(flat)
        times.append(1e3 * (measuring.now() - start))
    return statistics.median(times)


def epoch_of(net: str, quick: bool, ranks: Any) -> tuple[Callable[[], int], int]:
    """Return an epoch of the program's own loop with the given ranks, if any, and its number of images."""
    import loops

    count = BATCH if quick else COUNT[net]
    epoch, trainer = loops.own_trainer(net, count, BATCH, "trainer.compile=off")
    if ranks is not None:
        trainer.share_steps(ranks)
    return epoch, count


def exchanged(net: str) -> dict[str, Any]:
    """Return the bytes of each sum of a step, counted by running one, without and with synchronised batch norm."""
    import loops

    from resnet_cli.distributed.ranks import Ranks

    class Counting(Ranks):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def sum_(self, tensor: Any) -> None:
            self.sizes.append(tensor.nbytes)

    found: dict[str, Any] = {}
    for key, together in (("plain", False), ("sync_batch_norm", True)):
        ranks = Counting()
        epoch, trainer = loops.own_trainer(net, CLASSES, CLASSES, "trainer.compile=off")  # one step
        trainer.share_steps(ranks, sync_batch_norm=together)
        epoch()
        found[key] = ranks.sizes
    found["parameters"] = sum(parameter.numel() for parameter in trainer.state.model.parameters())
    return found


def measured_table(nets: dict[str, dict[str, Any]]) -> str:
    """Format the rates, the efficiencies and the shares of the sums."""
    header = ["net", "", "samples/s", "efficiency", "share of a step in sums", "a sum alone, ms", "MB a step"]
    rows = []
    for net, found in nets.items():
        for name, rates in found["samples"].items():
            ranks, threads = CONTENDERS[name]
            ratios = measuring.ratios(found["samples"], name, ONE) if ONE in found["samples"] else []
            efficiency = measuring.spread([ratio / max(ranks * threads, threads) for ratio in ratios], 2)
            rows.append([net, name, measuring.spread(rates, 0), efficiency, *sum_columns(found["notes"][name])])
    return measuring.table(header, rows)


def sum_columns(notes: Sequence[dict[str, float] | None]) -> list[str]:
    """Format the share of a step in sums, the time of a sum alone, and the megabytes of a step."""
    known = [note for note in notes if note]
    if not known:
        return ["-", "-", "-"]
    shares = [100 * note["sum_seconds"] / note["seconds"] for note in known]
    alone = [note["alone_ms"] for note in known]
    size = known[0]["bytes"] / known[0]["sums"] / 1e6
    return [f"{measuring.spread(shares, 1)} %", measuring.spread(alone, 2), f"{size:.2f}"]


if __name__ == "__main__":
    main()
