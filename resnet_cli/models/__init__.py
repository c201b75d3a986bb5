"""Image classifiers: the teaching networks, the papers' residual networks, torchvision's and airbench's."""

from resnet_cli.models.airbench import Airbench
from resnet_cli.models.cifar_resnet import CifarResNet
from resnet_cli.models.classifier import ArgMaxClassifier
from resnet_cli.models.cnn import CNN, ResNet
from resnet_cli.models.layers.blocks import ResidualBlock, ResidualBottleneckBlock
from resnet_cli.models.mlp import MLP
from resnet_cli.models.residual_mlp import ResidualMLP
from resnet_cli.models.scalar_chain import ScalarChain
from resnet_cli.models.staged_resnet import StagedResNet
from resnet_cli.models.timm_models import timm_model
from resnet_cli.models.torchvision_models import torchvision_model

__all__ = [
    "CNN",
    "MLP",
    "Airbench",
    "ArgMaxClassifier",
    "CifarResNet",
    "ResNet",
    "ResidualBlock",
    "ResidualBottleneckBlock",
    "ResidualMLP",
    "ScalarChain",
    "StagedResNet",
    "timm_model",
    "torchvision_model",
]
