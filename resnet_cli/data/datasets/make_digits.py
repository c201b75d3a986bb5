"""Create digits.npz from scikit-learn's copy of the UCI digits: `python make_digits.py`, which needs scikit-learn.

The file contains 8x8 images (uint8, values 0 to 16) and labels in a fixed, stratified split: 355 images for testing,
the others for training. Sources and licences are in digits_LICENSE.txt.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from resnet_cli.data.splits import stratified_split

TEST_IMAGES = 355


def main() -> None:
    """Write digits.npz to the folder of this file."""
    digits = load_digits()
    images_NHW, labels_N = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    assert np.array_equal(images_NHW, digits.images)
    train, test = stratified_split(torch.from_numpy(digits.target), TEST_IMAGES / len(labels_N), seed=0)
    arrays = {
        "train_images": images_NHW[train],
        "train_labels": labels_N[train],
        "test_images": images_NHW[test],
        "test_labels": labels_N[test],
    }
    np.savez_compressed(Path(__file__).with_name("digits.npz"), **arrays)


if __name__ == "__main__":
    main()
