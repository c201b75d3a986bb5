"""Several runs as one: the mean of their weights or probabilities, on images that none was trained on."""

import gc
import json
import shutil
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn, update_bn

from resnet_cli import load_run
from resnet_cli.commands.eval import run as evaluate
from resnet_cli.commands.train.main import run as train_command
from resnet_cli.data.selection import Samples
from resnet_cli.errors import InputError
from resnet_cli.evaluation import combined
from resnet_cli.evaluation import members as members_of
from resnet_cli.evaluation.collect import collect_outputs
from resnet_cli.evaluation.images import own_images
from resnet_cli.evaluation.members import Member, warn_of_separate_starts
from resnet_cli.session.trained import open_trained
from resnet_cli.training.batch_norm import batch_norms
from tests.support.runs import record_of, tiny

CNN = ["model=cnn", "model.channels=[4]", "model.pool_every=1", "model.hidden_dims=[8]", "trainer.epochs=1"]
RUNS = {
    "seed0": [],
    "seed1": ["seed=1"],
    "dropout": ["seed=2", "model.dropout=0.1"],
    "wide": ["model.width=2", "data.image_size=12"],
    "held out otherwise": ["data.split_seed=1"],
    "fewer": ["data.classes=2"],
    "no validation": ["data.val_fraction=0"],
    "tuned": ["init_from=seed0", "seed=5"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folders of short runs on the same data; one that is named is trained when it is first asked for."""
    place = tmp_path_factory.mktemp("combined")

    def folder(name):
        if name == "tuned":
            folder("seed0")
        if not (place / name).exists():
            arguments = tiny(*RUNS[name], "trainer.epochs=1", f"hydra.run.dir={name}")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                patch.setattr(sys, "argv", ["resnet-train", *arguments])
                assert train_command(arguments) == 0
        return place / name

    return folder


def softmax(logits_NK):
    return torch.from_numpy(logits_NK).softmax(1).numpy()


@pytest.fixture
def members(folder):
    return lambda *names: [members_of.Member(name, open_trained(str(folder(name)))) for name in names]


def test_averaged_weights_and_their_statistics_are_those_of_torch(members):
    found = members("seed0", "seed1", "dropout")
    members_of.require_same_classes(found, "weights")
    members_of.require_same_architecture(found)
    before = {name: value.clone() for name, value in found[0].run.model.state_dict().items()}
    loaders = found[0].run.loaders()
    run = combined.average_weights(found, loaders)
    expected = AveragedModel(found[0].run.model, multi_avg_fn=get_swa_multi_avg_fn())
    for member in found:
        expected.update_parameters(member.run.model)
    update_bn(loaders.train.epoch(0), expected)
    for name, value in expected.module.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert not run.model.training
    assert all(torch.equal(value, before[name]) for name, value in found[0].run.model.state_dict().items())
    again = combined.average_weights(found, found[0].run.loaders()).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize("average", ["weights", "probabilities"])
def test_images_of_another_run_that_have_changed_are_said(members, average):
    found = members("seed0", "seed1")
    found[1].run.data["splits"]["val"]["count"] = 7
    (line,) = members_of.compare_splits(found, "val", average)
    assert line.startswith("seed1: the validation images have changed since training: 7 images then, ")
    assert members_of.compare_splits(found, "test", average) == []


def test_averaged_probabilities_are_the_mean_of_what_each_run_says(members, folder):
    """Each reads the images in its own size."""
    found = members("seed0", "wide")
    members_of.require_same_classes(found, "probabilities")
    assert members_of.compare_splits(found, "test", "probabilities") == []
    outputs = combined.CombinedRuns(tuple(found), "probabilities", "test", found[0].run, ()).outputs(
        own_images(found[0].run, "test")
    )
    probabilities_NK, labels_N = torch.from_numpy(outputs.logits_NK).softmax(1), torch.from_numpy(outputs.labels)
    said = []
    for member in found:
        model = load_run(folder(member.name)).model
        batches = list(member.run.loaders().test)
        with torch.no_grad():
            said.append(torch.cat([model(images).softmax(1) for images, _ in batches]))
    torch.testing.assert_close(probabilities_NK, (said[0] + said[1]) / 2)
    assert torch.equal(labels_N, torch.cat([labels for _, labels in batches]))
    mean_NK = (said[0] + said[1]) / 2
    assert outputs.scores.loss == pytest.approx(nn.functional.nll_loss(mean_NK.log(), labels_N).item(), rel=1e-5)
    assert outputs.scores.accuracy == 100 * (mean_NK.argmax(1) == labels_N).double().mean()


def test_the_images_of_one_other_run_at_a_time_are_in_memory(members, folder, monkeypatch):
    found = members("seed0", "seed1", "dropout")
    images = own_images(found[0].run, "test")
    made, alive = [], []

    def read(run, split):
        gc.collect()
        alive.append(sum(reference() is not None for reference in made))
        others = own_images(run, split)
        made.append(weakref.ref(others))
        return others

    monkeypatch.setattr(combined, "own_images", read)
    combined.CombinedRuns(tuple(found), "probabilities", "test", found[0].run, ()).outputs(images)
    assert alive == [0, 0]
    opened = combined.open_combined([str(folder("seed0")), str(folder("seed1"))], "probabilities", "test")
    assert not any("partition" in vars(member) for member in opened.members)


def test_classes_and_images_are_matched_by_name(members):
    first, other = members("seed0", "seed0")
    order = [2, 0, 1]
    head = [module for module in other.run.model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.copy_(head.weight[order])
        head.bias.copy_(head.bias[order])
    names = other.run.data["class_names"]
    other.run.data["class_names"] = [names[k] for k in order]
    with pytest.raises(
        InputError, match="seed0: its classes are in a different order from those of seed0; use --average probabilities"
    ):
        members_of.require_same_classes([first, other], "weights")
    members_of.require_same_classes([first, other], "probabilities")
    alone = collect_outputs(first.run, own_images(first.run, "val"))
    order = torch.randperm(len(alone.names), generator=torch.Generator().manual_seed(1)).tolist()
    said = collect_outputs(other.run, own_images(other.run, "val"))
    moved = replace(
        said, names=[said.names[i] for i in order], logits_NK=said.logits_NK[order], labels=said.labels[order]
    )
    both = combined.average_outputs([alone, moved])
    np.testing.assert_allclose(softmax(both.logits_NK), softmax(alone.logits_NK), rtol=1e-4)
    assert (both.labels == alone.labels).all()


def test_other_architectures_and_classes_are_refused(members):
    with pytest.raises(InputError) as refused:
        members_of.require_same_architecture(members("seed0", "wide", "seed1"))
    assert refused.value.problems == (
        "wide: its architecture differs from that of seed0: model.width 1 and 2; use --average probabilities",
    )
    with pytest.raises(InputError, match=r"fewer: its classes differ from those of seed0: no class 2$"):
        members_of.require_same_classes(members("seed0", "fewer"), "probabilities")
    found = members("seed0", "seed1")
    found[1].run.model.extra = nn.Linear(1, 1)
    with pytest.raises(InputError, match=r"seed0: extra.weight absent and \[1, 1\]"):
        members_of.require_same_architecture(found)


@pytest.mark.slow
def test_runs_that_did_not_begin_alike_are_told(members):
    (line,) = members_of.warn_of_separate_starts(members("seed0", "seed1", "tuned"))
    assert line.startswith("seed0 and seed1 started from different weights")
    assert members_of.warn_of_separate_starts(members("seed0", "tuned", "held out otherwise")) == []


def test_weights_that_were_trained_on_images_prepared_otherwise_are_said(members, monkeypatch):
    found = members("seed0", "seed1")
    assert members_of.warn_of_other_preparation(found) == []
    found[1].run.settings["data"]["eval_crop"] = 0.8
    found[1].run.data["mean"] = [value + 0.1 for value in found[1].run.data["mean"]]
    (line,) = members_of.warn_of_other_preparation(found)
    assert line.startswith("seed1: was trained on images prepared otherwise than those of seed0")
    assert line.endswith("is evaluated: data.eval_crop, mean and standard deviation")
    runs = {member.name: member.run for member in found}
    monkeypatch.setattr(combined, "open_trained", lambda path, **options: runs[path])
    assert line in combined.open_combined(list(runs), "weights", "test").notes


@pytest.mark.slow
def test_images_that_a_run_was_trained_on_give_no_figures(members):
    found = members("seed0", "held out otherwise")
    for average in ("weights", "probabilities"):
        with pytest.raises(InputError) as refused:
            members_of.compare_splits(found, "val", average)
        (problem,) = refused.value.problems
        seen = set(found[0].names("val")) & set(found[1].names("train"))
        assert problem == (
            f"held out otherwise: was trained on {len(seen)} of the {len(found[0].names('val'))} validation images of "
            "seed0; --split test"
        )
        lines = members_of.compare_splits(found, "test", average)
        assert lines == ["held out otherwise: its validation images are not those of seed0"]
    assert members_of.compare_splits(members("seed0", "seed1"), "val", "weights") == []
    with pytest.raises(InputError, match="no validation: has no validation images"):
        members_of.compare_splits(members("no validation", "seed1"), "val", "weights")


@pytest.mark.slow
def test_other_images_and_other_labels_have_no_common_figures(members):
    found = members("seed0", "seed1")
    split, _ = found[1].partition.samples["test"]
    split.labels[0] = (split.labels[0] + 1) % 3
    with pytest.raises(InputError, match="seed1: some test images have different labels in seed0"):
        members_of.compare_splits(found, "test", "probabilities")
    found = members("seed0", "seed1")
    found[1].partition.samples["test"] = Samples(split, torch.arange(3))
    with pytest.raises(InputError, match=r"seed1: its test images are not those of seed0$"):
        members_of.compare_splits(found, "test", "probabilities")


def test_the_command_evaluates_runs_as_one(members, folder, tmp_path, capsys):
    names = ["seed0", "tuned"]
    paths = [str(shutil.copytree(folder(name), tmp_path / name)) for name in names]
    wide = str(folder("wide"))
    capsys.readouterr()
    assert evaluate([*paths, "--average", "weights", "--split", "val", "--format", "json", "--resamples", "0"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = members(*names)
    run = combined.average_weights(found, found[0].run.loaders())
    images_BCHW, labels_N = (torch.cat(parts) for parts in zip(*found[0].run.loaders().val, strict=True))
    with torch.no_grad():
        logits_NK = run.model(images_BCHW)
    assert printed["loss"] == pytest.approx(nn.functional.cross_entropy(logits_NK, labels_N).item(), rel=1e-5)
    assert printed["accuracy"] == pytest.approx(100 * (logits_NK.argmax(1) == labels_N).float().mean().item())
    assert (printed["average"], printed["runs"]) == ("weights", paths)
    (files,) = (tmp_path / "seed0/eval").glob("val-average-weights-seed0-tuned-*")
    assert json.loads((files / "metrics.json").read_text()) == printed
    assert (files / "predictions.csv").read_text().count("\n") == 1 + len(labels_N)
    for path in paths:  # the images were read for each
        entry = record_of(Path(path))["evaluations"][-1]
        assert (entry["split"], entry["average"], entry["runs"], entry["loss"]) == (
            "val", "weights", paths, printed["loss"],
        )  # fmt: skip
    assert evaluate([*paths, wide, "--average", "probabilities", "--tta", "flip", "--out", str(tmp_path / "x")]) == 0
    table = capsys.readouterr().out
    assert f"averaged probabilities of {', '.join([*paths, wide])}" in table
    assert "32 test images" in table
    assert "with tta" in table
    assert (tmp_path / "x/metrics.json").is_file()


def test_another_average_of_the_same_first_run_has_its_own_folder(folder, tmp_path, capsys):
    first, other, third = (str(shutil.copytree(folder("seed0"), tmp_path / name)) for name in ("a", "b", "c"))
    for members in ([first, other], [first, third], [first, other]):
        assert evaluate([*members, "--average", "probabilities", "--resamples", "0"]) == 0
    names = sorted(path.name for path in (tmp_path / "a/eval").iterdir())
    assert [name.rpartition("-")[0] for name in names] == [
        "test-average-probabilities-a-b",
        "test-average-probabilities-a-c",
    ]


def test_a_run_that_is_given_twice_is_refused(folder, capsys):
    seed0 = str(folder("seed0"))
    capsys.readouterr()
    for average in ("weights", "probabilities"):
        assert evaluate([seed0, seed0, "--average", average]) == 2
        assert evaluate([seed0, f"{seed0}/checkpoints/best.pt", "--average", average]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0] == f"error: {seed0}: is given twice; an average is of different runs or checkpoints"
    assert f"best.pt: is the same checkpoint as {seed0}; an average" in lines[1]


def test_the_command_refuses_what_cannot_be_averaged(folder, tmp_path, capsys):
    seed0, wide, other = (str(folder(name)) for name in ("seed0", "wide", "held out otherwise"))
    capsys.readouterr()
    before = sorted(Path(seed0).rglob("*"))
    assert evaluate([seed0, wide]) == 2
    assert evaluate([seed0, "--average", "weights"]) == 2
    assert evaluate([seed0, wide, "--average", "weights"]) == 2
    assert evaluate([seed0, other, "--average", "weights", "--split", "val"]) == 2
    assert evaluate([seed0, wide, "--average", "probabilities", "--checkpoint", f"{wide}/checkpoints/best.pt"]) == 2
    assert evaluate([seed0, wide, "--average", "probabilities", "--embed"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("error: ") for line in lines)
    assert "takes one run; --average weights or probabilities" in lines[0]
    assert "--average weights: takes two runs or more" in lines[1]
    assert "its architecture differs" in lines[2]
    assert "was trained on" in lines[3]
    assert "with --average it takes best or last" in lines[4]
    assert lines[5] == "error: --embed: cannot be combined with --average probabilities"
    assert sorted(Path(seed0).rglob("*")) == before


@pytest.mark.slow
def test_runs_on_images_with_several_labels(train, tmp_path):
    draw = np.random.default_rng(0)
    labels, images = draw.random((40, 3)) < 0.5, draw.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    options = ["data=arrays", "data.file=x.npz", "data.labels=multi", "data.class_names=[red,green,blue]", *CNN]
    for seed in (0, 1):
        assert train(*options, f"seed={seed}", f"hydra.run.dir={seed}")[0] == 0
    found = [members_of.Member(name, open_trained(str(tmp_path / name))) for name in "01"]
    members_of.require_same_classes(found, "weights")
    members_of.require_same_architecture(found)
    assert found[0].run.thresholds is not None
    assert combined.average_weights(found, found[0].run.loaders()).thresholds is None
    assert members_of.compare_splits(found, "test", "probabilities") == []
    outputs = combined.CombinedRuns(tuple(found), "probabilities", "test", found[0].run, ()).outputs(
        own_images(found[0].run, "test")
    )
    ((images_BCHW, expected_NK),) = found[0].run.loaders().test
    with torch.no_grad():
        said = [member.run.model(images_BCHW).sigmoid() for member in found]
    torch.testing.assert_close(torch.from_numpy(outputs.logits_NK).sigmoid(), (said[0] + said[1]) / 2)
    assert (outputs.labels == expected_NK.bool().numpy()).all()


def test_probabilities_of_labels_become_logits_of_a_sigmoid():
    probabilities_NK = torch.tensor([[0.0, 1.0, 0.3], [0.5, 1e-9, 0.999]])
    logits_NK = combined.to_logits(probabilities_NK, has_label_sets=True)
    assert logits_NK.isfinite().all()
    torch.testing.assert_close(logits_NK.sigmoid(), probabilities_NK)


def test_runs_from_the_same_published_weights_share_a_start():
    def member(seed, **record):
        return Member(f"run{seed}", SimpleNamespace(record={"seed": seed, "start": "scratch", **record}))

    weights = {"name": "IMAGENET1K_V1", "sha256": "0" * 64}
    assert warn_of_separate_starts([member(0, weights=weights), member(1, weights=weights)]) == []
    assert len(warn_of_separate_starts([member(0), member(1)])) == 1


def test_statistics_that_were_frozen_are_those_of_the_average(members):
    found = members("seed0", "seed1")
    first, second = (member.run.model for member in found)
    names = [name for name, _ in batch_norms(first)]
    second.get_submodule(names[0]).load_state_dict(first.get_submodule(names[0]).state_dict())
    before = {name: first.get_submodule(name).running_mean.clone() for name in names}
    averaged = combined.average_weights(found, found[0].run.loaders()).model
    kept = [name for name in names if torch.equal(averaged.get_submodule(name).running_mean, before[name])]
    assert kept == names[:1]
    alike = combined.average_weights([found[0], found[0]], found[0].run.loaders()).model.state_dict()
    assert all(torch.equal(value, alike[name]) for name, value in first.state_dict().items())
