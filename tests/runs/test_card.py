"""card.md: what it says of a run, that it is a valid model card, and that no record makes it harmful or long."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resnet_cli.errors import InputError
from resnet_cli.runs.card import update_card, write_card
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.summary import count_threads
from tests.support.reports import write_run

DATA = {
    "images": {"train": 1294, "val": 143, "test": 355}, "in_size": [1, 16, 16], "classes": 10,
    "class_names": [*map(str, range(10))],
}  # fmt: skip
VERSIONS = {"python": "3.12.1", "resnet-cli": "0.3.0", "torch": "2.9.0"}


def card_of(folder):
    """The metadata and the text of the card that is drawn now."""
    write_card(RunDir(folder))
    _, front, text = (folder / "card.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def update_record(folder, fields):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **fields}))


@pytest.mark.parametrize(
    ("threads", "device", "words"),
    [(1, "cuda:0 (H100)", "1 thread"), (4, None, "4 threads"), (2, "cpu (2 threads)", ""), (None, "cpu", "")],
)
def test_threads_are_counted_once(threads, device, words):
    assert count_threads(threads, device) == words


def test_a_finished_run(tmp_path):
    folder = write_run(
        tmp_path / "run", command="resnet-train data=digits model=resnet8", data=DATA, versions=VERSIONS,
        device="cpu (2 threads)", precision="fp32", threads=2, platform="Linux", epochs=3, git_commit="4556a69",
        git_dirty=True, test_reads=["2026-11-21T10:00:00+00:00"], started="2026-11-21T09:58:00+00:00",
    )  # fmt: skip
    update_record(folder, {"epochs": 3})
    (folder / "curves.png").touch()
    _, text = card_of(folder)
    lines = text.splitlines()
    for line in (
        "# resnet8",
        "- data: `resnet_cli.data.digits` of 1x16x16 (channels, height, width)",
        "- images: 1,294 training, 143 validation, 355 test",
        "- classes: 10: " + ", ".join(f"`{i}`" for i in range(10)),
        "- split: `val_fraction=0.1`, `split_seed=0`",
        "| validation, epoch 2 | 90.00 | 0.4000 |",
        "| test | 89.00 | 0.5000 |",
        "The test set was read once by training.",
        "![Loss and accuracy by epoch](curves.png)",
        "- model: `resnet_cli.models.CifarResNet`, 75,290 parameters",
        "- versions: `python` `3.12.1`, `resnet-cli` `0.3.0`, `torch` `2.9.0`",
        "- commit: `4556a69`, with changes that are not committed",
        "    resnet-train data=digits model=resnet8",
        f"    resnet-train resume={folder} trainer.epochs=6",
        "- The code had changes that were not committed, so the commit alone does not reproduce it.",
        "- One of the 355 test images is 0.28 points of the test accuracy.",
    ):
        assert line in lines
    assert "**finished**: 3 of 3 epochs, 6.0 s of training." in text
    assert "samples.png" not in text  # there is none
    assert "resumed" not in text


def test_metadata(tmp_path):
    found, _ = card_of(write_run(tmp_path / "run", "data._target_=resnet_cli.data.cifar10", data=DATA))
    index = found.pop("model-index")
    assert found == {
        "library_name": "resnet-cli", "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", "resnet-cli", "CifarResNet"],
        "datasets": ["uoft-cs/cifar10"], "metrics": ["accuracy"],
    }  # fmt: skip
    task = {"type": "image-classification", "name": "Image classification"}
    dataset = {"name": "uoft-cs/cifar10", "type": "uoft-cs/cifar10"}
    assert index == [{
        "name": "resnet8",
        "results": [
            {"task": task, "dataset": {**dataset, "split": split}, "metrics": [
                {"type": "accuracy", "value": accuracy, "name": f"{words} accuracy (%)"},
                {"type": "loss", "value": loss, "name": f"{words} loss"},
            ]}
            for split, words, accuracy, loss in (("test", "Test", 89.0, 0.5), ("validation", "Validation", 90.0, 0.4))
        ],
    }]  # fmt: skip


@pytest.mark.parametrize(("changes", "name"), [
    (["data._target_=resnet_cli.data.image_folder", "data.root=/data/My Photos.zip"], "My-Photos"),
    (["data._target_=resnet_cli.data.csv", "data.file=labels.csv", "data.root=null"], "labels"),
    (["data._target_=resnet_cli.data.huggingface", "data.name=beans/leaf.v1"], "beans/leaf.v1"),
    (["data._target_=resnet_cli.data.huggingface", "data.name=../../etc"], "etc"),
    (["data._target_=resnet_cli.data.flowers102", "data.root=/data"], "flowers102"),
    (["data._target_=mine.Blobs"], "Blobs"),
])  # fmt: skip
def test_name_of_the_data(tmp_path, changes, name):
    assert card_of(write_run(tmp_path / "run", *changes))[0]["datasets"] == [name]


def test_the_hubs_own_library_reads_the_card(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    folder = write_run(tmp_path / "run", "name=\"a: b '- x'\"", data=DATA)
    write_card(RunDir(folder))
    card = hub.ModelCard.load(folder / "card.md")
    assert card.data.model_name == "a: b '- x'"
    assert card.data.library_name == "resnet-cli"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert found == {
        ("test", "accuracy"): 89.0, ("test", "loss"): 0.5, ("validation", "accuracy"): 90.0, ("validation", "loss"): 0.4
    }  # fmt: skip
    assert hub.metadata_load(folder / "card.md")["datasets"] == ["digits"]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted", "pruned"])
def test_a_run_without_a_result(tmp_path, status):
    folder = write_run(tmp_path / "run", status=status, best=None, test=None, reason="ValueError: no", epochs=0)
    found, text = card_of(folder)
    assert "model-index" not in found
    assert found["metrics"] == ["accuracy"]
    shown = "killed" if status == "running" else status  # no process writes this folder
    assert f"**{shown}** `ValueError: no`: 0 epochs." in text
    assert "No results." in text
    assert f"- The run did not finish ({shown})" in text
    assert f"    resnet-train resume={folder}\n" in text


def test_a_run_that_is_running(tmp_path):
    folder = write_run(tmp_path / "run", status="running", best=None, epochs=0)
    (folder / ".lock").write_text("somebody\n")
    text = card_of(folder)[1]
    assert "**running**" in text
    assert "No results yet." in text
    assert "- The run had not ended when this was written." in text


@pytest.mark.parametrize(("record", "words", "warns"), [
    ({"test": None, "status": "interrupted"}, "never by training", False),
    ({}, "once by training", False),  # a record of a version that did not count
    ({"test_reads": ["a"]}, "once by training", False),
    ({"test_reads": ["a", "b"]}, "twice by training", True),
    ({"evaluations": [{"split": "val"}]}, "once by training", False),
    ({"evaluations": [{"split": "test", "data": {"root": "others"}}]}, "once by training", False),
    ({"evaluations": [{"split": "test", "data": {"eval_crop": "0.9", "splits": "run/splits.json"}}]},
     "once by training, and once by evaluations after it", True),
    ({"evaluations": [{"split": "test"}, {"split": "test"}, {"split": "test"}, 5]},
     "once by training, and 3 times by evaluations after it", True),
])  # fmt: skip
def test_how_often_the_test_set_was_read(tmp_path, record, words, warns):
    _, text = card_of(write_run(tmp_path / "run", **record))
    assert f"The test set was read {words}." in text
    assert ("What is chosen after looking at a test result" in text) == warns


def test_resumes(tmp_path):
    resumes = [
        {"step": 3, "epoch": 1, "checkpoint": "last.pt", "at": "2026-11-21", "changes": ["trainer.epochs: 3 -> 9"]},
        {"step": 9, "epoch": 3, "checkpoint": "last.pt", "at": "2026-11-22", "changes": []},
    ]
    _, text = card_of(write_run(tmp_path / "run", resumed_from=resumes))
    assert "- resumed at epoch 1, step 3, `2026-11-21`, with `trainer.epochs: 3 -> 9`\n" in text
    assert "- resumed at epoch 3, step 9, `2026-11-22`\n" in text
    assert "- The run was resumed twice, once with changed settings." in text


def test_what_was_fitted_after_training(tmp_path):
    reject = {"method": "energy", "threshold": -1.25, "rate": 0.05}
    text = card_of(write_run(tmp_path / "run", temperature=1.5, reject=reject))[1]
    assert "- temperature: 1.5\n- reject: `method=energy threshold=-1.25 rate=0.05`\n" in text


def test_evaluations_and_exports_are_listed_the_newest_ones(tmp_path):
    evaluations = [
        {"split": "test", "at": f"day {i}", "data": ["root=a|b"], "accuracy": 80.125, "per_class": [1, 2]}
        for i in range(30)
    ]
    exports = [{"file": "model.onnx", "format": "onnx", "agrees": True, "largest_difference": 1.5e-6}]
    _, text = card_of(write_run(tmp_path / "run", evaluations=evaluations, exports=exports))
    assert "| `split` | `at` | `data` | `accuracy` |" in text
    assert "| `test` | `day 29` | `root=a\\|b` | 80.125 |" in text
    assert "`day 9`" not in text
    assert "10 older ones are in run.json." in text
    assert "| `model.onnx` | `onnx` | yes | 1.5e-06 |" in text


@pytest.mark.parametrize(("changes", "words"), [
    (["data.val_fraction=0"], "One run with one seed"),
    (["trainer.max_batches=2"], "Only the first batches of each epoch were used"),
    (["data.label_noise=0.2"], "changed deliberately"),
])  # fmt: skip
def test_limitations(tmp_path, changes, words):
    assert words in card_of(write_run(tmp_path / "run", *changes))[1]


def test_scores_of_training_batches_are_not_published_as_those_of_validation(tmp_path):
    found, text = card_of(write_run(tmp_path / "run", "trainer.overfit_batches=1"))
    assert [result["dataset"]["split"] for result in found["model-index"][0]["results"]] == ["test"]
    assert "| training batches, epoch 2 | 90.00 | 0.4000 |" in text
    assert "- The run validated on its own training batches" in text
    selection = {"weights": "last epoch", "by": None}  # as former versions recorded without validation images
    _, text = card_of(write_run(tmp_path / "former", "trainer.overfit_batches=1", selection=selection))
    assert "No validation split" not in text


def test_no_validation_part(tmp_path):
    text = card_of(write_run(tmp_path / "run", selection={"weights": "last epoch", "by": None}))[1]
    assert "No validation split was held out" in text


HOSTILE = [
    "PWN", "`PWN`", "``` PWN", "\n# PWN\n", "\r\n---\r\nPWN: 1", "<script>PWN</script>", "[PWN](javascript:PWN)",
    "![PWN](http://PWN.example/x.png)", "| PWN |", "\x1b[31mPWN", "\u202ePWN", "\u2028PWN", "--> PWN <!--",
    "PWN" * 50_000,
    "\\` PWN", "\n\n    PWN\n\nPWN", "www.PWN.example", "http://PWN.example", "&lt;PWN", "$PWN$", "\ud800PWN", "",
]  # fmt: skip
texts = st.sampled_from(HOSTILE)
leaves = st.one_of(
    texts, st.none(), st.booleans(), st.integers(), st.just(10**300), st.floats(), st.just(-1), st.just([]), st.just({})
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
KEYS = (
    "reason", "command", "overrides", "started", "ended", "seed", "epochs", "parameters", "data", "data_revision",
    "start",
    "resumed_from", "best", "selection", "test", "test_reads", "evaluations", "exports", "versions", "platform",
    "device", "threads", "precision", "git_commit", "git_dirty", "temperature", "reject",
)  # fmt: skip
sections = st.sampled_from([
    ("data", "images"), ("data", "in_size"), ("data", "classes"), ("data", "class_names"), ("best", "epoch"),
    ("best", "val_accuracy"), ("best", "val_loss"), ("test", "accuracy"), ("test", "loss"), ("selection", "weights"),
    ("selection", "by"), ("versions", "torch"),
])  # fmt: skip


def outside_of_code(text):
    """A card's Markdown without what stands in code."""
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


