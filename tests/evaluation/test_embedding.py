"""Two-dimensional maps of features."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from resnet_cli.errors import InputError
from resnet_cli.evaluation import embedding
from resnet_cli.evaluation.embedding import principal_components, project
from resnet_cli.plots.embedding import draw_embedding


def features(count=50, dimensions=6):
    source = np.random.default_rng(0)
    return source.normal(size=(count, dimensions)) * np.arange(1, dimensions + 1)


def embed_package(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a package that umap does not need here
        pytest.importorskip(name, reason=f"needs {name} of the extra embed")


def test_components_are_those_of_scikit_learn_up_to_their_sign():
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs scikit-learn")
    reference = decomposition.PCA(2).fit(features())
    points, shares = principal_components(features())
    np.testing.assert_allclose(np.abs(points), np.abs(reference.transform(features())), atol=1e-4)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_)


def test_equal_features_give_equal_points():
    assert np.array_equal(project(features()), project(features()))
    assert project(features()[:, :1]).shape == (50, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "package"), [("tsne", "sklearn"), ("umap", "umap")])
def test_neighbours_stay_together(method, package):
    embed_package(package)
    groups = np.concatenate([features(20), features(20) + 100])
    points = project(groups, method)
    assert (points.shape, points.dtype) == ((40, 2), np.float32)
    assert np.array_equal(project(groups, method), points)
    inside = np.linalg.norm(points[:20] - points[:20].mean(0), axis=1).mean()
    assert np.linalg.norm(points[:20].mean(0) - points[20:].mean(0)) > inside


@pytest.mark.slow
@pytest.mark.parametrize("found", [features(3), features(16), features(30)[:, :1], np.zeros((20, 4))], ids=len)
def test_umap_draws_few_and_equal_features(found):
    embed_package("umap")
    assert np.isfinite(project(found, "umap")).all()


def test_what_cannot_be_drawn_is_refused(monkeypatch):
    with pytest.raises(InputError, match="--embed: 2 images are too few"):
        project(features(2))
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"--embed tsne: needs the package scikit-learn: pip install 'resnet-cli\[embed\]'"
    ):
        project(features(), "tsne")


@pytest.mark.draws
@pytest.mark.parametrize("classes", [2, 60])
def test_picture_names_the_classes(classes):
    labels = np.arange(120) % classes
    names = [f"class $ {k}" for k in range(classes)]
    picture = Image.open(io.BytesIO(draw_embedding(features(120)[:, :2], labels, names, title="val, $x$")))
    assert picture.size[0] > 800


def test_points_without_a_label_are_named_so(monkeypatch):
    from matplotlib.axes import Axes

    named = []
    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda *args, **rest: named.append(rest["label"]) or scatter(*args, **rest))
    draw_embedding(np.zeros((3, 2)), np.array([-1, 1, -1]), ["cat", "dog"], title="t")
    assert named == ["no label", "dog"]
