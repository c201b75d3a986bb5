"""`find=batch_size`: the largest batch that fits the device with a margin; on a CPU the fastest.

Each size is tried as in a run: data, model and optimizer are built anew, whole steps are taken with the
augmentation, so that the optimizer has its state, and a batch is evaluated. Memory is limited to less than the device
has while sizes are tried, so that a run has room for what varies.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.errors import InputError, is_out_of_memory
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import without_repeats
from resnet_cli.session import build
from resnet_cli.session.context import RunContext
from resnet_cli.session.device import device_of
from resnet_cli.session.prepare import isolated_compiler, prepare
from resnet_cli.training.batching import EpochIterator, iterate_epochs
from resnet_cli.training.step import base_lr
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")

MARGIN = 0.1  # of the device's memory, which stays free while sizes are tried
SMALLEST, LARGEST = 8, 1 << 16
LARGEST_ON_CPU = 1024
PRECISION = 1 / 8  # share by which the result may be below the largest size that fits
STEPS = 3  # the optimizer has its state after the first; then two are timed
LEAST_SECONDS = 1.0  # of timed steps on a CPU
CLOSE = 0.03  # share by which a smaller batch may be slower and still be chosen
SLOWER = 0.9  # of the highest rate, below which larger batches are not tried

EPOCHS = 1000  # that the schedule is built for, so that no size makes it shorter than its warm-up


@dataclass(frozen=True)
class Trial:
    """A batch size that was tried.

    Args:
        batch_size: Images in a batch.
        fits: The steps and the evaluation had enough memory.
        samples_per_second: Of training steps; None if it does not fit.
        peak_bytes: The most memory that the device had in use; None on a CPU, or if it does not fit.
        lr: The optimizer's configured learning rate; None if it does not fit.
        optimizer: Its class.
    """

    batch_size: int
    fits: bool
    samples_per_second: float | None = None
    peak_bytes: int | None = None
    lr: float | None = None
    optimizer: str = ""


COLUMNS = ("batch_size", "fits", "samples_per_second", "peak_bytes")  # of a trial, in the files of the search

Try = Callable[[int], Trial]


def find_batch_size(config: RunConfig, run: RunDir, context: RunContext) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Try batch sizes, and log the override for the one that is chosen.

    Returns:
        What was found, and a row for each size that was tried.

    Raises:
        InputError: the config is wrong, or not even the smallest batch fits.
        StoppedError: a signal arrived.
    """
    device = device_of(config.trainer)
    attempt = partial(try_batch_size, config, run, context)
    with memory_margin(device), without_repeats():
        samples = len(build.partition(config.data).train_indices)
        configured = min(build.batch_size(config.data), samples)
        if device.type == "cpu":
            least = 2 * (build.get_argument(config.trainer, "accumulate") or 1)  # batch norm needs two images
            trials, why = fastest(attempt, samples, least), f"the smallest within {CLOSE:.0%} of the fastest"
            chosen = choose_fastest(trials)
        else:
            trials, why = largest(attempt, configured, samples), f"with {MARGIN:.0%} of memory to spare"
            chosen = max((trial for trial in trials if trial.fits), key=lambda trial: trial.batch_size)
    hint = scaled_lr(chosen, configured)
    logger.info("type    data.batch_size=%d  (%s)", chosen.batch_size, why)
    if hint is not None:
        logger.info("        optimizer.lr=%.2g  (%s from %g at %d; find=lr tests it)", *hint, chosen.lr, configured)
    facts = {
        "suggestion": chosen.batch_size, "override": f"data.batch_size={chosen.batch_size}", "rule": why,
        "scaled_lr": None if hint is None else {"lr": hint[0], "rule": hint[1]}, "configured": configured,
        "training_images": samples, "device": str(device),
    }  # fmt: skip
    rows = sorted(map(asdict, trials), key=lambda row: int(row["batch_size"]))
    return facts, [{key: row[key] for key in COLUMNS} for row in rows]


def fastest(attempt: Try, samples: int, least: int = 1) -> list[Trial]:
    """Try powers of two from `least` on until the rate falls, up to the number of training images."""
    trials: list[Trial] = []
    size = SMALLEST
    while size < least:
        size *= 2
    while size <= min(samples, LARGEST_ON_CPU):
        trials.append(attempt(size))
        rates = [trial.samples_per_second or 0.0 for trial in trials]
        if not trials[-1].fits or rates[-1] < SLOWER * max(rates):
            break
        size *= 2
    return trials or [attempt(min(samples, size))]


def choose_fastest(trials: list[Trial]) -> Trial:
    """Return the smallest batch that is about as fast as the fastest.

    Raises:
        InputError: none fits.
    """
    fitting = [trial for trial in trials if trial.fits]
    if not fitting:
        raise InputError(f"find=batch_size: a batch of {trials[0].batch_size} does not fit into memory")
    best = max(trial.samples_per_second or 0.0 for trial in fitting)
    return next(trial for trial in fitting if (trial.samples_per_second or 0.0) >= (1 - CLOSE) * best)


