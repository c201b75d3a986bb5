"""Exported files compute what their run does, or are not kept."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli import load_run
from resnet_cli.commands import export
from resnet_cli.export import files, parity
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.rejection import Rejection
from resnet_cli.session.trained import open_trained
from tests.support import tiers
from tests.support.runs import record_of, tiny

FORMATS = ["onnx", "pt2"]
PACKAGES = ["onnx", "onnxscript", "onnxruntime"]
CALIBRATE = "--calibrated: the run has no temperature; resnet-eval RUN --calibrate fits one"


@pytest.fixture
def exported(place, capsys):
    def run(*arguments, run="run"):
        status = export.run([run, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(params=tiers.mostly_slow(FORMATS, every=2))
def format_name(request):
    if request.param == "onnx":
        for name in PACKAGES:
            pytest.importorskip(name, reason="needs the extra export")
    return request.param


def run_file(path, images):
    if path.suffix == ".pt2":
        return [output.numpy() for output in torch.export.load(path).module()(torch.from_numpy(images))]
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"images": images})


def metadata(path):
    if path.suffix == ".pt2":
        extra = {"metadata.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["metadata.json"])
    import onnxruntime

    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map


def test_the_file_computes_what_the_run_does(exported, place, format_name):
    status, out, err = exported("--format", format_name)
    assert (status, err) == (0, "")
    path = place / f"run/export/model.{format_name}"
    assert f"file     run/export/model.{format_name}" in out
    assert "top-1 agreement 100.00 % on 12 validation images" in out
    classifier = load_run(place / "run")
    files = sorted((place / "photos/square").glob("*.png"))
    sizes = {(10, 8): files, (33, 50): files[:1], (7, 7): files[:3]}
    for (height, width), some in sizes.items():
        images = [Image.open(file).resize((width, height)) for file in some]
        found = run_file(path, np.stack([np.asarray(image) for image in images]))[0]
        np.testing.assert_allclose(found, classifier([np.asarray(image) for image in images]).numpy(), atol=1e-5)
    texts = metadata(path)
    assert json.loads(texts["class_names"]) == ["circle", "square", "stripes"]
    assert json.loads(texts["in_size"]) == [3, 10, 8]
    assert "resnet_cli.data.image_folder" in texts["config"]
    report = json.loads((place / f"run/export/model.{format_name}.json").read_text())
    assert report["takes"] == "uint8 [N, H, W, 3]"
    assert report["parity"]["images"] == 12
    (entry,) = record_of(place / "run")["exports"]
    assert (entry["file"], entry["format"]) == (f"run/export/model.{format_name}", format_name)


def test_wrong_preprocessing_is_found_and_leaves_no_file(exported, place, monkeypatch):
    from resnet_cli.export.graph import ExportGraph

    build = ExportGraph.__init__

    def with_wrong_mean(self, *arguments, **options):
        build(self, *arguments, **options)
        self.shift += 0.1

    monkeypatch.setattr(ExportGraph, "__init__", with_wrong_mean)
    status, out, err = exported("--format", "pt2")
    assert (status, out) == (1, "")
    assert err.startswith("error: the exported file's outputs differ from the run's: by up to ")
    assert list((place / "run/export").iterdir()) == []
    assert "exports" not in record_of(place / "run")


def test_a_net_that_one_onnx_file_cannot_hold_is_refused(exported, place, monkeypatch):
    monkeypatch.setattr("resnet_cli.export.files.MOST_ONNX_BYTES", 1000)
    monkeypatch.setattr("resnet_cli.export.files.require_packages", lambda format_name: None)
    status, out, err = exported("--format", "onnx")
    assert (status, out) == (2, "")
    assert err == (
        "error: --format onnx: the net has 0.0 GB of weights, and an ONNX file holds 0.0 GB; "
        "use --precision fp16 or --format pt2\n"
    )
    assert list((place / "run").glob("export/*")) == []


def test_wrong_resizing_is_found_too(exported, place, monkeypatch):
    from resnet_cli.export import graph

    monkeypatch.setattr(graph, "_resize_module", lambda p: _Nearest(*p.in_size[1:]))
    status, _, err = exported("--out", "wrong.pt2", "--tolerance", "1e-6")
    assert status == 1
    assert err.startswith("error: an image of ")
    assert not list(place.glob("*wrong*"))


class _Nearest(torch.nn.Module):
    def __init__(self, height, width):
        super().__init__()
        self.size = (height, width)

    def forward(self, images):
        return torch.nn.functional.interpolate(images.permute(0, 3, 1, 2).float(), self.size).permute(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["energy", "probability"])
def test_a_wrong_output_rejected_is_found(exported, place, monkeypatch, method):
    from resnet_cli.export.graph import ExportGraph

    options = ("--format", "pt2", "--reject", "25%", "--reject-by", method)
    status, out, _ = exported(*options, "--out", "right.pt2")
    assert status == 0
    assert "rejection agrees with the run: 100.00 % of the images\n" in out
    assert json.loads((place / "right.pt2.json").read_text())["parity"]["rejection_agreement"] == 100
    forward = ExportGraph.forward
    monkeypatch.setattr(ExportGraph, "forward", lambda self, images: (forward(self, images)[0], *_all(images)))
    status, out, err = exported(*options, "--out", "wrong.pt2")
    assert (status, out) == (1, "")
    assert err == (
        "error: the exported file's outputs differ from the run's: "
        "only 25.00 % of 12 images are rejected or kept as in the run; it was discarded\n"
    )
    assert not list(place.glob("*wrong*"))


def _all(images):
    return (images.flatten(1).float().amax(1) >= 0,)


def test_an_image_on_the_threshold_may_be_rejected_or_not():
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    references = parity.References(torch.zeros(3, 1, 1, 1), logits, logits, torch.ones(3, dtype=torch.int64), "val")
    rejection = Rejection("energy", logits[1].logsumexp(0).item() + 1e-5, 0.5, 3, 1)
    for decisions, agreement in (([1, 1, 0], 100), ([1, 0, 0], 100), ([0, 0, 0], 200 / 3), ([1, 1, 1], 200 / 3)):
        run_file = [logits, torch.tensor(decisions, dtype=torch.bool)]
        found = parity.compare(lambda images, outputs=run_file: outputs, references, rejection, 1e-4)
        assert found.rejection_agreement == pytest.approx(agreement)
    found = parity.compare(lambda images: [logits, torch.tensor([True, False, False])], references, rejection)
    assert found.rejection_agreement == pytest.approx(200 / 3)


@pytest.mark.slow
def test_options_change_what_is_in_the_graph(exported, place):
    record = record_of(place / "run")
    (place / "run/run.json").write_text(
        json.dumps({**record, "temperature": {"value": 2.5, "epoch": record["best"]["epoch"]}})
    )
    status, out, _ = exported("--out", "a.pt2", "--output", "logits", "--reject", "25%")
    assert status == 0
    assert "returns logits [N, 3]" in out
    images = torch.stack([load_run("run").preprocessing.read(file) for file in (place / "photos").rglob("*.png")])
    logits, rejected = run_file(place / "a.pt2", images.numpy())
    np.testing.assert_allclose(logits, load_run("run").logits(images).numpy(), atol=1e-5)
    assert 0 < rejected.mean() < 1
    assert exported("--out", "b.pt2", "--calibrated")[0] == 0
    expected = load_run("run", temperature=2.5)(images)
    np.testing.assert_allclose(run_file(place / "b.pt2", images.numpy())[0], expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_half_precision_says_what_it_costs(exported, place):
    status, out, err = exported("--precision", "fp16", "--format", "pt2")
    assert (status, err) == (0, "")
    assert ", fp16\n" in out
    report = json.loads((place / "run/export/model.pt2.json").read_text())
    assert 1e-6 < report["parity"]["largest_difference"] < 0.02


@pytest.mark.slow
def test_8_bit_integers_say_what_they_cost(exported, place):
    for name in PACKAGES:
        pytest.importorskip(name, reason="needs the extra export")
    status, out, err = exported("--precision", "int8")
    assert (status, err) == (0, "")
    assert ", int8\n" in out
    report = json.loads((place / "run/export/model.onnx.json").read_text())
    assert report["parity"]["largest_difference"] > 1e-5
    assert report["parity"]["accuracy"] >= report["parity"]["run_accuracy"] - 20
    assert json.loads(metadata(place / "run/export/model.onnx")["class_names"]) == ["circle", "square", "stripes"]


@pytest.mark.slow
def test_a_set_that_is_not_resized_keeps_its_size(train, tmp_path, capsys):
    assert train(*tiny("hydra.run.dir=d", "trainer.averaging=ema", "data.eval_crop=0.75"))[0] == 0
    assert export.run(["d", "--out", "a.pt2"]) == 0
    assert "takes    uint8 [N, 8, 8, 3]" in capsys.readouterr().out
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    expected = load_run("d")(images).numpy()
    np.testing.assert_allclose(run_file(tmp_path / "a.pt2", images)[0], expected, atol=1e-5)


@pytest.mark.slow
def test_the_range_of_a_runs_arrays_is_named_since_the_file_takes_scaled_values(train, tmp_path, capsys):
    values, labels = np.random.default_rng(0).integers(0, 17, (72, 8, 8, 1), dtype=np.uint8), np.arange(72) % 3
    np.savez(tmp_path / "x.npz", x_train=values[12:], y_train=labels[12:], x_test=values[:12], y_test=labels[:12])
    arguments = ["data=arrays", "data.file=x.npz", "data.range=[0,16]", "model=resnet8", "trainer.epochs=1"]
    assert train(*arguments, "hydra.run.dir=d")[0] == 0
    assert export.run(["d", "--out", "a.pt2"]) == 0
    takes = "uint8 [N, 8, 8, 1], scaled so that data.range=[0,16] is 0 to 255"
    assert f"takes    {takes}, returns" in capsys.readouterr().out
    report = json.loads((tmp_path / "a.pt2.json").read_text())
    assert (report["takes"], report["range"]) == (takes, [0, 16])
    assert json.loads(metadata(tmp_path / "a.pt2")["range"]) == [0, 16]
    scaled = (values[:12] / 16 * 255).round().astype(np.uint8)
    expected = load_run("d")(values[:12]).numpy()
    np.testing.assert_allclose(run_file(tmp_path / "a.pt2", scaled)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.h5"], "--out=model.h5: name it *.onnx or *.pt2"),
        (["--out", "model.pt2", "--format", "onnx"], "--format=onnx: model.pt2 is a file of format pt2"),
        (["--out", "model.pt2", "--precision", "int8"], "--precision int8: only with --format onnx"),
        (["--out", "model.pt2", "--calibrated"], CALIBRATE),
        (["--out", "model.pt2", "--reject-by", "energy"], "--reject-by energy: needs --reject RATE"),
        (["--out", "model.pt2", "--tolerance", "-1"], "argument --tolerance: -1 is not a number above 0"),
        (["--out", "nowhere/model.pt2"], "--out=nowhere/model.pt2: its folder does not exist"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_in_one_line(exported, place, arguments, message):
    before = sorted(place.rglob("*"))
    status, out, err = exported(*arguments)
    (line,) = err.splitlines()
    assert (status, out) == (2, "")
    assert line.removesuffix(" (--help lists the options)") == f"error: {message}"
    assert sorted(place.rglob("*")) == before


def test_missing_packages_are_named(exported, monkeypatch):
    from resnet_cli.export import files

    monkeypatch.setattr(files, "find_spec", lambda name: None)
    status, _, err = exported()
    assert status == 2
    assert err == "error: --format onnx: needs onnx, onnxscript, onnxruntime: pip install 'resnet-cli[export]'\n"


@pytest.mark.slow
def test_an_onnxscript_older_than_torch_is_named(exported, monkeypatch):
    for name in PACKAGES:
        pytest.importorskip(name, reason="needs the extra export")

    def export(*arguments, **options):
        import onnxscript.of_a_later_version  # noqa: F401

    monkeypatch.setattr(torch.onnx, "export", export)
    status, _, err = exported()
    assert status == 2
    assert err == (
        f"error: --format onnx: torch {torch.__version__} needs onnxscript.of_a_later_version; install a later one: "
        "pip install -U onnxscript\n"
    )


def test_a_checkpoint_outside_of_a_run_needs_a_name_for_the_file(exported, place):
    shutil.copy(place / "run/checkpoints/best.pt", place / "best.pt")
    status, _, err = exported("--format", "pt2", run="best.pt")
    assert status == 2
    assert err == "error: best.pt: not in a run folder; give --out FILE\n"


def test_references_have_the_labels_and_the_normalisation_of_the_run_after_the_images_have_changed(place):
    shutil.rmtree(place / "photos/circle")
    for file in (place / "photos/square").iterdir():
        Image.new("RGB", (12, 10), "white").save(file)
    run = open_trained("run", device="cpu", precision="fp32")
    classifier = Classifier(run)
    references = parity.collect_references(classifier, run.loaders(), lambda logits: logits)
    torch.testing.assert_close(references.outputs, classifier.forward(references.images))
    is_square = references.images.flatten(1).eq(255).all(1)
    assert references.labels.tolist() == [1 if square else 2 for square in is_square.tolist()]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_gets_the_file_and_stays(exported, place):
    os.mkfifo("pipe.pt2")
    found = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe.pt2").read_bytes()), daemon=True)
    reader.start()
    assert exported("--out", "pipe.pt2")[0] == 0
    reader.join(20)
    assert Path("pipe.pt2").is_fifo()
    (place / "read.pt2").write_bytes(found[0])
    assert files.load(place / "read.pt2", "pt2")(torch.zeros(1, 10, 10, 3, dtype=torch.uint8))[0].shape == (1, 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error_of_the_machine(tmp_path):
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),))
    with pytest.raises(OSError, match="No space left on device"):
        files.write(program, Path("/dev/full"), "pt2", {}, [])
