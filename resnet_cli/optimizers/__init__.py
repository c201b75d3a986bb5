"""Parameter groups by pattern, and Muon for convolution filters."""

from resnet_cli.optimizers.groups import apply_group_options, build_optimizer, parameter_groups
from resnet_cli.optimizers.muon import Muon, orthogonalise

__all__ = [
    "Muon",
    "apply_group_options",
    "build_optimizer",
    "orthogonalise",
    "parameter_groups",
]
