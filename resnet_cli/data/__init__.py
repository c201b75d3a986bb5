"""Data: image sets as uint8 arrays or files, batched augmentation, and loaders without random state."""

from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.datasets.arrays import arrays
from resnet_cli.data.datasets.bundled import digits, noise, synthetic
from resnet_cli.data.datasets.cifar import cifar10, cifar100
from resnet_cli.data.datasets.csv_file import csv
from resnet_cli.data.datasets.folder import image_folder
from resnet_cli.data.datasets.huggingface import huggingface
from resnet_cli.data.datasets.mnist import fashion_mnist, mnist
from resnet_cli.data.datasets.vision import flowers102, svhn
from resnet_cli.data.datasets.webdataset import webdataset
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.read import read_image
from resnet_cli.data.loading.augment import Augment
from resnet_cli.data.loading.batch_loader import BatchLoader, Normalize
from resnet_cli.data.loading.device_loader import DeviceLoader
from resnet_cli.data.loading.loaders import Loaders, make_loaders
from resnet_cli.data.loading.stream_loader import StreamLoader
from resnet_cli.data.splits import stratified_split, stratified_subset

__all__ = [
    "Augment",
    "BatchLoader",
    "Dataset",
    "DatasetSplit",
    "DeviceLoader",
    "LazyImages",
    "Loaders",
    "Normalize",
    "StreamLoader",
    "arrays",
    "cifar10",
    "cifar100",
    "csv",
    "digits",
    "fashion_mnist",
    "flowers102",
    "huggingface",
    "image_folder",
    "make_loaders",
    "mnist",
    "noise",
    "read_image",
    "stratified_split",
    "stratified_subset",
    "svhn",
    "synthetic",
    "webdataset",
]
