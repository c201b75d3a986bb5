"""One pixel everywhere: of files of every kind, training, evaluation, prediction and exported files say the same."""

import pytest
import torch

from resnet_cli.inference.classifier import Classifier
from tests.support import interfaces, tiers
from tests.support.image_kinds import image_kinds, write_image_kinds

TOLERANCE = 1e-4
RESIZES = ("crop", "squash", "pad")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds") / "photos"
    paths = write_image_kinds(folder, len(image_kinds()))
    assert {path.suffix for path in paths} >= {".jpg", ".png", ".tif", ".gif", ".bmp", ".webp", ".pgm", ".tga", ".jp2"}
    return folder


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(photos.glob("*/*"))


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("one_pixel")
        patch.chdir(place)
        return interfaces.train(
            place, photos, "model=resnet8", "data.batch_size=32", "optimizer.lr=0.05", "trainer.epochs=3"
        )


@pytest.fixture(scope="module", params=tiers.mostly_slow(RESIZES, every=3))
def run(request, trained):
    return interfaces.open_run(trained, resize=request.param, background="#204060")


@pytest.fixture(scope="module")
def expected(run, paths):
    """What evaluation says, the reference; the images and what the net says of them are not all alike."""
    found = interfaces.from_loader(run, "test", backend="device")
    assert len(found.logits) == len(paths)
    assert found.logits.std(0).min() > 0.05
    assert len(found.probabilities.argmax(1).unique()) > 1
    return found


def require_same(found, expected, paths):
    differs = [path.name for path, same in zip(paths, _same_rows(found, expected), strict=True) if not same]
    assert not differs
    assert found.top1_differences(expected) == 0


def _same_rows(found, expected):
    pairs = [(found.inputs, expected.inputs), (found.logits, expected.logits)]
    if found.logits is None:
        pairs = [(found.probabilities, expected.probabilities)]
    same = torch.ones(len(expected.logits), dtype=torch.bool)
    for a, b in pairs:
        if a is not None:
            same &= ((a - b).abs().flatten(1) <= TOLERANCE).all(1)
    return same.tolist()


@pytest.mark.slow
def test_loaders(run, expected, paths, tmp_path):
    cache = str(tmp_path / "cache")
    require_same(interfaces.from_loader(run, "train", backend="stream", workers=2, cache=cache), expected, paths)
    assert any((tmp_path / "cache").rglob("*"))
    require_same(interfaces.from_loader(run, "train", backend="device", cache=cache), expected, paths)
    require_same(interfaces.from_loader(run, "test", backend="stream", workers=2, cache=cache), expected, paths)
    require_same(interfaces.from_loader(run, "test", backend="stream", workers=0, cache=None), expected, paths)


@pytest.mark.parametrize("kind", ["paths", "bytes", "images"])
def test_python(run, expected, paths, kind):
    require_same(interfaces.from_python(run, paths, kind), expected, paths)


def test_what_the_net_gets(run, expected, paths):
    preprocessing = Classifier(run).preprocessing
    assert torch.equal(preprocessing.normalize(preprocessing.read_all(paths)), expected.inputs)


def test_the_command(trained, photos, paths, tmp_path):
    expected = interfaces.from_loader(interfaces.open_run(trained), "test")
    require_same(interfaces.from_predict(trained, photos, tmp_path / "found.jsonl"), expected, paths)


def test_center_crop(trained, paths):
    run = interfaces.open_run(trained, eval_crop=0.8)
    expected = interfaces.from_loader(run, "test")
    require_same(interfaces.from_python(run, paths, "paths"), expected, paths)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_exported_files(run, expected, paths, suffix, tmp_path):
    if suffix == ".onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="needs the extra export")
    run_file = interfaces.export_logits(run, tmp_path / f"model{suffix}")
    require_same(interfaces.from_exported(run, paths, run_file), expected, paths)
