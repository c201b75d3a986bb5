"""Microseconds per step that a trainer adds to a bare loop, with a net so small that overhead dominates.

    python benchmarks/overhead.py                       -> benchmarks/results/overhead.json
    python benchmarks/overhead.py --peers               with Lightning, in its own environment

The net is a linear layer on grey 8x8 images in batches of 64. The bare loop gathers, normalises, steps by fused SGD,
and sums loss and correct predictions. All contenders draw to a pseudo-terminal, and all but Lightning share a process.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import peers

BATCH, STEPS = 64, 400
BARE = "bare loop"


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    parser.add_argument("--peers", action="store_true", help="install Lightning, and run it too")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measuring.settle(options)
    steps = 20 if options.quick else STEPS
    if options.contender:
        measuring.serve(lambda: prepare_lightning(steps))
        return
    skipped: dict[str, str] = {}
    command = lightning_command(options, skipped)
    import torch

    torch.set_num_threads(options.threads)
    with measuring.workers(command, skipped) as started, measuring.terminal():
        samples = measuring.interleaved({**contenders(steps), **started}, options.rounds)
    rows = []
    for name, values in samples.items():
        added = [one - base for one, base in zip(values, samples[BARE], strict=True)]
        rows.append([name, measuring.spread(values, 0), measuring.spread(added, 0)])
    tables = [measuring.table(["", "us a step", "added"], rows)]
    tables += [f"{name}: skipped: {reason}" for name, reason in skipped.items()]
    added_by_ours = statistics.median(a - b for a, b in zip(samples["trainer"], samples[BARE], strict=True))
    measuring.finish(
        "overhead", options, tables, steps=steps, batch=BATCH, samples=samples, skipped=skipped, added=added_by_ours
    )


def lightning_command(options: argparse.Namespace, skipped: dict[str, str]) -> dict[str, list[str]]:
    """Return the command of Lightning's process, or add the reason why there is none to `skipped`."""
    if not options.peers:
        return {}
    try:
        python = peers.interpreter()
    except measuring.SkippedError as reason:
        skipped["lightning"] = str(reason)
        return {}
    arguments = [
        "--contender",
        "lightning",
        "--threads",
        str(options.threads),
        "--clock",
        options.clock,
        *["--quick"] * options.quick,
    ]
    return {"lightning": [python, str(Path(__file__)), *arguments]}


def contenders(steps: int) -> dict[str, Callable[[], float]]:
    """Return functions that measure the microseconds per step of each loop, after a warm-up."""
    from torch.nn.utils import clip_grad_norm_
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
    from tqdm import tqdm

    def clip(model, **_):
        clip_grad_norm_(model.parameters(), 1.0)

    def average(averaged, model, **_):
        averaged.update_parameters(model)

    model = tiny()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    off = "trainer.compile=off"
    made = {
        BARE: bare(steps, tiny()),
        "bare + tqdm with a postfix": bare(steps, tiny(), bar=tqdm),
        "bare + clip_grad_norm_": bare(steps, tiny(), before=clip),
        "bare + AveragedModel": bare(steps, model, after=lambda: average(averaged, model)),
        "trainer": own(steps, off),
        "trainer, clip_norm=1": own(steps, off, "trainer.clip_norm=1"),
        "trainer, averaging=ema": own(steps, off, "trainer.averaging=ema"),
    }
    for run in made.values():
        run()
    return {name: timed(run, steps) for name, run in made.items()}


def timed(run: Callable[[], Any], steps: int) -> Callable[[], float]:
    """Return a function that runs a loop and returns its microseconds per step."""

    def figure() -> float:
        start = measuring.now()
        run()
        return 1e6 * (measuring.now() - start) / steps

    return figure


def tiny():
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def pixels(steps: int):
    """Return images, uint8 [N, 8, 8, 1], and labels."""
    from resnet_cli.data import synthetic

    part = synthetic(count=steps * BATCH, test_count=10, image_size=8, channels=1).train
    return part.images, part.labels


def bare(steps: int, model, *, bar=None, before=None, after=None) -> Callable[[], None]:
    """Prepare the hand-written loop, with only what a loss curve needs."""
    import torch
    from torch import nn

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    images, labels = pixels(steps)
    scale, shift = torch.full((8,), 1 / 128), torch.full((8,), -1.0)

    def epoch() -> None:
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        numbers = torch.randperm(len(images)).split(BATCH)
        shown = bar(numbers) if bar else None
        for indices in shown if shown is not None else numbers:
            rows = images.index_select(0, indices).view(-1, 8).float()
            inputs = torch.addcmul(shift, rows, scale).view(-1, 1, 8, 8)
            targets = labels.index_select(0, indices)
            optimizer.zero_grad(set_to_none=True)
            scores = model(inputs)
            loss = nn.functional.cross_entropy(scores, targets)
            loss.backward()
            if before:
                before(model)
            optimizer.step()
            if after:
                after()
            total += loss.detach() * len(targets)
            correct += (scores.argmax(1) == targets).sum()
            if shown is not None:
                shown.set_postfix(loss=loss.item())
        total.item()

    return epoch


def own(steps: int, *typed: str) -> Callable[[], None]:
    """Prepare the program's trainer over its own loader, from a config."""
    import loops

    data = ["data.image_size=8", "data.channels=1", "data.augment.crop=0", "data.augment.flip=none"]
    epoch = loops.own("resnet20", steps * BATCH, BATCH, *data, *typed, model=tiny())

    def run() -> None:
        epoch()

    return run


def prepare_lightning(steps: int) -> tuple[Callable[[], float], dict[str, Any]]:
    """Prepare Lightning over existing batches, so that only its loop is measured."""
    import loops
    import torch

    images, labels = pixels(steps)
    floats = images.permute(0, 3, 1, 2).float().div(128).sub(1)
    pairs = [*zip(floats.split(BATCH), labels.split(BATCH), strict=True)]
    ready = torch.utils.data.DataLoader(pairs, batch_size=None, shuffle=True)
    epoch = loops.lightning("", steps * BATCH, BATCH, model=tiny(), loader=ready)
    epoch()
    return timed(epoch, steps), {"threads": torch.get_num_threads()}


if __name__ == "__main__":
    main()
