"""Two-dimensional maps of the net's features.

Shapes: N images, D features.
"""

import warnings
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from resnet_cli.errors import InputError

Method = Literal["pca", "tsne", "umap"]
Floats = npt.NDArray[np.floating[Any]]

NEIGHBOURS = 15  # of each image, in UMAP
PACKAGES = {"tsne": ("sklearn", "scikit-learn"), "umap": ("umap", "umap-learn")}
SEED = 0


def require_package(method: Method) -> None:
    """Raise an `InputError` if the package that a method needs is not installed."""
    if method in PACKAGES and find_spec(PACKAGES[method][0]) is None:
        package = PACKAGES[method][1]
        raise InputError(f"--embed {method}: needs the package {package}: pip install 'resnet-cli[embed]'")


def project(features_ND: Floats, method: Method = "pca") -> Floats:
    """Return two coordinates for each image, float32 [N, 2]; the same features give the same coordinates.

    Args:
        features_ND: Features.
        method: `pca` projects onto the two directions of the largest variance, whose signs make the largest weight of
            each positive. `tsne` (van der Maaten and Hinton 2008) and `umap` (McInnes et al. 2018) preserve
            neighbourhoods; in their maps, distances between groups mean little.

    Raises:
        InputError: The package is not installed, or there are too few images.
    """
    require_package(method)
    features_ND = np.asarray(features_ND, np.float64)
    if len(features_ND) < 3:
        raise InputError(f"--embed: {len(features_ND)} images are too few for a picture")
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(features_ND) - 1) / 3)
        return np.asarray(
            TSNE(perplexity=perplexity, random_state=SEED, init="pca").fit_transform(features_ND), np.float32
        )
    return _umap(features_ND) if method == "umap" else principal_components(features_ND)[0]


def _umap(features_ND: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap warns of missing optional packages, and of few or equal features
        from umap import UMAP

        neighbours = min(NEIGHBOURS, len(features_ND) - 1)
        start = "spectral" if len(features_ND) > NEIGHBOURS else "random"  # spectral fails for a handful of images
        model = UMAP(n_neighbors=neighbours, init=start, random_state=SEED, n_jobs=1)
        return np.asarray(model.fit_transform(features_ND), np.float32)


def principal_components(features_ND: Floats) -> tuple[Floats, Floats]:
    """Return the first two principal components, float32 [N, 2], and their shares of the variance, [2]."""
    centred_ND = features_ND - features_ND.mean(0)
    if centred_ND.shape[1] < 2:
        centred_ND = np.pad(centred_ND, ((0, 0), (0, 2 - centred_ND.shape[1])))
    left, strengths, directions = np.linalg.svd(centred_ND, full_matrices=False)
    signs = np.sign(directions[np.arange(2), np.abs(directions[:2]).argmax(1)])
    signs[signs == 0] = 1
    shares = strengths**2 / max(float((strengths**2).sum()), 1e-300)
    return (left[:, :2] * strengths[:2] * signs).astype(np.float32), shares[:2]
