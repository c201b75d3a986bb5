"""Parameter groups by pattern, several optimizers as one, and Muon for convolution filters."""

from resnet_cli.optimizers.combined import CombinedOptimizer
from resnet_cli.optimizers.groups import apply_group_options, build_optimizer, parameter_groups
from resnet_cli.optimizers.muon import Muon, orthogonalise

__all__ = [
    "CombinedOptimizer",
    "Muon",
    "apply_group_options",
    "build_optimizer",
    "orthogonalise",
    "parameter_groups",
]