def largest(attempt: Try, start: int, samples: int) -> list[Trial]:
    """Double or halve the size until one fits and one does not, and bisect between them.

    Args:
        attempt: Tries a size.
        start: The first size.
        samples: Training images, the largest size.

    Raises:
        InputError: not even one image fits.
    """
    trials = [attempt(start)]
    fits, fails = (start, None) if trials[0].fits else (None, start)
    most = min(samples, LARGEST)
    while fits is None or (fails is None and fits < most):
        size = min(2 * fits, most) if fits is not None else (fails or 1) // 2
        if size < 1:
            raise InputError("find=batch_size: a batch of 1 image does not fit into the memory of the device")
        trials.append(attempt(size))
        fits, fails = (size, fails) if trials[-1].fits else (fits, size)
    while fails is not None and fails - fits > max(PRECISION * fits, 1):
        middle = (fits + fails) // 2
        size = middle - middle % SMALLEST if middle - middle % SMALLEST > fits else middle
        trials.append(attempt(size))
        fits, fails = (size, fails) if trials[-1].fits else (fits, size)
    return trials


def try_batch_size(config: RunConfig, run: RunDir, context: RunContext, size: int) -> Trial:
    """Build a run with batches of this size, take steps and evaluate a batch; memory is freed afterwards.

    Raises:
        InputError: the config is wrong.
        StoppedError: a signal arrived.
    """
    try:
        trial = _measure(config, run, context, size)
    except (RuntimeError, MemoryError, InputError) as error:
        if not is_out_of_memory(error.__cause__ if isinstance(error, InputError) and error.__cause__ else error):
            raise
        trial = Trial(size, fits=False)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    memory = f", {trial.peak_bytes / 2**30:.2f} GiB" if trial.peak_bytes else ""
    rate = f"{trial.samples_per_second:,.0f} images/s{memory}" if trial.samples_per_second else "out of memory"
    logger.info("batch   %6d  %s", size, rate)
    return trial


def _measure(config: RunConfig, run: RunDir, context: RunContext, size: int) -> Trial:
    data = {**config.data, "batch_size": size, "drop_last": True}
    trainer_node = at_its_largest(config.trainer)
    planned = {**trainer_node, "epochs": EPOCHS}
    largest_step = replace(config, data=data, trainer=trainer_node)
    with isolated_compiler():
        prepared = prepare(largest_step, run, planned, context.paths, control=context.control)
        trainer, loaders = prepared.trainer, prepared.loaders
        device = trainer.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with trainer.backend.switches():
            rate = _time_steps(trainer, EpochIterator(loaders.train, backend=trainer.backend, control=context.control))
            evaluated = loaders.val if loaders.val is not None else loaders.train
            trainer.evaluate(EpochIterator(evaluated, limit=1).iterate(0))
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
        optimizer = trainer.state.optimizer
        return Trial(size, True, rate, peak, base_lr(optimizer), type(optimizer).__name__)


def at_its_largest(trainer: Node) -> Node:
    """Return a trainer's node whose steps all need as much memory as the largest step of the run.

    Images have the largest size of `trainer.resolution`, and only what never trains is frozen.
    """
    points, rules = trainer.get("resolution"), trainer.get("freeze")
    changed = dict(trainer)
    if points:
        changed["resolution"] = [[0, max(share for _, share in points)]]
    if rules and not isinstance(rules, str):
        changed["freeze"] = [rule for rule in rules if isinstance(rule, str) or not {"at", "until"} & set(rule)] or None
    return changed


def _time_steps(trainer: ClassifierTrainer, batches: EpochIterator) -> float:
    """Take steps, on a CPU for a second, and return the images per second of all but the first."""
    trainer.stepper.warm_up(batches.iterate_sizes(0))
    least = LEAST_SECONDS if trainer.device.type == "cpu" else 0.0
    seconds, images = 0.0, 0
    began = perf_counter()
    for step, batch in enumerate(iterate_epochs(batches, trainer.state)):
        trainer.stepper.run_step(batch)[0].item()  # which waits for the device
        now = perf_counter()
        if step > 0:
            seconds, images = seconds + now - began, images + len(batch[0])
        if step + 1 >= STEPS and seconds >= least:
            break
        began = now
    return images / seconds


@contextmanager
def memory_margin(device: torch.device) -> Iterator[None]:
    """Keep a part of a CUDA device's memory free inside this block: larger allocations fail."""
    if device.type != "cuda":
        yield
        return
    free, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(max(free - MARGIN * total, 0) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def scaled_lr(chosen: Trial, configured: int) -> tuple[float, str] | None:
    """Return the learning rate for the chosen batch size and the rule behind it; None if it is the configured size.

    In proportion to the batch size for SGD (Goyal et al. 2017), to its square root for optimizers that divide by the
    size of the gradient (Malladi et al. 2022).
    """
    if chosen.lr is None or chosen.batch_size == configured:
        return None
    ratio = chosen.batch_size / configured
    if chosen.optimizer == "SGD":
        return chosen.lr * ratio, "in proportion to the batch size"
    return chosen.lr * ratio**0.5, "in proportion to the square root of the batch size"
