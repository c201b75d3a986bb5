"""The published speed record and the same recipe from a config, trained in turns; called by `gpu.py`.

The time of both includes the whitening of the first layer, training, and the evaluation with test-time augmentation,
but not compiling, reading the images and the evaluation without augmentation. Every run that was started counts.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from airbench_script import AirbenchScript
from gpu_nets import Watch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.runs.folder import RunDir
from resnet_cli.session import build
from resnet_cli.session.prepare import prepare
from resnet_cli.session.resume import initialise_from_images
from resnet_cli.training.dynamo import reset_compiler
from resnet_cli.training.state import BestTracker
from resnet_cli.training.tta import AveragedViews

EXPERIMENT = "airbench94_muon"
AT_MOST = 1.05  # target: multiple of the published script's seconds
RUNS = 20  # of each program, if there is time


def compare(arguments: list[str], script: Path | None, device: torch.device, watch: Watch, runs: int = RUNS) -> dict:
    """Train both in turns; return seconds and accuracies of each run, and the median ratio of the rounds.

    Args:
        arguments: Overrides of the run from a config.
        script: The published script; it is left out if this is None or the file does not exist.
        device: The device of both.
        watch: Ends the rounds.
        runs: Maximum number of rounds.
    """
    with reset_compiler(), tempfile.TemporaryDirectory() as folder:
        own = Own([*arguments, f"trainer.device={device}"], Path(folder) / "run")
        contenders: dict[str, Any] = {"configured": own.train}
        skipped = "no published script was given" if script is None else None
        if script is not None and not script.is_file():
            skipped = f"no published script: {script}"
        if script is not None and not skipped:
            length = {"epochs": own.trainer.epochs, "batch_size": own.loaders.train.batch_size}
            published = AirbenchScript(script, Path(folder), own.parts(), device, **length)
            contenders["published"] = lambda seed: times_of(published.train(seed))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for name, train in contenders.items():
            start = own.wait()
            train("warmup" if name == "published" else 0)
            watch.log(f"{name}, warm-up", start)
        for seed in range(runs):
            if watch.is_over(f"round {seed}"):
                break
            order = list(contenders) if seed % 2 == 0 else list(contenders)[::-1]
            for name in order:
                found[name].append(contenders[name](seed))
        watch.log(f"{len(found['configured'])} rounds", start)
    return {"overrides": arguments, "skipped": skipped, "runs": found, **summary(found)}


def times_of(row: dict[str, Any]) -> dict[str, float]:
    """Convert the last row of the published script to the form of our runs."""
    return {"seconds": row["time_seconds"], "accuracy": 100 * row["val_acc"], "tta_accuracy": 100 * row["tta_val_acc"]}


def summary(found: dict[str, list[dict[str, float]]]) -> dict:
    """Return medians of the seconds, means of the accuracies, and the median of the rounds' ratios."""
    contenders = {
        name: {
            "seconds": statistics.median(run["seconds"] for run in runs),
            "accuracy": statistics.mean(run["accuracy"] for run in runs),
            "tta_accuracy": statistics.mean(run["tta_accuracy"] for run in runs),
        }
        for name, runs in found.items()
        if runs
    }
    if "published" not in contenders:
        return {"contenders": contenders, "ratio": None, "reached": None}
    pairs = zip(found["configured"], found["published"], strict=True)
    ratio = statistics.median(own["seconds"] / theirs["seconds"] for own, theirs in pairs)
    return {"contenders": contenders, "ratio": ratio, "at_most": AT_MOST, "reached": ratio <= AT_MOST}


class Own:
    """A run from a config that can be restarted without recompiling."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.config = RunConfig(**compose_settings(arguments).settings)
        prepared = prepare(self.config, RunDir(folder))
        self.trainer, self.loaders = prepared.trainer, prepared.loaders

    def parts(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return images and labels of the training and test split as they are stored."""
        dataset = build.dataset(self.config.data)
        return {
            name: (split.images if isinstance(split.images, torch.Tensor) else split.images.load(), split.labels)
            for name, split in (("train", dataset.train), ("test", dataset.test))
        }

    def wait(self) -> float:
        """Return the clock in seconds after all work on the device is done."""
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        return time.perf_counter()

    def train(self, seed: int) -> dict[str, float]:
        """Train from new weights, evaluate, and return seconds and accuracies."""
        self.restart(seed)
        start = self.wait()
        initialise_from_images(self.trainer, self.loaders)
        self.trainer.fit(self.loaders.train, None, verbose=False)
        trained = self.wait()
        tta = self.accuracy("flip_translate")
        done = self.wait()
        return {
            "seconds": done - start, "evaluation_seconds": done - trained, "accuracy": self.accuracy("none"),
            "tta_accuracy": tta,
        }  # fmt: skip

    def restart(self, seed: int) -> None:
        """Reset the trainer to its first step, with another seed's weights in the tensors it was compiled with."""
        state, classes = self.trainer.state, len(self.loaders.class_names)
        net = build.model(self.config.model, in_size=self.loaders.in_size, num_classes=classes, seed=seed)
        state.model.load_state_dict(net.state_dict())
        self.trainer.stepper.forget_optimizer_state()
        state.step = state.epoch = 0
        state.rows.clear()
        state.best_tracker = BestTracker(select_by=state.best_tracker.select_by)
        state.start_epoch()
        state.restart_average()
        self.loaders.train.seed = self.trainer.stepper.seed = seed

    @torch.no_grad()
    def accuracy(self, views: str) -> float:
        """Return the test accuracy in percent, by the mean output over `views` of each image."""
        trainer = self.trainer
        with trainer.state.evaluated_weights(), trainer.backend.switches():
            model = trainer.forward.eval()
            model = model if views == "none" else AveragedViews(model, views)
            right = torch.zeros((), dtype=torch.int64, device=trainer.device)
            for images, labels in self.loaders.test.epoch(0):
                with trainer.backend.autocast():
                    scores = model(images.to(trainer.device))
                right += (scores.argmax(1) == labels.to(trainer.device)).sum()
        return 100 * right.item() / self.loaders.counts["test"]
