"""Whether what a plan would choose can be built with what was typed, before anything is measured or printed."""

import torch

from resnet_cli.config.run_config import Node
from resnet_cli.errors import InputError
from resnet_cli.seeding import random_state_kept
from resnet_cli.session import build


def require_net(node: Node, in_size: tuple[int, int, int], classes: int) -> None:
    """Build a net of this package without weights, to see whether its arguments go together.

    Args:
        node: Its config, which is valid by itself.
        in_size: (C, H, W).
        classes: K.

    Raises:
        InputError: They do not.
    """
    provided = {"in_size": in_size, "in_channels": in_size[0], "out_classes": classes, "num_classes": classes}
    with random_state_kept(), torch.device("meta"):
        try:
            build.instantiate("model", node, provided)
        except InputError:
            raise
        except Exception:  # an initialisation may need numbers
            return
