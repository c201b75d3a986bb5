"""Build progressive resolution from the config, and check that the model runs on every size of image it has."""

import torch
from torch import nn

from resnet_cli.config.run_config import Node
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError, describe_error
from resnet_cli.schedules import RunLength
from resnet_cli.training.resolution import Resolution, resolution_points

KEY = "trainer.resolution"
MOST_SIZES = 6  # in a line of the log


def build_resolution(trainer: Node, loaders: Loaders, length: RunLength) -> Resolution | None:
    """Return the sizes of training images over a run; None if they all keep their full size.

    Args:
        trainer: The trainer's node.
        loaders: The data.
        length: The length of the run.

    Raises:
        InputError: there is no pair; a position is malformed, out of order or beyond the end.
    """
    given = {name: trainer[name] for name in ("resolution", "resolution_multiple") if name in trainer}
    points, multiple = resolution_points(**given)
    if points is None:
        return None
    if not points:
        raise InputError(f"{KEY}=[]: it takes at least one pair [position, share of height and width]")
    steps = length.parse_positions([position for position, _ in points], KEY)
    knots = tuple((step, float(share)) for step, (_, share) in zip(steps, points, strict=True))
    height, width = loaders.in_size[1:]
    return Resolution((height, width), knots, multiple, length.total_steps)


def require_every_size(model: nn.Module, resolution: Resolution, channels: int) -> None:
    """Run the model once on blank images of each size.

    Raises:
        InputError: it does not run on one of them, as a network whose first linear layer has a fixed input.
    """
    was_training = model.training
    for height, width in sorted({found[1:] for found in resolution.sizes()}):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                model.eval()(torch.zeros(2, channels, height, width))
        except Exception as error:  # a user's class may raise anything
            name, reason = type(model).__name__, describe_error(error)
            raise InputError(
                f"{KEY}: {name} does not run on images of {channels}x{height}x{width}: {reason}; such a model needs "
                "one size of image, or larger shares"
            ) from error
        finally:
            model.train(was_training)


def describe_resolution(resolution: Resolution) -> str:
    """Return a line with the sizes and the steps from which they apply."""
    sizes = [f"{height}x{width} from step {step}" for step, height, width in resolution.sizes()]
    if len(sizes) > MOST_SIZES:
        sizes = [*sizes[: MOST_SIZES - 1], f"... {sizes[-1]}"]
    return ", ".join(sizes)
