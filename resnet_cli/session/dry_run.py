"""Build the parts of a config without its data, to find errors in a sweep's jobs before the first one starts."""

import torch

from resnet_cli.config.messages import naming
from resnet_cli.config.run_length import total_steps
from resnet_cli.config.signatures import locate
from resnet_cli.config.validation import Settings
from resnet_cli.data.datasets.sizes import known_size
from resnet_cli.runs import checkpoints
from resnet_cli.session import build
from resnet_cli.session.device import device_of, precision_of
from resnet_cli.session.load import read_initial_weights, resolve_checkpoint
from resnet_cli.session.losses import with_trainer_smoothing
from resnet_cli.session.optimizer_options import require_trainable
from resnet_cli.session.time_budget import LONGEST
from resnet_cli.training.dynamo import without_dynamo_import

STEPS_PER_EPOCH = 1_000_000  # unknown without data; few would make a warm-up in steps look too long


def check_weights(key: str, place: str) -> None:
    """Read the file of `init_from` or `teacher`, and discard its content.

    Args:
        key: `init_from` or `teacher`.
        place: The run or file, where it is today.

    Raises:
        InputError: There is no such file, or it holds no weights.
    """
    if key == "init_from":
        read_initial_weights(place)
    else:
        with naming(key, place):
            checkpoints.load(resolve_checkpoint(place))


def check_buildable(settings: Settings, *, is_local: bool) -> None:
    """Build schedule, model and optimizer and discard them; a model only if it is of this package and sizes are known.

    Args:
        settings: A validated config.
        is_local: Whether it will run on this machine, so that its device and precision must be available here.

    Raises:
        InputError: one of them cannot be built.
    """
    trainer, data = settings["trainer"], settings["data"]
    device = device_of(trainer) if is_local else None
    if device is not None:
        precision_of(trainer, device)
        require_trainable(settings["optimizer"], device)
    with_trainer_smoothing(settings.get("loss"), trainer)
    epochs = LONGEST if trainer.get("time_budget") else build.get_argument(trainer, "epochs") or 1
    build.schedule(
        settings["schedule"], total_steps=total_steps(epochs, STEPS_PER_EPOCH), steps_per_epoch=STEPS_PER_EPOCH,
        groups=settings["optimizer"].get("groups"),
    )  # fmt: skip
    if not settings["model"]["_target_"].startswith("resnet_cli."):
        return  # building a user's own class may have side effects
    sizes = known_size(locate(data["_target_"]), data)
    if sizes is not None:
        in_size, num_classes = sizes
        model = build.model(settings["model"], in_size=in_size, num_classes=num_classes, seed=settings["seed"])
        with without_dynamo_import():
            # jobs may fork from this process, which must not use CUDA
            trial_device = device if device == torch.device("cpu") else None
            build.optimizer(settings["optimizer"], model, num_classes, trial_device)