def assert_harmless(folder):
    front, text = card_of(folder)
    assert set(front) <= {"library_name", "pipeline_tag", "tags", "datasets", "metrics", "model-index"}
    assert all(c.isprintable() or c == "\n" for c in (folder / "card.md").read_text())
    titles = [line for line in text.splitlines() if line.startswith("# ")]
    assert len(titles) == 1
    assert "PWN" not in outside_of_code(text.replace("# PWN\n", "", 1))  # a name without markup is a title as it is
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Trained on", "## Results", "## Training", "## How to use it", "## Limitations"
    ]  # fmt: skip
    assert len(text) < 60_000


@given(record=st.dictionaries(st.sampled_from(KEYS), values), inner=st.lists(st.tuples(sections, values), max_size=4))
def test_no_record_is_harmful(tmp_path_factory, record, inner):
    for (section, key), value in inner:
        record[section] = {**(record[section] if isinstance(record.get(section), dict) else {}), key: value}
    folder = write_run(tmp_path_factory.mktemp("run"), epochs=1)
    update_record(folder, record)
    assert_harmless(folder)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_harmful_anywhere(tmp_path, text):
    items = [{text: text, "split": text, "at": text, "changes": [text], "epoch": text}]
    everything = dict.fromkeys(KEYS, text) | {
        "data": {"class_names": [text] * 500, "classes": 500, "images": {}, "in_size": [text] * 3},
        "resumed_from": items * 500, "evaluations": items * 500, "exports": items * 500, "versions": {text: text},
        "selection": {"weights": text, "by": text}, "best": {"epoch": text}, "overrides": [text] * 500,
    }  # fmt: skip
    keys = ("name", "model._target_", "data._target_", "data.root", "data.group", "optimizer._target_", "optimizer.lr")
    if len(text) > 1000:  # a record of more than a megabyte is refused, and so is such a config
        everything, keys = {key: everything[key] for key in ("reason", "command", "device", "start")}, ()
    if "\ud800" in text:  # not in YAML
        keys = ()
    folder = write_run(tmp_path / "run", *(f"{key}={json.dumps(text)}" for key in keys))
    update_record(folder, everything)
    assert_harmless(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"status": "PWN"}', "[" * 100_000, '{"a": ' * 100_000])
def test_a_record_that_is_none(tmp_path, content, caplog):
    folder = write_run(tmp_path / "run")
    (folder / "run.json").write_text(content)
    with pytest.raises(InputError):
        write_card(RunDir(folder))
    update_card(RunDir(folder))
    assert not (folder / "card.md").exists()


def test_the_card_is_drawn_fast_and_without_torch(tmp_path):
    """In 4 ms on the machine on which this was written."""
    run = RunDir(write_run(tmp_path / "run", epochs=100, data=DATA, versions=VERSIONS))
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        write_card(run)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.05
    code = "import sys; import resnet_cli.runs.card; assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_commands_of_a_folder_with_a_strange_name(tmp_path):
    folder = write_run(tmp_path / "a b, $(c)=d", epochs=3)
    text = card_of(folder)[1]
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("    resnet-")]
    assert ["resnet-info", str(folder)] in commands
    assert ["resnet-train", f'resume="{folder}"'] in commands
    programs = commands_of_the_package()
    assert {command[0] for command in commands} <= programs


def commands_of_the_package():
    """The commands of the package."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    return set(re.findall(r"^(resnet-\w+) = ", text, re.MULTILINE))
