"""resnet-info from the command line: tables, JSON, comparisons, runs, gradients, wrong input."""

import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from torch.nn import functional as F

from resnet_cli.analysis.gradient_flow import GradientRow, gradient_flow
from resnet_cli.data import Augment, make_loaders, synthetic
from resnet_cli.models.initialisation.data_dependent import initialise_model_from_images
from resnet_cli.session import build
from resnet_cli.session.trained import open_trained
from tests.support import tiers
from tests.support.images import write_class_folders
from tests.support.runs import tiny

TINY = [option for option in tiny() if not option.startswith(("model=", "trainer."))]
CHAIN = [0.0, -0.0727, -0.1319, -0.1892]  # by hand: four layers of tanh, input 10, weights 1, target 1
NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, in_size: list, num_classes: int, hidden: int = 4):
        super().__init__()
        self.first = nn.Linear(3 * 32 * 32, hidden)
        self.last = nn.Linear(hidden, num_classes)
    def forward(self, images):
        hidden = self.first(images.flatten(1))
        assert hidden.std() > 0
        return self.last(hidden)
"""


@pytest.fixture
def info(tmp_path, monkeypatch, capsys):
    """Run resnet-info in this process, in an empty working folder; returns (status, stdout, stderr)."""
    from resnet_cli.commands.info import run

    def info(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return info


@pytest.fixture
def described(info):
    """Run resnet-info with --format json and return the parsed output."""

    def described(*arguments):
        status, out, err = info(*arguments, "--format", "json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return described


def row_of(text, name):
    """Return the cells of a row of a table."""
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return line.split()


@pytest.mark.parametrize(("model", "parameters", "million", "depth"), [
    ("resnet20", 269_722, 40.55, 20), ("resnet56", 853_018, 125.49, 56), ("plain20", 269_722, 40.55, 20),
    ("wrn16_4", 2_748_890, 392.6, 14), ("resnet18", 11_173_962, 555.4, 18), ("se_resnet20", 272_095, 40.55, 20),
    ("preact164", 1_703_258, 244.5, 164), ("airbench", 1_971_640, 118.15, 8),
])  # fmt: skip
def test_counts_are_those_of_the_literature(described, model, parameters, million, depth):
    found = described(f"model={model}", "data=cifar10")
    assert (found["model"], found["in_size"], found["classes"]) == (model, [3, 32, 32], 10)
    assert found["parameters"] == sum(row["parameters"] for row in found["layers"]) == parameters
    assert found["multiply_adds"] == sum(row["multiply_adds"] for row in found["layers"])
    assert found["multiply_adds"] / 1e6 == pytest.approx(million, rel=1e-3)
    assert sum(row["share"] for row in found["layers"]) == pytest.approx(100)
    assert found["depth"] == depth
    assert found["receptive_field"] == [32, 32]


def test_rows_in_json(described):
    found = described("model=resnet8", "data=cifar100")
    assert found["target"] == "resnet_cli.models.CifarResNet"
    assert found["receptive_field"] == [25, 25]
    assert found["layers"][0] == {
        "name": "stem.0", "kind": "Conv2d", "in_shape": [3, 32, 32], "out_shape": [16, 32, 32],
        "parameters": 432, "multiply_adds": 442368, "share": pytest.approx(100 * 442368 / found["multiply_adds"]),
    }  # fmt: skip
    assert found["layers"][-1]["out_shape"] == [100]


def test_table_has_the_same_figures(info, tmp_path):
    status, out, err = info("data=cifar10", "--format", "table", "model=resnet8")
    assert (status, err) == (0, "")
    assert row_of(out, "stem.0") == ["stem.0", "Conv2d", "16x32x32", "432", "442,368", "3.6", "%"]
    assert row_of(out, "total") == ["total", "75,290", "12,239,488"]
    for line in ("images           3x32x32, 10 classes", "depth            8 layers",
                 "receptive field  25x25 pixels"):  # fmt: skip
        assert line in out.splitlines()
    assert "receptive field  whole image" in info("model=resnet20")[1]
    assert list(tmp_path.iterdir()) == []


def test_image_size_is_that_of_the_data(described):
    assert described("model=resnet8", "data=synthetic", "data.image_size=9", "data.classes=3", "data.channels=2")[
        "in_size"
    ] == [2, 9, 9]
    flowers = described("model=residual_mlp", "data=flowers102", "data.root=nowhere")
    assert (flowers["in_size"], flowers["classes"], flowers["receptive_field"]) == ([3, 128, 128], 102, None)


def test_image_size_of_a_folder_is_read_from_its_images(described, info, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((10, 12, 3), 20 * i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    found = described("model=resnet8", "data=image_folder", "data.root=images")
    assert (found["in_size"], found["classes"]) == ([3, 10, 12], 3)
    status, _, err = info("data=image_folder", "data.root=images/none")
    assert status == 2
    assert err.startswith("error: data.root=images/none does not exist")


BLOCKS = [
    "model._target_=resnet_cli.models.ResidualBlock model.channels=[256,256] model.kernel_sizes=[3,3]",
    "model._target_=resnet_cli.models.ResidualBottleneckBlock model.in_out_channels=256 model.inner_channels=[64] "
    "model.inner_kernel_sizes=[3]",
]


def test_compare_a_block_with_its_bottleneck(described, info):
    regular, bottleneck = described("data=synthetic", "data.channels=256", "--compare", *BLOCKS)
    assert [regular[key] for key in ("parameters", "depth", "receptive_field")] == [1_180_160, 2, [5, 5]]
    assert [bottleneck[key] for key in ("parameters", "depth", "receptive_field")] == [70_016, 3, [3, 3]]
    assert (regular["model"], bottleneck["model"]) == ("ResidualBlock", "ResidualBottleneckBlock")
    out = info("data=synthetic", "--compare", *BLOCKS, "data.channels=256")[1]
    assert row_of(out, "parameters") == ["parameters", "1,180,160", "70,016"]
    assert row_of(out, "receptive") == ["receptive", "field", "5x5", "pixels", "3x3", "pixels"]
    assert row_of(out, "A") == ["A", *BLOCKS[0].split()]
    assert [line.split()[-2:] for line in out.splitlines() if line.startswith("total")] == [
        ["1,180,160", "1,207,959,552"], ["70,016", "71,303,168"]
    ]  # fmt: skip


def test_compare_applies_each_side_after_the_common_settings(described):
    a, b = described("model=resnet20", "data=cifar10", "model.width=2", "--compare", "model.width=1", "'name=a b'")
    assert (a["parameters"], a["settings"]) == (269_722, "model.width=1")
    assert b["parameters"] > 4 * 260_000


WRONG = {
    "an option that does not exist": (["model=resnet21"], ["model=resnet21: no such option; did you mean resnet20?"]),
    "keys, all at once": (
        ["model.depht=20", "epochs=3"],
        ["epochs: unknown key; did you mean trainer.epochs?", "model.depht: unknown key; did you mean model.depth?"],
    ),
    "a key twice": (["seed=1", "seed=2"], ["seed: given twice, as 1 and as 2"]),
    "a sweep over options": (["model=resnet20,plain20"], ["model=resnet20,plain20: a sweep; set one value"]),
    "a sweep over values": (["model.depth=range(8,20)"], ["model.depth=range(8,20): a sweep; set one value"]),
    "a depth": (["model.depth=9"], ["model.depth=9: must be 6n+2 with block=basic; the nearest are 8 and 14"]),
    "a model's name": (["resnet20"], ["resnet20: no such run folder; did you mean model=resnet20?"]),
    "no run": (["runs/model=a"], ["runs/model=a: no such run folder"]),
    "two runs": ([".", ".."], ["., ..: give one run folder"]),
    "no run folder": (["."], [".: not a run folder (it has no config.yaml)"]),
    "an unknown flag": (["-m"], ["unrecognized arguments: -m (--help lists the options)"]),
    "an abbreviated flag": (["--comp", "a"], ["unrecognized arguments: --comp; did you mean --copy?"]),
    "a misspelt flag": (["--lsit"], ["unrecognized arguments: --lsit; did you mean --list?"]),
    "no folder of configs": (["--config-dir", "none"], ["--config-dir=none: no such folder"]),
    "a figure without gradients": (
        ["--out", "a.png"],
        ["--out=a.png: names the figure of --gradients, --signal, --shattered, --activations; none is set"]
    ),
    "a figure of another kind": (
        ["--gradients", "--out", "a.svg"], ["--out=a.svg: the figure is a PNG; name it *.png"]
    ),
    "a figure nowhere": (
        ["--gradients", "--out", "none/a.png"], ["--out=none/a.png: its folder does not exist"]
    ),
    "two figures": (["--gradients", "--signal"], ["argument --signal: not allowed with argument --gradients"]),
    "signals of a chain": (
        ["model=scalar_chain", "--signal"],
        ["--signal: not for a scalar chain, which has --gradients only, without --compare"],
    ),
    "activations of a network without": (
        [*TINY, "model=cnn", "model.activation_type=none", "--activations"],
        ["--activations: cnn has no layers that it could measure"],
    ),
    "both sides of a comparison": (
        ["--compare", "model=resnet21", "model.width=0", "model.depht=8"],
        [
            "model=resnet21: no such option; did you mean resnet20?",
            "model.width: 0 is not allowed; it takes a whole number from 1 to 1000",
            "model.depht: unknown key; did you mean model.depth?",
        ],
    ),
    "an open quotation": (["--compare", "model='", "seed=1"], ["--compare model=': no closing quotation"]),
    "images too small": (
        ["model=airbench", "data=digits"],
        ["model: in_size=[1, 16, 16]: height and width must be 25 or more for this network"],
    ),
    "a block for other images": (
        ["data=digits", *BLOCKS[1].split()],
        ["model: resnet_cli.models.ResidualBottleneckBlock does not run on images of 1x16x16: Given groups=1"],
    ),
    "no module": (
        ["model._target_=resnet_cli.models.residual_map.paths", "data=digits"], ["model._target_: "]
    ),
    "no network": (
        ["model._target_=builtins.dict", "data=digits"],
        ["model._target_: builtins.dict returned a dict, not a torch.nn.Module"],
    ),
    "data that are not there": (
        ["data=image_folder", "data.root=none", "--gradients"],
        ["data.root=none does not exist: expected train/<class>/*"],
    ),
    "no classifier": (
        ["--gradients", *TINY, *BLOCKS[0].split()],
        ["model: resnet_cli.models.ResidualBlock returns scores of shape [2, 256, 8, 8] for 2 images of 3x8x8"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_reported_in_one_line_each(info, tmp_path, case):
    arguments, expected = WRONG[case]
    status, out, err = info(*arguments)
    lines = err.splitlines()
    assert (status, out) == (2, "")
    assert len(lines) == len(expected), err
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith(f"error: {words}")
    assert list(tmp_path.iterdir()) == []


def test_composing_leaves_hydra_unchanged(info):
    before = HydraConfig.instance().cfg
    assert info("model=resnet8")[0] == 0
    assert info("model=resnet21")[0] == 2
    assert HydraConfig.instance().cfg is before


@pytest.mark.parametrize(
    "arguments",
    tiers.mostly_slow([["--help"], ["model.depht=20"], ["modle=x"], ["--compare", "a=1", "model=x"]], every=4),
)
def test_torch_is_not_imported_for_help_or_a_typo(arguments, tmp_path):
    code = (
        "import sys\n"
        "from resnet_cli.commands.info import run\n"
        f"run({arguments!r})\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_has_examples(info):
    status, out, err = info("--help")
    assert (status, err) == (0, "")
    assert "resnet-info model=resnet20 data=cifar10" in out
    for text in BLOCKS:
        assert all(word in out for word in text.split())


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as users have it
PRINTS = """
import sys
from resnet_cli.commands import info
info._describe = lambda options: {"text": 100 * "x"}
sys.argv = ["resnet-info", "--format", "json"]
info.main()
"""


def test_closed_pipe_is_not_an_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], env=BUFFERED, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_reported():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", PRINTS], env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, "error: standard output: No space left on device\n")


def test_network_of_the_user(described, info, tmp_path):
    (tmp_path / "infonet.py").write_text(NET)
    found = described("model._target_=infonet.Net", "model.hidden=5", "data=cifar10")
    assert (found["model"], found["parameters"], found["multiply_adds"]) == ("Net", 5 * 3073 + 60, 5 * 3072 + 50)
    status, _, err = info("model._target_=infonet.Net", "data=digits")
    assert status == 2
    assert err.startswith("error: model: infonet.Net does not run on images of 1x16x16: ")
    assert "mat1 and mat2 shapes cannot be multiplied (1x256 and 3072x4)" in err
    for folder in ("conf", "more"):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / f"{folder}net.yaml").write_text("_target_: infonet.Net\nhidden: 7\n")
    assert described("model=confnet", "data=cifar10")["layers"][0]["out_shape"] == [7]
    assert described("model=morenet", "data=cifar10", "--config-dir", "more")["layers"][0]["out_shape"] == [7]
    assert info("model=morenet")[2].startswith("error: model=morenet: no such option")


def test_network_of_a_run(train, described, info, tmp_path):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir='runs/model=x'"))[0] == 0
    run = Path("runs/model=x")
    found = described(run)
    assert (found["model"], found["in_size"], found["classes"]) == ("resnet8", [3, 8, 8], 3)
    assert described(run / "checkpoints" / "best.pt") == found
    assert described(run, "model.depth=14")["depth"] == 14
    assert described(run, "model=resnet20")["model"] == "resnet20"
    status, out, _ = info(run, "--gradients")
    assert status == 0
    assert "depth layer kind weights residual plain residual, trained" in " ".join(out.split())
    rows = described(tmp_path / run, "model.residual=false", "--gradients")["gradients"]
    assert list(rows) == ["plain", "residual", "residual, trained"]
    net = open_trained(str(tmp_path / run)).model
    assert norms(rows["residual, trained"]) == norms(gradient_flow(net, *first_batch()))
    status, out, err = info(run, "--gradients", "data.image_size=16")
    assert (status, "trained" in out) == (0, False)
    assert err == "the run's weights are left out: they are for another image size or other classes\n"


def test_run_whose_data_were_moved(train, described, info, tmp_path):
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((9, 8, 3), 20 * i, np.uint8)).save(folder / name / f"{i}.png")
    options = ["data=image_folder", "data.root=images", "data.cache=null", "data.batch_size=4", "data.augment.crop=0"]
    assert train(*options, "trainer.epochs=1", "hydra.run.dir=run")[0] == 0
    folder.rename(tmp_path / "moved")
    assert (described("run")["in_size"], described("run")["classes"]) == ([3, 9, 8], 2)
    assert info("run", "data.image_size=5")[0] == 2


def loaders():
    dataset = synthetic(count=96, test_count=32, classes=3, image_size=8)
    return make_loaders(dataset, device="cpu", seed=0, batch_size=32, augment=Augment(crop=0, flip="none"))


def first_batch():
    return next(iter(loaders().train))


def norms(rows):
    return [row["norm"] if isinstance(row, dict) else row.norm for row in rows]


def test_gradients_of_a_network_and_its_twin(described, info, tmp_path):
    found = described(*TINY, "model=plain20", "--gradients")
    assert list(found["gradients"]) == ["plain", "residual"]
    for label, rows in found["gradients"].items():
        node = {"_target_": "resnet_cli.models.CifarResNet", "depth": 20, "residual": label == "residual"}
        net = build.model(node, in_size=(3, 8, 8), num_classes=3, seed=0)
        images_BCHW, labels_B = first_batch()
        F.cross_entropy(net(images_BCHW), labels_B).backward()
        assert [row["depth"] for row in rows] == list(range(1, 21))
        assert norms(rows)[0] == pytest.approx(net.stem[0].weight.grad.norm().item(), rel=1e-4)
        assert norms(rows)[-1] == pytest.approx(net.head.linear.weight.grad.norm().item(), rel=1e-4)
        assert rows[0] | {"norm": 0} == {"name": "stem.0", "kind": "Conv2d", "depth": 1, "weights": 432, "norm": 0}
    assert found["figure"] == "gradients-plain20.png"
    assert (tmp_path / "gradients-plain20.png").read_bytes().startswith(b"\x89PNG")
    status, out, err = info(*TINY, "model=resnet8", "model.shortcut=C", "--gradients", "--out", "a.png")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "figure  a.png"
    assert (tmp_path / "a.png").exists()
    projection = next(line.split() for line in out.splitlines() if "stages.1.0.shortcut_path.conv" in line)
    assert projection[2:4] == ["Conv2d", "512"]
    assert projection[5] == "-"  # the plain twin has no such layer


def test_gradients_of_a_network_without_residual_option_have_no_twin(described):
    assert list(described(*TINY, "model=cnn", "--gradients")["gradients"]) == ["network"]


def test_twin_that_cannot_be_built_is_left_out(info):
    status, out, err = info(*TINY, "model=resnet8", "model.init=zero_gamma", "--gradients")
    assert status == 0
    assert err.startswith("the plain counterpart could not be built: model.init=zero_gamma: ")
    assert "plain" not in out


def test_gradients_after_data_dependent_initialisation(described):
    node = {"channels": [4, 4], "pool_every": 2, "hidden_dims": [], "init": "lsuv"}
    keys = [f"model.{key}={value}".replace(" ", "") for key, value in node.items()]
    found = described(*TINY, "model._target_=resnet_cli.models.CNN", *keys, "--gradients")["gradients"]["network"]
    net = build.model({"_target_": "resnet_cli.models.CNN", **node}, in_size=(3, 8, 8), num_classes=3, seed=0)
    assert norms(found) != norms(gradient_flow(net, *first_batch()))
    initialise_model_from_images(net, loaders().train.sample)
    assert norms(found) == norms(gradient_flow(net, *first_batch()))


def test_gradient_norms_that_are_not_finite(info, monkeypatch):
    rows = [GradientRow("a", "Conv2d", 1, math.inf, 3), GradientRow("b", "Conv2d", 2, math.nan, 3)]
    monkeypatch.setattr("resnet_cli.info.analyses.gradient_flow", lambda *_: rows)
    out = info(*TINY, "model=cnn", "--gradients", "--format", "json")[1]
    assert "Infinity" not in out
    assert "NaN" not in out
    assert norms(json.loads(out)["gradients"]["network"]) == [None, None]
    assert info(*TINY, "model=cnn", "--gradients")[1].count("not finite") == 2


@pytest.mark.parametrize(
    ("analysis", "rows"), tiers.mostly_slow([("signal", 3), ("shattered", 16), ("activations", 7)], every=3)
)
def test_other_analyses_of_a_network_and_its_twin(described, info, tmp_path, analysis, rows):
    found = described(*TINY, "model=resnet8", f"--{analysis}")
    assert {label: len(series) for label, series in found[analysis].items()} == {"residual": rows, "plain": rows}
    assert found["figure"] == f"{analysis}-resnet8.png"
    assert (tmp_path / found["figure"]).read_bytes().startswith(b"\x89PNG")
    lines = info(*TINY, "model=resnet8", f"--{analysis}", "--out", "a.png")[1].splitlines()
    assert lines[-1] == "figure  a.png"
    assert (tmp_path / "a.png").exists()


@pytest.mark.slow
def test_an_analysis_compares_two_networks(described, info):
    sides = ["--compare", "model.norm=batch", "model.norm=none"]
    first, second = described(*TINY, "model=preact20", "--signal", *sides)
    batch, none = first["signal"].values()
    assert list(first["signal"]) == ["A: model.norm=batch", "B: model.norm=none"]
    assert "signal" not in second
    assert batch != none
    out = info(*TINY, "model=preact20", "--gradients", *sides)[1]
    assert out.splitlines()[-1] == "figure  gradients-preact20.png"
    assert "B: model.norm=none" in out


def test_scalar_chain(described, info):
    found = described("model=scalar_chain")
    assert (found["parameters"], found["weights"], found["states"][0]) == (4, [1.0] * 4, 10.0)
    assert len(info("model=scalar_chain")[1].splitlines()) == 8
    found = described("model=scalar_chain", "--gradients")
    gradients = {label: [row["gradient"] for row in rows] for label, rows in found["gradients"].items()}
    assert list(gradients) == ["plain", "residual"]
    assert gradients["plain"] == pytest.approx(CHAIN, abs=1e-4)
    assert all(gradient > 0 for gradient in gradients["residual"])
    out = info("model=scalar_chain", "model.residual=true", "--gradients")[1]
    line = next(line.split() for line in out.splitlines() if " w_4 " in line)
    assert line == ["4", "w_4", "Weight", "1", f"{gradients['residual'][3]:.4g}", "-0.1892"]

    found = described("model=scalar_chain", "model.activation_type=none", "model.weight=1e9", "model.depth=99")
    assert (found["states"][1], found["states"][-1]) == (1e10, None)
    rows = described(
        "model=scalar_chain", "model.activation_type=none", "model.weight=1e9", "model.depth=99", "--gradients"
    )["gradients"]["plain"]
    assert rows[0]["gradient"] is None


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        (["data=cifar10", "data.classes=[cat,dog]"], 2),
        (["data=cifar10", "data.merge={pet:[cat,dog],vehicle:[truck,automobile,ship]}"], 7),
        (["data=image_folder", "data.root=images", "data.cache=null", "data.classes=[a,c]"], 2),
        ([*TINY], 3),
    ],
)
def test_the_classes_are_those_that_the_config_chooses(described, tmp_path, options, classes):
    write_class_folders(tmp_path / "images", classes=("a", "b", "c"), count=3, size=(8, 8))
    assert described("model=resnet8", *options)["classes"] == classes


def test_gradients_are_of_the_loss_of_the_config(described):
    node = {"_target_": "resnet_cli.models.CNN", "channels": [4, 4], "pool_every": 2, "hidden_dims": []}
    net = build.model(node, in_size=(3, 8, 8), num_classes=3, seed=0)
    images_BCHW, labels_B = first_batch()
    options = [*TINY, *(f"model.{key}={value}".replace(" ", "") for key, value in node.items()), "--gradients"]
    for loss, function in (
        (["loss.label_smoothing=0.3"], partial(F.cross_entropy, label_smoothing=0.3)),
        (["trainer.label_smoothing=0.3"], partial(F.cross_entropy, label_smoothing=0.3)),
        (["loss._target_=torch.nn.MultiMarginLoss"], F.multi_margin_loss),
    ):
        found = described(*options, *loss)["gradients"]["network"]
        assert norms(found) == pytest.approx(norms(gradient_flow(net, images_BCHW, labels_B, function)), rel=1e-4)


def test_gradients_are_of_the_first_batch_of_the_order(described):
    options = [*TINY, "model=cnn", "--gradients"]
    first = described(*options)
    assert described(*options, "seed=3", "seed.init=0", "seed.order=0", "seed.augment=0") == first
    assert described(*options, "seed.order=5") != first
