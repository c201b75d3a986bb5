"""Data: image sets as uint8 arrays or files, batched augmentation, and loaders that need no random state."""

from resnet_cli.data.augment import Augment
from resnet_cli.data.batches import Batches, Normalize
from resnet_cli.data.bundled import digits, noise, synthetic
from resnet_cli.data.cifar import cifar10, cifar100
from resnet_cli.data.dataset import Dataset, Part
from resnet_cli.data.decode import read_image
from resnet_cli.data.device_loader import DeviceLoader
from resnet_cli.data.folder import image_folder
from resnet_cli.data.images import LazyImages
from resnet_cli.data.loaders import Loaders, make_loaders
from resnet_cli.data.splits import stratified_split, stratified_subset
from resnet_cli.data.stream_loader import StreamLoader
from resnet_cli.data.vision import fashion_mnist, flowers102, mnist, svhn

__all__ = [
    "Augment",
    "Batches",
    "Dataset",
    "DeviceLoader",
    "LazyImages",
    "Loaders",
    "Normalize",
    "Part",
    "StreamLoader",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "flowers102",
    "image_folder",
    "make_loaders",
    "mnist",
    "noise",
    "read_image",
    "stratified_split",
    "stratified_subset",
    "svhn",
    "synthetic",
]
