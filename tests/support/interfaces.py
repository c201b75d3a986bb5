"""What each interface of a run makes of the same image files: loaders, commands, Python and exported files."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from resnet_cli import load_run
from resnet_cli.commands import predict
from resnet_cli.data.images.decode import to_pixels
from resnet_cli.data.images.read import decode
from resnet_cli.data.images.resize import draft_size
from resnet_cli.export import files
from resnet_cli.export.graph import ExportGraph
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session.trained import open_trained

ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Answers:
    """What an interface says of images, in the order of their paths.

    Args:
        logits: float32 [N, K]; None if it says probabilities alone.
        probabilities: float32 [N, K].
        inputs: What the net gets, float32 [N, C, H, W]; None if it is not seen.
    """

    logits: torch.Tensor | None
    probabilities: torch.Tensor
    inputs: torch.Tensor | None = None

    def difference(self, other):
        """Return the largest difference to the answers of another interface: of logits, or else of probabilities."""
        if self.logits is None:
            return (self.probabilities - other.probabilities).abs().max().item()
        return (self.logits - other.logits).abs().max().item()

    def top1_differences(self, other):
        """Return how many images have another best class."""
        return (self.probabilities.argmax(1) != other.probabilities.argmax(1)).sum().item()


def of_logits(logits, inputs=None):
    return Answers(logits, logits.softmax(1), inputs)


def open_run(folder, **data):
    """Open a run as if it had been trained with other keys of `data`, and the same mean and standard deviation."""
    run = open_trained(str(folder))
    node = {**run.data_node(), "mean": list(run.data["mean"]), "std": list(run.data["std"]), **data}
    return replace(run, settings={**run.settings, "data": node})


def from_loader(run, split, **data):
    """A loader of the run; `train` without augmentation is shuffled, so its images are put in order."""
    loaders = run.loaders({**run.data_node(), **data})
    loader = getattr(loaders, split)
    samples, _ = loaders.samples[split]
    classifier = Classifier(run)
    inputs = torch.cat([images_BCHW.cpu().clone() for images_BCHW, _ in loader])
    paths = [os.path.realpath(samples.images.source.describe(index)) for index in loader._order(0).tolist()]
    order = torch.tensor(sorted(range(len(paths)), key=paths.__getitem__))
    inputs = inputs[order]
    logits = torch.cat([classifier.forward_normalised(part) for part in inputs.split(64)])
    return of_logits(logits, inputs)


def from_predict(folder, photos, out):
    """`resnet-predict --top K`, whose probabilities are rounded."""
    names = load_run(folder).class_names
    status = predict.run([str(folder), str(photos), "--top", str(len(names)), "--out", str(out)])
    assert status == 0
    rows = sorted(map(json.loads, out.read_text().splitlines()), key=lambda row: row["image"])
    found = [{one["class"]: one["probability"] for one in row["top"]} for row in rows]
    return Answers(None, torch.tensor([[one[name] for name in names] for one in found]))


def from_python(run, paths, kind):
    """`load_run`, with paths, the bytes of files, or opened Pillow images."""
    classifier = Classifier(run, batch_size=50)
    if kind == "images":
        logits = torch.cat([from_opened(classifier, path) for path in paths])
    else:
        logits = classifier.logits([path.read_bytes() for path in paths] if kind == "bytes" else map(str, paths))
    return of_logits(logits)


def from_opened(classifier, path):
    with Image.open(path) as image:
        return classifier.logits(image)


def export_logits(run, path):
    """Write an exported file of the run, which returns logits and takes images of any size, and load it."""
    format_name = "pt2" if path.suffix == ".pt2" else "onnx"
    graph = ExportGraph(Classifier(run), resizes=True, output="logits").eval()
    channels, height, width = run.in_size
    example = torch.zeros(2, height + 1, width + 1, channels, dtype=torch.uint8)
    files.write(files.trace(graph, example, resizes=True), path, format_name, {}, ["logits"])
    return files.load(path, format_name)


def from_exported(run, paths, run_file, *, is_reduced=True):
    """An exported file, which is given images in the sizes of their files.

    Args:
        run: The run.
        paths: The image files.
        run_file: The loaded file.
        is_reduced: Large JPEG files are decoded at a reduced scale, as a run decodes them; else whole.
    """
    decoding = Classifier(run).preprocessing.decoding
    images = (decode_at_own_size(path, decoding, is_reduced=is_reduced) for path in paths)
    return of_logits(torch.cat([run_file(image_HWC[None])[0] for image_HWC in images]))


def decode_at_own_size(path, decoding, *, is_reduced):
    """Return a file's pixels, uint8 [H, W, C], before they are resized, as an exported file is given them."""
    with Image.open(path) as image:
        if image.format not in ("JPEG", "MPO") or not is_reduced:
            return decode(path, replace(decoding, image_size=None))[0]
        is_turned = image.getexif().get(ORIENTATION_TAG, 1) >= 5
        size = draft_size(image, decoding.image_size, decoding.resize, is_turned=is_turned)
        if size is not None:
            image.draft(image.mode, size)
        return to_pixels(image, decoding)


def train(place, photos, *arguments, size=(24, 20), cache="null"):
    """Train for a moment on a folder of classes, all of whose images are in both splits; return the run's folder."""
    from resnet_cli.commands.train.main import run

    root = Path(place) / "data"
    if not root.exists():
        root.mkdir(parents=True)
        for split in ("train", "test"):
            (root / split).symlink_to(Path(photos).resolve())
    folder = Path(place) / "run"
    arguments = [
        "data=image_folder", f"data.root={root}", f"data.image_size=[{size[0]},{size[1]}]", f"data.cache={cache}",
        "data.val_fraction=0", "data.augment=null", "trainer.device=cpu", f"hydra.run.dir={folder}", *arguments,
    ]  # fmt: skip
    assert run(arguments) == 0
    return folder
