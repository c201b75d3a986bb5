"""Images per second of the input path alone: crop, flip and normalise, batched on the device, against a `DataLoader`.

    python benchmarks/pipeline.py                       -> benchmarks/results/pipeline.json

The last table has the share of a ResNet-20 step that its input takes. All contenders share a process.

    python benchmarks/pipeline.py --photos              -> benchmarks/results/photos.json

measures photographs: `torchvision.datasets.ImageFolder` in a `DataLoader` against image files decoded by workers
(`stream, files`), decoded images read from the cache (`stream, cache`), and images kept in memory (`device`). The first
epoch, which creates the loader and fills the cache, is reported separately. The process, and so every contender, keeps
freed memory as `resnet-train` does; `--plain-malloc` measures without that.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable

import measuring

BATCH = 128
COUNT = 50_000  # images in the set, as in CIFAR-10: the rates depend on how much fits into the CPU's caches
PER_IMAGE = 4_000  # images for the DataLoader, which is slow


def main() -> None:
    parser = measuring.parser(__doc__, rounds=7)
    parser.add_argument("--images", type=int, default=COUNT)
    parser.add_argument("--photos", action="store_true", help="measure photographs instead")
    parser.add_argument(
        "--plain-malloc",
        action="store_true",
        help="with --photos: return freed memory to the system, which runs do not",
    )
    options = parser.parse_args()
    measuring.settle(options)
    if options.photos:
        measure_photographs(options)
        return
    import loops
    import torch

    from resnet_cli.hydra_app.compose import compose_settings
    from resnet_cli.session import build

    torch.set_num_threads(options.threads)
    count = 1_000 if options.quick else options.images
    node = compose_settings(loops.overrides("resnet20", count, BATCH)).settings["data"]
    own = build.loaders(node, device=torch.device("cpu"), seed=0).train
    pixels, labels = loops.padded(count)
    per_image = {workers: loops.per_image_loader(min(count, PER_IMAGE), BATCH, workers) for workers in (0, 2)}
    rate, step = images_a_second, stepper(loops, own)
    samples = measuring.interleaved(
        {
            "DataLoader, 2 workers": lambda: rate(lambda: per_image[2]),
            "DataLoader, 0 workers": lambda: rate(lambda: per_image[0]),
            "by hand": lambda: rate(lambda: loops.batched(pixels, labels, BATCH)),
            "resnet-cli": lambda: rate(lambda: own),
            "resnet20 step": step,
        },
        options.rounds,
    )
    steps = samples.pop("resnet20 step")
    shares = [100 * s / rate for s, rate in zip(steps, samples["resnet-cli"], strict=True)]
    tables = [
        measuring.comparison(samples, "images/s", 0, ["DataLoader, 2 workers"]),
        f"share of a ResNet-20 step at batch {BATCH}: {measuring.spread(shares, 2)} %, "
        f"with {statistics.median(steps):.0f} images/s trained",
    ]
    measuring.finish(
        "pipeline", options, tables, images=count, batch=BATCH, samples=samples, trained=steps, share_percent=shares
    )


def measure_photographs(options: argparse.Namespace) -> None:
    """Measure the contenders of `photographs` in turn, all in a process that keeps freed memory as a run does."""
    import photographs

    from resnet_cli.training.malloc import keep_freed_memory

    if not options.plain_malloc:
        keep_freed_memory()  # before the first tensor
    import torch

    torch.set_num_threads(options.threads)
    count = 60 if options.quick else photographs.COUNT
    with photographs.contenders(count) as contenders:
        samples = measuring.interleaved(contenders, options.rounds)
    tables = [measuring.comparison(samples, "images/s", 0, ["DataLoader"])]
    keeps = not options.plain_malloc
    measuring.finish(
        "photos", options, tables, keeps_freed_memory=keeps, images=count, batch=photographs.BATCH, samples=samples
    )


def images_a_second(batches: Callable[[], Iterable[tuple]]) -> float:
    """Return the images per second of an epoch, including the start of workers as in each epoch of a `DataLoader`."""
    start, seen = measuring.now(), 0
    for _, labels in batches():
        seen += len(labels)
    return seen / (measuring.now() - start)


def stepper(loops, loader) -> Callable[[], float]:
    """Return the images per second of the training step alone, on existing batches."""
    import torch
    from torch import nn

    model = loops.network("resnet20").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **loops.SGD, fused=True)
    images, labels = next(iter(loader))

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def rate(steps: int = 4) -> float:
        start = measuring.now()
        for _ in range(steps):
            once()
        return steps * len(labels) / (measuring.now() - start)

    once()
    return rate


if __name__ == "__main__":
    main()
